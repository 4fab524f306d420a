"""Schedules and their slots as rows of the catalogue, and the flow runs of slots."""

# Modules that other packages may import. Nothing is imported here, so that each
# costs only what it uses.
__all__ = [
    "schedule_removal",
    "scheduled_runs",
    "schedules",
    "slot_counts",
    "slots",
    "upcoming_slots",
]
