"""Names that pipelines had."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "pipeline_former_names",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("numbered", sa.Integer, primary_key=True),
        sa.Column("pipeline", sa.Text, sa.ForeignKey("pipelines.id"), nullable=False),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("pipeline_former_names")
