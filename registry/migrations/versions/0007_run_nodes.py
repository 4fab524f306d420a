"""The nodes of runs that work on several machines."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "run_nodes",
        sa.Column("flow_run_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("told", sa.Text, nullable=False),
        sa.Column("ready", sa.Text, nullable=True),
        sa.Column("code", sa.Integer, nullable=True),
        sa.Column("tail", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("heard", sa.Double, nullable=False),
        sa.Column("ended", sa.Double, nullable=True),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("run_nodes")
