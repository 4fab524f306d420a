"""What Prometheus is told."""

from __future__ import annotations

import pytest

from registry import catalogue
from registry.schedules import slots
from registry.schedules.slots import Fate, Kind, Slot
from schedules import metrics, verbs
from tests.schedules.asking import HOUR, create, pass_hours
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import World


def figures() -> dict[str, float]:
    samples = metrics.samples()
    assert {*map(frozenset, samples)} == {frozenset({"name", "labels", "value"})}
    lines = [line for line in metrics.text().splitlines() if not line.startswith("#")]
    read = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
    assert [one["value"] for one in samples] == pytest.approx(list(read.values()))
    return read


def created(schedule: str, slot: int, late: float, **given: float | str) -> Slot:
    at = BEGINNING + slot
    told = {"kind": Kind.SCHEDULED, "not_before": 0.0, "decided_at": at, **given}
    before = float(told["not_before"])
    return Slot(
        schedule, int(at), str(told["kind"]), int(at), 1, Fate.CREATED,
        decided_at=float(told["decided_at"]), not_before=before,
        flow_run_id=f"run {slot}", run_at=max(at, before) + late,
    )  # fmt: skip


def write(*found: Slot) -> None:
    with catalogue.engine().begin() as connection:
        slots.add(connection, found)


def test_nothing_yet(world: World) -> None:
    assert figures() == {
        "modelyard_schedule_runs_last_hour": 0, "modelyard_scheduler_lease_seconds": 0,
    }  # fmt: skip
    assert "# TYPE modelyard_schedule_slots_total counter\n" in metrics.text()


def test_how_late_runs_of_the_last_hour_were(world: World) -> None:
    key = create()["id"]
    write(*(created(key, -n, n / 100) for n in range(1, 101)))
    write(
        created(key, -2 * HOUR, 99),
        created(key, -200, 5, kind=Kind.BACKFILL),
        created(key, -300, 0.001, not_before=BEGINNING - 100),
    )
    found = figures()

    assert found['modelyard_schedule_lateness_seconds{quantile="0.5"}'] == pytest.approx(0.5)
    assert found['modelyard_schedule_lateness_seconds{quantile="0.99"}'] == pytest.approx(0.99)
    assert found['modelyard_schedule_lateness_seconds{quantile="1"}'] == pytest.approx(1)
    assert found["modelyard_schedule_runs_last_hour"] == 101


def test_what_is_caught_up_is_not_late(world: World) -> None:
    key = create(policy={"grace": 60, "jitter": 30, "max_concurrency": 99})["id"]
    write(*(created(key, -n, n, decided_at=BEGINNING - n + 90.9) for n in (200, 300)))
    write(created(key, -500, 400, decided_at=BEGINNING - 500 + 91))
    found = figures()

    assert found['modelyard_schedule_lateness_seconds{quantile="1"}'] == 300
    assert found["modelyard_schedule_runs_last_hour"] == 3


def test_nothing_but_what_is_caught_up(world: World) -> None:
    write(created(create()["id"], -500, 400, decided_at=BEGINNING - 100))
    found = figures()

    assert not any("lateness" in name for name in found)
    assert found["modelyard_schedule_runs_last_hour"] == 1


def test_fates_and_what_waits(world: World) -> None:
    create("a", policy={"overlap": "skip"})
    key = create("b")["id"]
    wrong = create("c")["id"]
    world.takes |= {key: 99 * HOUR}
    world.malformed.add(wrong)
    pass_hours(world, 3.5)
    found = figures()

    counter = 'modelyard_schedule_slots_total{schedule="%s",fate="%s",reason="%s"}'
    assert found[counter % ("a", "created", "")] == 3
    assert found[counter % ("b", "created", "")] == 1
    assert found[counter % ("c", "skipped", "Refused")] == 3  # not why each was
    assert found['modelyard_schedule_backlog{reason="MaxConcurrency"}'] == 2
    assert not any("waiting" in name for name in found)


def test_a_counter_goes_on_when_a_name_is_used_again(world: World) -> None:
    create()
    pass_hours(world, 1.5)
    verbs.delete("s")
    create()
    pass_hours(world, 1.5)

    name = 'modelyard_schedule_slots_total{schedule="s",fate="created",reason=""}'
    assert figures()[name] == 2


def test_states_and_next_slots(world: World) -> None:
    create("a")
    create("b", trigger={"interval_seconds": HOUR, "end": "2027-01-15T09:00:00Z"})
    create("c", enabled=False)
    pass_hours(world, 1.5)
    found = figures()

    assert found['modelyard_schedules{state="ENABLED"}'] == 1
    assert found['modelyard_schedules{state="ENABLED (EXPIRED)"}'] == 1
    assert found['modelyard_schedules{state="DISABLED"}'] == 1
    following = "modelyard_schedule_next_slot_timestamp_seconds"
    assert {name for name in found if name.startswith(following)} == {
        f'{following}{{schedule="a"}}'
    }
    assert found[f'{following}{{schedule="a"}}'] == BEGINNING + 2 * HOUR


def test_who_leads(world: World) -> None:
    scheduler = world.scheduler(lease_seconds=60)
    scheduler.step()
    found = figures()

    [leader] = [name for name in found if name.startswith("modelyard_scheduler_leads{")]
    assert leader == f'modelyard_scheduler_leads{{holder="{scheduler._holder}"}}'
    assert 0 < found["modelyard_scheduler_lease_seconds"] <= 60


def test_labels_are_escaped() -> None:
    assert metrics._labels({"a": 'x"\\\n'}) == '{a="x\\"\\\\\\n"}'
