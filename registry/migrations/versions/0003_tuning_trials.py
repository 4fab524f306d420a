"""Trials of tunings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    numbers = sa.ARRAY(sa.Double)
    op.create_table(
        "tuning_trials",
        sa.Column("tuning", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("values", numbers),
        sa.Column("reports", numbers, nullable=False),
        sa.Column("violations", numbers, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("mlflow_run_id", sa.Text),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("started", sa.Double),
        sa.Column("ended", sa.Double),
    )
    op.create_index("tuning_trials_flow_run", "tuning_trials", ["flow_run_id"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("tuning_trials_flow_run", "tuning_trials")
    op.drop_table("tuning_trials")
