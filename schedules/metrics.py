"""Prometheus metrics of schedules, computed from the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from registry import catalogue, leases
from registry.schedules import schedules, slot_counts
from registry.views import JsonObject
from schedules import instants, views
from schedules.scheduler import LEASE

_HOUR = 3600.0

# Labels and value of a sample.
Sample = tuple[Mapping[str, str], float]


def text() -> str:
    """Render all metrics in Prometheus' text format."""
    return "".join(_family(*family) for family in _families())


def samples() -> list[JsonObject]:
    """List all metrics' samples: ``{"name", "labels", "value"}`` of each."""
    return [
        {"name": name, "labels": dict(labels), "value": value}
        for name, _, _, found in _families()
        for labels, value in found
    ]


def _families() -> list[tuple[str, str, str, list[Sample]]]:
    return [*_lateness(), *_slots(), *_schedules(), *_leader()]


def _lateness() -> list[tuple[str, str, str, list[Sample]]]:
    found = slot_counts.lateness(instants.present() - _HOUR)
    quantiles = {"0.5": found.median, "0.99": found.p99, "1": found.most} if found else {}
    return [
        (
            "modelyard_schedule_lateness_seconds", "gauge",
            "Delay of runs after their slots in the last hour, without caught-up slots.",
            [
                ({"quantile": quantile}, late)
                for quantile, late in quantiles.items()
                if late is not None
            ],
        ),
        (
            "modelyard_schedule_runs_last_hour", "gauge",
            "Runs created for slots in the last hour.",
            [({}, found.count if found else 0)],
        ),
    ]  # fmt: skip


def _slots() -> list[tuple[str, str, str, list[Sample]]]:
    return [
        (
            "modelyard_schedule_backlog", "gauge", "Waiting slots, by reason.",
            [({"reason": reason}, count) for reason, count in slot_counts.backlog().items()],
        ),
        (
            "modelyard_schedule_slots_total", "counter", "Slots, by fate and reason.",
            [
                ({"schedule": schedule, "fate": fate, "reason": reason}, count)
                for (schedule, fate, reason), count in slot_counts.fates().items()
            ],
        ),
    ]  # fmt: skip


def _schedules() -> list[tuple[str, str, str, list[Sample]]]:
    with catalogue.session() as open_session:
        found = [
            (
                row.name,
                views.worded(*views.state(row))["state"],
                row.next_slot if row.enabled else None,
            )
            for row in schedules.present(open_session)
        ]
    states = Counter(state for _, state, _ in found)
    return [
        (
            "modelyard_schedules", "gauge", "Schedules, by state.",
            [({"state": state}, count) for state, count in sorted(states.items())],
        ),
        (
            "modelyard_schedule_next_slot_timestamp_seconds", "gauge",
            "Time of the next slot of an enabled schedule.",
            [({"schedule": name}, slot) for name, _, slot in found if slot is not None],
        ),
    ]  # fmt: skip


def _leader() -> list[tuple[str, str, str, list[Sample]]]:
    lease = leases.held(LEASE)
    held: list[Sample] = [({"holder": str(lease["holder"])}, 1.0)] if lease else []
    return [
        ("modelyard_scheduler_leads", "gauge", "The scheduler that leads, if any.", held),
        (
            "modelyard_scheduler_lease_seconds", "gauge",
            "Remaining time of the leader's lease.",
            [({}, lease["seconds"] if lease else 0)],
        ),
    ]  # fmt: skip


def _family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
