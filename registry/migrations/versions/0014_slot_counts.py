"""How many slots have which fate, counted as they are written, and indexes of old slots."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Sorted, so that two transactions lock the rows of one schedule in the same order.
_COUNT = """
CREATE FUNCTION count_schedule_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO schedule_slot_counts AS counted (schedule, fate, reason, count)
        SELECT schedule, fate, reason, sum(count) FROM written
        GROUP BY schedule, fate, reason ORDER BY schedule, fate, reason
        ON CONFLICT (schedule, fate, reason) DO UPDATE SET count = counted.count + excluded.count;
    ELSE
        INSERT INTO schedule_slot_counts AS counted (schedule, fate, reason, count)
        SELECT schedule, fate, reason, sum(count)
        FROM (SELECT schedule, fate, reason, count FROM written
              UNION ALL SELECT schedule, fate, reason, -count FROM overwritten) AS changed
        GROUP BY schedule, fate, reason HAVING sum(count) <> 0 ORDER BY schedule, fate, reason
        ON CONFLICT (schedule, fate, reason) DO UPDATE SET count = counted.count + excluded.count;
    END IF;
    RETURN NULL;
END $$
"""
_TRIGGERS = {
    "schedule_slots_inserted": "AFTER INSERT ON schedule_slots REFERENCING NEW TABLE AS written",
    "schedule_slots_updated": "AFTER UPDATE ON schedule_slots "
    "REFERENCING OLD TABLE AS overwritten NEW TABLE AS written",
}


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "schedule_slot_counts",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("fate", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.execute("LOCK TABLE schedule_slots IN SHARE ROW EXCLUSIVE MODE")
    op.execute(
        "INSERT INTO schedule_slot_counts SELECT schedule, fate, reason, sum(count) "
        "FROM schedule_slots GROUP BY schedule, fate, reason"
    )
    op.execute(_COUNT)
    for name, event in _TRIGGERS.items():
        op.execute(
            f"CREATE TRIGGER {name} {event} "
            "FOR EACH STATEMENT EXECUTE FUNCTION count_schedule_slots()"
        )
    op.create_index("schedule_slots_fate", "schedule_slots", ["schedule", "fate", "slot"])
    op.create_index(
        "schedule_slots_run_at", "schedule_slots", ["schedule", "run_at", "slot"],
        postgresql_where=sa.text("run_at IS NOT NULL"),
    )  # fmt: skip


def downgrade() -> None:
    """Undo."""
    op.drop_index("schedule_slots_run_at", "schedule_slots")
    op.drop_index("schedule_slots_fate", "schedule_slots")
    for name in _TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON schedule_slots")
    op.execute("DROP FUNCTION count_schedule_slots()")
    op.drop_table("schedule_slot_counts")
