"""Schedules that are deleted."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import sqlalchemy

from infra.errors import ConflictError
from registry import catalogue, deletion, history
from registry.blockers import Blocker, sentences
from registry.deletion import Guard
from registry.schedules import schedule_removal, slots
from schedules import verbs
from tests.processes import eventually
from tests.schedules.asking import HOUR, create, fates, pass_hours, rows, state
from tests.schedules.conftest import BEGINNING
from tests.schedules.world import World


class TestDelete:
    def test_what_waits_is_skipped_and_what_was_stays(self, world: World) -> None:
        key = create(policy={"jitter": 600})["id"]
        pass_hours(world, 1.5)
        world.now = BEGINNING + 2 * HOUR
        world.scheduler().step()
        world.runs.clear()

        assert verbs.delete("s") == {"id": key, "name": "s", "deleted": True}
        assert fates(key) == [(1, "created", ""), (2, "skipped", "Deleted")]
        assert [deed["verb"] for deed in history.of("schedule", key)] == ["create", "delete"]
        pass_hours(world, 2)
        assert len(rows(key)) == 2
        assert create()["id"] != key  # the name is free

    def test_it_stays_while_a_run_goes_on(self, world: World) -> None:
        key = create()["id"]
        world.takes[key] = 10 * HOUR
        pass_hours(world, 2.5)
        with pytest.raises(ConflictError) as raised:
            verbs.delete("s")

        run = next(iter(world.runs))
        assert raised.value.code == "RunGoesOn"
        assert raised.value.message == f"1 of its runs are active, such as {run}."
        assert state(key) == ("ENABLED", "")
        assert fates(key)[-1] == (2, "waiting", "MaxConcurrency")

    def test_a_run_that_begins_meanwhile_keeps_it(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = create(policy={"max_concurrency": 9})["id"]
        pass_hours(world, 1.5)
        world.now = BEGINNING + 1.9 * HOUR
        rule = deletion._RULES["schedule"]
        assert rule.claim is not None

        def claim(schedule: str) -> None:
            world.now = BEGINNING + 2 * HOUR
            world.scheduler().step()
            schedule_removal.claim(schedule)

        late = dataclasses.replace(rule, claim=claim)
        monkeypatch.setitem(deletion._RULES, "schedule", late)
        with pytest.raises(ConflictError) as raised:
            verbs.delete("s")

        assert raised.value.code == "RunGoesOn"
        assert state(key) == ("ENABLED", "")

    def test_one_whose_run_is_being_made(self, world: World) -> None:
        create()
        world.scheduler().step()
        world.now += HOUR
        world.losses = 1.0
        world.scheduler().step()  # Prefect does not answer, so the run may be there
        world.losses = 0.0
        with pytest.raises(ConflictError, match="1 of its runs are being created") as raised:
            verbs.delete("s")

        assert raised.value.code == "RunGoesOn"

    def test_slots_wait_again_if_it_stays(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = create()["id"]
        asked = iter([[], [Blocker("Just now.")]])
        verbs.trigger_now("s")
        rule = deletion._RULES["schedule"]
        guard = Guard("RunGoesOn", lambda _: next(asked), "Wait.")
        guarded = dataclasses.replace(rule, guards=(guard,))
        monkeypatch.setitem(deletion._RULES, "schedule", guarded)
        with pytest.raises(ConflictError):
            verbs.delete("s")

        assert fates(key) == [(0, "waiting", "Queued")]
        pass_hours(world, 0.5)
        assert fates(key) == [(0, "created", "")]

    def test_who_begins_a_run_and_who_deletes_take_turns(self, world: World) -> None:
        key = create()["id"]
        verbs.trigger_now("s")
        deleting = threading.Thread(target=schedule_removal.claim, args=(key,))
        with catalogue.engine().begin() as connection:
            [slot] = slots.queue(connection, key, float("inf"), 10)
            deleting.start()
            eventually(_somebody_waits, "who deletes waits")
            slots.change(connection, [dataclasses.replace(slot, begun=True)])
        deleting.join(30)

        assert fates(key) == [(0, "waiting", "Queued")]
        found = sentences(schedule_removal.active_blockers(key))
        assert found == ["1 of its runs are being created."]
        world.scheduler().step()
        assert fates(key) == [(0, "created", "")]


def _somebody_waits() -> bool:
    with catalogue.engine().connect() as connection:
        waiting = sqlalchemy.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(connection.scalar(waiting))
