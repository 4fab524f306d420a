"""The state for which an attempt of a run was begun."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Runs that wait in a pod that has not begun are queued again."""
    op.add_column(
        "run_attempts", sa.Column("state_id", sa.Text, nullable=False, server_default="")
    )


def downgrade() -> None:
    """Undo."""
    op.drop_column("run_attempts", "state_id")
