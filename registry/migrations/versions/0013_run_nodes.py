"""Where the nodes of a run are, and since when."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("run_nodes", sa.Column("machine", sa.Text, server_default="", nullable=False))
    op.add_column("run_nodes", sa.Column("pod", sa.Text, server_default="", nullable=False))
    op.add_column("run_nodes", sa.Column("began", sa.Double))


def downgrade() -> None:
    """Undo."""
    for column in ("began", "pod", "machine"):
        op.drop_column("run_nodes", column)
