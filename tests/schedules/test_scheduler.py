"""The scheduler against a clock and runs that a test moves."""

from __future__ import annotations

import math
from typing import Any

import pytest

from registry import catalogue, leases
from registry.schedules import schedules, slots
from registry.schedules.slots import Slot
from schedules import deciding, verbs, views
from schedules.scheduler import LEASE
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import SteppedScheduler, World


def rows(schedule: str) -> list[Slot]:
    with catalogue.engine().connect() as connection:
        return slots.of(connection, schedule)


def fates(schedule: str) -> list[tuple[float, str, str]]:
    """Each row: seconds since the beginning, fate, reason."""
    return [(one.slot - BEGINNING, str(one.fate), str(one.reason)) for one in rows(schedule)]


def row(schedule: str) -> Any:
    with catalogue.engine().connect() as connection:
        return schedules.with_ids(connection, [schedule])[0]


def steps(scheduler: SteppedScheduler, world: World, until: float, every: float = 60.0) -> None:
    """Let time pass, and have the scheduler look at every so many seconds."""
    while world.now < BEGINNING + until:
        world.now += every
        scheduler.step()


class TestSlots:
    def test_each_slot_gets_one_run(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        steps(world.scheduler(), world, 3 * 3600)

        assert fates(key) == [(n * 3600, "created", "") for n in (1, 2, 3)]
        assert [run.begins - BEGINNING for run in world.runs.values()] == [3600, 7200, 10800]
        assert {one.flow_run_id for one in rows(key)} == set(world.runs)

    def test_nothing_is_done_before_a_slot(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        scheduler = world.scheduler()

        assert scheduler.step() == 3600
        assert fates(key) == []
        assert row(key).registered

    def test_a_deployment_that_is_gone_is_told(self, world: World) -> None:
        world.refused.add("train")
        key = world.schedule("hourly", interval_seconds=3600)
        steps(world.scheduler(), world, 7200)

        assert row(key).error == "It is gone."
        assert fates(key) == []

    def test_a_run_that_was_made_is_found_though_its_deployment_is_gone(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        scheduler, create = world.scheduler(), world.create

        def lost(*given: Any) -> str:
            create(*given)
            raise ConnectionError("nobody hears the answer")

        scheduler.step()
        world.now += 3600
        monkeypatch.setattr(world, "create", lost)
        scheduler.step()
        monkeypatch.setattr(world, "create", create)
        world.refused.add("train")
        scheduler.step()

        assert fates(key) == [(3600, "created", "")]
        assert [one.flow_run_id for one in rows(key)] == list(world.runs)

    def test_slots_wait_for_a_deployment_that_goes_later(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        scheduler = world.scheduler()
        scheduler.step()
        world.refused.add("train")
        steps(scheduler, world, 2 * 3600)
        assert fates(key) == [(3600, "waiting", "DeploymentGone")]
        assert "modelyard deploy" in row(key).error

        world.refused.clear()
        scheduler._swept = -math.inf
        steps(scheduler, world, 3 * 3600)
        assert fates(key) == [(n * 3600, "created", "") for n in (1, 2, 3)]
        assert row(key).error == ""

    def test_a_run_that_is_refused_is_told_at_each_slot(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        world.malformed.add(key)
        steps(world.scheduler(), world, 3600)

        assert fates(key) == [(3600, "skipped", "Refused: It is wrong. Mend it.")]

    def test_slots_are_decided_while_prefect_is_silent(self, world: World) -> None:
        keys = [world.schedule(f"hourly {n}", interval_seconds=3600) for n in range(20)]
        scheduler = world.scheduler()
        scheduler.step()
        world.losses = 1
        steps(scheduler, world, 3 * 3600, every=3600)

        assert world.runs == {}
        assert world.counts["losses"] < 20  # not once for each run that is wanted
        for key in keys:
            assert {fate for _, fate, _ in fates(key)} == {"waiting"}
            assert len(fates(key)) == 3
        world.losses = 0
        steps(scheduler, world, 4 * 3600 + 600)
        assert len(world.runs) == 20 * 4

    def test_slots_of_new_schedules_are_decided_while_prefect_is_silent(
        self, world: World
    ) -> None:
        old = world.schedule("old", interval_seconds=3600, deployment="tune")
        scheduler = world.scheduler()
        scheduler.step()
        world.silent = True
        new = world.schedule("new", interval_seconds=3600)
        steps(scheduler, world, 3600)

        assert row(new).registered
        assert [fate for key in (old, new) for _, fate, _ in fates(key)] == ["created"] * 2

    def test_one_whose_deployment_is_gone_stays_so_while_prefect_is_silent(
        self, world: World
    ) -> None:
        world.refused.add("train")
        key = world.schedule("hourly", interval_seconds=3600)
        scheduler = world.scheduler()
        scheduler.step()
        world.silent = True
        scheduler._swept = -math.inf
        scheduler.step()
        assert row(key).error == "It is gone."

        world.silent = False
        world.refused.clear()
        scheduler._swept = -math.inf
        scheduler.step()
        assert row(key).error == ""

    def test_jitter_delays_a_run_and_decides_at_the_slot(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600, jitter=600)
        steps(world.scheduler(), world, 3 * 3600 + 600)

        begins = [run.begins - run.key[2] for run in world.runs.values()]
        assert all(0 <= late <= 660 for late in begins)
        assert max(begins) > 60
        assert [fate for _, fate, _ in fates(key)] == ["created"] * 3

    def test_an_end_is_the_last_slot(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600, end="2027-01-15T10:00:00Z")
        steps(world.scheduler(), world, 5 * 3600)

        assert [at for at, _, _ in fates(key)] == [3600, 7200]
        assert row(key).next_slot is None


def test_what_became_of_a_run_is_learnt_though_nobody_waits_for_it(world: World) -> None:
    key = world.schedule("hourly", interval_seconds=3600)
    steps(world.scheduler(), world, 3600)
    assert rows(key)[0].run_state is None

    world.now += 120
    world.scheduler().step()
    assert rows(key)[0].run_state == "COMPLETE"


class TestAnnounced:
    def test_the_slots_to_come_the_soonest_first(self, world: World) -> None:
        world.schedule("daily", interval_seconds=86_400)
        world.schedule("hourly", interval_seconds=3600, end="2027-01-15T11:00:00Z")
        world.scheduler().step()

        soon, later = world.announced
        assert soon == {
            "slot": "2027-01-15T09:00:00Z", "schedule": "hourly", "runs": "train",
            "then": "2027-01-15 10:00:00, 2027-01-15 11:00:00",
        }  # fmt: skip
        assert (later["schedule"], later["slot"]) == ("daily", "2027-01-16T08:00:00Z")

    def test_those_of_a_new_schedule_at_once(self, world: World) -> None:
        scheduler = world.scheduler()
        scheduler.step()
        world.schedule("hourly", interval_seconds=3600)
        scheduler.step()

        assert [row["schedule"] for row in world.announced] == ["hourly"]

    def test_nobody_being_there_to_show_them_stops_nothing(self, world: World) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        scheduler = world.scheduler()
        world.losses = 1
        scheduler.step()
        world.losses = 0
        assert world.announced == []

        scheduler._swept = -math.inf
        steps(scheduler, world, 3600)
        assert fates(key) == [(3600, "created", "")]
        assert [row["schedule"] for row in world.announced] == ["hourly"]


class TestMissed:
    """The platform is down for twelve hourly slots."""

    def _after_outage(self, world: World, **policy: Any) -> list[tuple[float, str, str]]:
        key = world.schedule("hourly", interval_seconds=3600, max_concurrency=99, **policy)
        world.scheduler().step()
        world.now += 12 * 3600 + 120
        world.scheduler().step()
        before = fates(key)
        world.scheduler().step()
        assert fates(key) == before  # a second restart creates nothing
        return before

    def test_all(self, world: World) -> None:
        found = self._after_outage(world, catchup="all")
        assert [fate for _, fate, _ in found] == ["created"] * 12
        assert len(world.runs) == 12

    def test_latest(self, world: World) -> None:
        found = self._after_outage(world, catchup="latest")
        assert found == [
            *((n * 3600, "skipped", "NotLatest") for n in range(1, 12)), (43200, "created", ""),
        ]  # fmt: skip

    def test_none(self, world: World) -> None:
        found = self._after_outage(world, catchup="none")
        assert {(fate, why) for _, fate, why in found} == {("skipped", "CatchupOff")}
        assert len(found) == 12
        assert world.runs == {}

    def test_all_with_a_cap(self, world: World) -> None:
        found = self._after_outage(world, catchup="all", max_catchup_runs=5)
        assert [why for _, _, why in found] == ["TooMany"] * 7 + [""] * 5
        assert len(world.runs) == 5

    def test_within_a_window(self, world: World) -> None:
        found = self._after_outage(world, catchup_window=4 * 3600)
        assert [why for _, _, why in found] == ["OutsideWindow"] * 8 + [""] * 4

    def test_very_many_skipped_ones_share_a_row(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=1, catchup="none")
        world.scheduler().step()
        world.now += 10**7
        world.scheduler().step()

        found = rows(key)
        assert len(found) < 1100
        assert sum(one.count for one in found) == 10**7
        assert found[0].count > 9 * 10**6

    def test_very_many_runs_are_decided_bit_by_bit(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(deciding, "MOST_RUNS", 100)
        key = world.schedule("often", interval_seconds=1, overlap="skip")
        world.scheduler().step()
        world.now += 250
        scheduler = world.scheduler()
        for count in (100, 200, 250):
            assert scheduler.step() == 0 or count == 250
            assert len(rows(key)) == count
        assert row(key).decided_until == world.now


class TestLimits:
    def test_a_slot_waits_and_says_for_what(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60)
        world.takes[key] = 150
        scheduler = world.scheduler()
        steps(scheduler, world, 120, every=30)
        assert fates(key) == [(60, "created", ""), (120, "waiting", "MaxConcurrency")]

        steps(scheduler, world, 600, every=30)
        assert world.most[key] == 1
        assert [fate for _, fate, _ in fates(key)][:3] == ["created"] * 3

    def test_skip(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60, overlap="skip")
        world.takes[key] = 150
        steps(world.scheduler(), world, 360, every=30)

        assert [(fate, why) for _, fate, why in fates(key)] == [
            ("created", ""), ("skipped", "Overlap"), ("skipped", "Overlap"),
        ] * 2  # fmt: skip

    def test_cancel_running(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60, overlap="cancel_running")
        world.takes[key] = 10_000
        steps(world.scheduler(), world, 240, every=30)

        assert world.most[key] == 1
        assert [run.word for run in world.runs.values()] == ["STOPPED"] * 3
        assert fates(key)[-1][2] == "CancelsRunning"

    def test_no_run_is_made_only_to_be_stopped(self, world: World) -> None:
        policy = {"overlap": "cancel_running", "max_concurrency": 2}
        key = world.schedule("often", interval_seconds=60, **policy)
        world.scheduler().step()
        world.now += 10 * 60
        world.scheduler().step()

        assert [(fate, why) for _, fate, why in fates(key)] == [
            *[("skipped", "Overlap")] * 8, *[("created", "")] * 2,
        ]  # fmt: skip
        assert {run.word for run in world.runs.values()} == {"COMPLETE"}

    def test_what_is_asked_for_runs_however_much_waits_for_a_start(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("schedules.scheduler._QUEUED_AT_ONCE", 3)
        key = world.schedule("often", interval_seconds=60)
        world.takes[key] = 10_000
        steps(world.scheduler(), world, 20 * 60)
        verbs.stop(key)
        world.runs.clear()
        asked = verbs.trigger_now(key)
        steps(world.scheduler(), world, 22 * 60)

        (run,) = world.runs.values()
        assert run.key[1] == "manual"
        assert views.slots_of(key, fate="created")[0]["slot"] == asked["slot"]
        assert {why for _, fate, why in fates(key) if fate == "waiting"} == {"Disabled"}

    def test_only_the_latest_waits_where_only_it_would_be_caught_up(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60, catchup="latest")
        world.takes[key] = 200
        steps(world.scheduler(), world, 240)

        assert fates(key) == [
            (60, "created", ""), (120, "skipped", "NotLatest"), (180, "skipped", "NotLatest"),
            (240, "waiting", "MaxConcurrency"),
        ]  # fmt: skip

    def test_each_schedule_has_its_own(self, world: World) -> None:
        one = world.schedule("one", interval_seconds=60, max_concurrency=1)
        three = world.schedule("three", interval_seconds=60, max_concurrency=3)
        world.takes |= {one: 10_000, three: 10_000}
        steps(world.scheduler(), world, 1200)

        assert (world.most[one], world.most[three]) == (1, 3)

    def test_a_run_that_was_deleted_leaves_its_place(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60)
        world.takes[key] = 10_000
        scheduler = world.scheduler()
        steps(scheduler, world, 120)
        world.runs.clear()
        steps(scheduler, world, 150, every=30)

        assert [fate for _, fate, _ in fates(key)] == ["created"] * 2
        assert rows(key)[0].run_state == "DELETED"

    def test_a_run_that_goes_on_again_takes_its_place_again(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=60)
        world.takes[key], scheduler = 90, world.scheduler()
        steps(scheduler, world, 180, every=30)
        first = rows(key)[0]
        assert first.run_state == "COMPLETE"

        world.runs[str(first.flow_run_id)].ends = world.now + 1000
        slots.mark_resumed(str(first.flow_run_id))
        steps(scheduler, world, 600, every=30)
        assert [fate for _, fate, _ in fates(key)][:3] == ["created", "created", "waiting"]

    def test_failures_in_a_row_pause_it(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=120, pause_after_failures=3)
        world.fails.add(key)
        steps(world.scheduler(), world, 1200)

        assert len(world.runs) == 3
        assert not row(key).enabled
        assert row(key).paused == "3 runs in a row failed."
        assert views.show(key)["history"][-1]["detail"] == {"why": row(key).paused}
        [paused] = world.pauses
        assert (paused.id, paused.name, paused.reason) == (key, "often", row(key).paused)
        assert row(key).pause_event is None

    def test_a_pause_is_announced_after_a_kill_and_while_prefect_is_silent(
        self, world: World
    ) -> None:
        key = world.schedule("often", interval_seconds=120, pause_after_failures=1)
        world.fails.add(key)
        scheduler = world.scheduler()
        steps(scheduler, world, 120)
        world.announces_pauses = False
        steps(scheduler, world, 600)
        assert not row(key).enabled
        assert world.pauses == []

        world.announces_pauses = True
        world.scheduler().step()  # another leader
        assert [one.event for one in world.pauses] == [world.tried_pauses[0]]
        scheduler.step()
        assert len(world.pauses) == 1

    def test_a_pause_that_a_user_has_ended_is_not_announced(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=120, pause_after_failures=1)
        world.fails.add(key)
        world.announces_pauses = False
        steps(world.scheduler(), world, 600)
        verbs.start(key)
        assert row(key).pause_event is None

    def test_failures_of_runs_that_are_caught_up_count_as_well(self, world: World) -> None:
        key = world.schedule("often", interval_seconds=120, pause_after_failures=3)
        world.fails.add(key)
        scheduler = world.scheduler()
        verbs.stop(key)
        steps(scheduler, world, 1200)
        verbs.start(key)
        steps(scheduler, world, 2400)

        assert len(world.runs) == 3
        assert not row(key).enabled


class TestLease:
    def test_one_leads(self, world: World) -> None:
        first, second = world.scheduler(60), world.scheduler(60)
        first.step()
        second.step()

        assert (first.leads, second.leads) == (True, False)
        held = leases.held(LEASE)
        assert held is not None
        assert held["holder"] == first._holder

    def test_another_leads_when_it_is_let_go(self, world: World) -> None:
        first, second = world.scheduler(60), world.scheduler(60)
        first.step()
        first.close()
        second.step()

        assert second.leads

    def test_one_that_was_overtaken_writes_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = world.schedule("hourly", interval_seconds=3600)
        old = world.scheduler()
        old.step()
        world.now += 3600
        new = world.scheduler(60)
        assert new.step() >= 0
        count = len(world.runs)
        monkeypatch.setattr(old.election, "campaign", lambda: None)  # it hung, and leads no more
        world.now += 3600
        old.step()

        assert not old.leads
        assert len(world.runs) == count
        assert len(fates(key)) == 1
