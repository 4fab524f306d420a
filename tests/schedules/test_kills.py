"""Every slot has one fate and at most one run, whatever ends the scheduler when."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from registry import catalogue
from registry.leases import Lease
from registry.schedules import schedules, slots
from registry.schedules.slots import Fate, Kind, Slot
from schedules.instants import instant_at, second_of
from schedules.policy import Overlap
from schedules.schedule import Schedule
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import Killed, SteppedScheduler, World

pytestmark = pytest.mark.integration

_SEEDS = int(os.environ.get("MODELYARD_SEEDS", "1"))
_DAY = 86_400.0
_DAYS = 3
_POLICIES: list[dict[str, Any]] = [
    {"interval_seconds": 600},
    {"interval_seconds": 900, "catchup": "latest", "max_concurrency": 3},
    {"interval_seconds": 700, "catchup": "none", "overlap": "skip"},
    {"cron": "0 */15 * * * *", "max_catchup_runs": 4, "max_concurrency": 2},
    {"cron": "0 5,20,50 * * * *", "catchup_window": 3600, "jitter": 120},
    {"cron": "0 0 */2 * * *", "timezone": "America/New_York", "overlap": "cancel_running"},
    {"cron": "0 30 6 * * *", "timezone": "Europe/Berlin"},
    {"interval_seconds": 1800, "catchup": "latest", "grace": 0},
]


@pytest.fixture
def fragile(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose schedulers are killed before, in and after their transactions."""
    check, change, add = Lease.check, slots.change, slots.add

    def killing(really: Any) -> Any:
        def do(*given: Any) -> Any:
            world.perhaps_killed()
            found = really(*given)
            world.perhaps_killed()  # what was written is rolled back
            return found

        return do

    monkeypatch.setattr(Lease, "check", killing(check))
    monkeypatch.setattr(slots, "change", killing(change))
    monkeypatch.setattr(slots, "add", killing(add))
    world.kills, world.losses = 0.02, 0.02
    return world


def _pass(world: World, scheduler: SteppedScheduler | None, ends: float) -> None:
    """Time passes, with outages, schedules that are stopped, and schedulers that are killed."""
    chance = world.chance
    while world.now < ends:
        if scheduler is None:
            scheduler = world.scheduler()
            if chance.random() < 0.1:
                world.now += chance.uniform(0, _DAY / 4)  # until somebody starts it again
                world.counts["outages"] += 1
        world.now += chance.choice([1.0, 5.0, 60.0, 300.0])
        try:
            with contextlib.suppress(ConnectionError):
                scheduler.step()
        except Killed:
            scheduler = None


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 1 + _SEEDS))
def test_whatever_ends_it_every_slot_has_one_fate(fragile: World, seed: int) -> None:
    world = fragile
    world.chance = random.Random(seed)
    keys = [world.schedule(f"s{n}", **policy) for n, policy in enumerate(_POLICIES)]
    world.takes = {key: world.chance.choice([30.0, 400.0, 2000.0]) for key in keys}
    _pass(world, None, BEGINNING + _DAYS * _DAY)
    world.kills = world.losses = 0.0
    last = world.scheduler()
    for _ in range(3):
        last.step()

    assert world.counts["kills"] > 100, world.counts
    assert world.counts["outages"] > 5, world.counts
    for key in keys:
        _judge(world, key)
    recorded = Counter(run for key in keys for run in _runs(key))
    assert recorded.keys() == world.runs.keys()
    assert set(recorded.values()) == {1}
    assert len({run.key for run in world.runs.values()}) == len(world.runs)


def _rows(key: str) -> list[Slot]:
    with catalogue.engine().connect() as connection:
        return slots.of(connection, key)


def _runs(key: str) -> list[str]:
    return [str(one.flow_run_id) for one in _rows(key) if one.flow_run_id]


def _judge(world: World, key: str) -> None:
    with catalogue.engine().connect() as connection:
        schedule = Schedule.from_row(schedules.with_ids(connection, [key])[0])
    rows = _rows(key)
    slots_of = schedule.trigger.between(schedule.trigger.base, instant_at(int(world.now)))
    decided = [second_of(at) for row in rows for at in _each(schedule, row)]
    assert decided == [second_of(at) for at in slots_of], schedule.name  # each once, in order
    for row in rows:
        assert row.kind == Kind.SCHEDULED
        assert (row.fate == Fate.CREATED) == (row.flow_run_id is not None)
        _judge_one(world, schedule, row)
    if schedule.policy.overlap is not Overlap.CANCEL_RUNNING:
        assert world.most[key] <= schedule.policy.max_concurrency, schedule.name


def _each(schedule: Schedule, row: Slot) -> list[datetime]:
    found = list(schedule.trigger.between(instant_at(row.slot - 1), instant_at(row.last)))
    assert len(found) == row.count
    return found


def _judge_one(world: World, schedule: Schedule, row: Slot) -> None:
    """The fate is what the policy says of a slot that old, when it was decided."""
    policy = schedule.policy
    age = int(row.decided_at) - row.slot
    missed = age > policy.grace + policy.jitter
    if row.fate != Fate.SKIPPED:
        run = world.runs.get(str(row.flow_run_id))
        assert run is None or run.begins >= row.not_before
        assert not (missed and policy.catchup == "none")
        if policy.catchup_window is not None and missed:
            assert age <= policy.catchup_window
        return
    expected = {
        "CatchupOff": missed and policy.catchup == "none",
        "NotLatest": policy.catchup != "all",
        "TooMany": missed and policy.max_catchup_runs is not None,
        "OutsideWindow": policy.catchup_window is not None and age > policy.catchup_window,
        "Overlap": policy.overlap != "queue",
    }
    assert expected[row.reason], row


def test_what_it_says_of_each_age(world: World) -> None:
    """The rule itself, in a case that is counted by hand."""
    key = world.schedule("hand", interval_seconds=100, catchup_window=500, max_concurrency=9)
    world.scheduler().step()
    world.now += 1050
    world.scheduler().step()

    assert [(row.slot - BEGINNING, str(row.fate)) for row in _rows(key)] == [
        *((n * 100, "skipped") for n in range(1, 6)),
        *((n * 100, "created") for n in range(6, 11)),
    ]
    assert datetime.fromtimestamp(BEGINNING, UTC).year == 2027
