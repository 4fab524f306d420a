"""Schedules, their slots, and who leads."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _schedules()
    _slots()
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
    )


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("trigger", sa.JSON, nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("paused", sa.Text, nullable=False),
        sa.Column("registered", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("decided_until", sa.BigInteger, nullable=False),
        sa.Column("next_slot", sa.BigInteger),
        sa.Column("failures_since", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.Text, nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True)),
    )
    present = sa.text("archived_at IS NULL")
    op.create_index(
        "schedules_name", "schedules", ["name"], unique=True,
        postgresql_where=present,
    )  # fmt: skip
    op.create_index("schedules_next_slot", "schedules", ["next_slot"])


def _slots() -> None:
    op.create_table(
        "schedule_slots",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("slot", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("fate", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("begun", sa.Boolean, nullable=False),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("run_at", sa.Double),
        sa.Column("run_state", sa.Text),
        sa.Column("decided_at", sa.Double, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
    )
    waits = sa.text("fate = 'waiting'")
    op.create_index(
        "schedule_slots_waiting", "schedule_slots", ["schedule", "slot"],
        postgresql_where=waits,
    )  # fmt: skip
    active = sa.text("fate = 'created' AND run_state IS NULL")
    op.create_index(
        "schedule_slots_active", "schedule_slots", ["schedule"],
        postgresql_where=active,
    )  # fmt: skip
    op.create_index("schedule_slots_run", "schedule_slots", ["flow_run_id"])


def downgrade() -> None:
    """Undo."""
    for table in ("leases", "schedule_slots", "schedules"):
        op.drop_table(table)
