"""Attempts that were given up for another one: why, and how many failed to start in a row."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("run_attempts", sa.Column("reason", sa.Text, nullable=False, server_default=""))
    op.add_column(
        "run_attempts", sa.Column("failures", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column("run_attempts", sa.Column("failures_after", sa.Integer))
    op.add_column("run_attempts", sa.Column("queued_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Undo."""
    for column in ("queued_at", "failures_after", "failures", "reason"):
        op.drop_column("run_attempts", column)
