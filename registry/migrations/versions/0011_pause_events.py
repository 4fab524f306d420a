"""The event that is to announce the pause of a schedule."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("schedules", sa.Column("pause_event", sa.Uuid))


def downgrade() -> None:
    """Undo."""
    op.drop_column("schedules", "pause_event")
