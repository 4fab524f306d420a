"""What people do with schedules, against the scheduler of a world."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, ModelyardError
from schedules import verbs, views
from schedules.editing import ScheduleSpec
from tests.schedules.asking import HOUR, at, checked, create, fates, pass_hours, rows, state
from tests.schedules.world import World


class TestCreate:
    def test_what_is_shown(self, world: World) -> None:
        made = create(
            description="d", parameters={"a": "{{ slot }}"}, policy={"max_concurrency": 3}
        )

        assert made["trigger"] == {"interval_seconds": HOUR, "timezone": "UTC"}
        assert (made["state"], made["detail"]) == ("CREATE REQUESTED", "")
        assert made["policy"]["max_concurrency"] == 3
        assert made["parameters"] == {"a": "{{ slot }}"}
        assert made["next"][:2] == [at(1), at(2)]
        assert [deed["verb"] for deed in made["history"]] == ["create"]

    @pytest.mark.parametrize(
        ("trigger", "code"),
        [
            ({"cron": "0 0 0 30 2 *"}, "CronNeverFires"),
            ({"cron": "0 0 0 1 1 * 2027"}, "CronFieldCount"),
            ({"cron": "60 * * * * *"}, "CronValueOutOfRange"),
            ({"interval_seconds": 60, "start": at(2), "end": at(1)}, "EndBeforeStart"),
            ({"interval_seconds": 60, "end": at(-1)}, "TriggerNeverFires"),
            ({"cron": "@daily", "timezone": "Europe/Atlantis"}, "TimezoneUnknown"),
            ({}, "TriggerMissing"),
            ({"cron": "@daily", "interval_seconds": 60}, "TriggerTwice"),
            ({"interval_seconds": 0}, "IntervalInvalid"),
            ({"interval_seconds": 60, "start": "soon"}, "TimeInvalid"),
            ({"interval_seconds": 60, "since": at(0)}, "FieldUnknown"),
            ({"interval_seconds": 60, "ends": at(1)}, "FieldUnknown"),
        ],
    )
    def test_triggers_that_are_refused(
        self, world: World, trigger: dict[str, Any], code: str
    ) -> None:
        _refused(code, trigger=trigger)

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"policy": {"max_concurrency": 0}}, "PolicyNumberInvalid"),
            ({"policy": {"overlap": "perhaps"}}, "PolicyWordInvalid"),
            ({"policy": {"overlaps": "skip"}}, "FieldUnknown"),
            ({"deployment": "gone"}, "DeploymentUnknown"),
            ({"deployment": "with required"}, "ParameterInvalid"),
            ({"name": ""}, "NameInvalid"),
            ({"name": "a/b"}, "NameInvalid"),
            ({"description": "\0"}, "TextInvalid"),
            ({"parameters": {"a": "{{ slots }}"}}, "MacroUnknown"),
            ({"parameters": {"name": "always"}}, "RunNameFixed"),
            ({"parameters": {"day": datetime(2027, 1, 1)}}, "ParameterInvalid"),
            ({"parameters": {"rate": float("nan")}}, "ParameterInvalid"),
        ],
    )
    def test_what_else_is_refused(self, world: World, given: dict[str, Any], code: str) -> None:
        _refused(code, **given)

    @pytest.mark.parametrize(
        ("trigger", "name", "more", "fixed"),
        [
            ("@hourly", '{{ "fixed" }}', {}, True),
            ("@hourly", "n {{ slot.strftime('%F') }}", {}, True),
            ("@hourly", "n {{ slot.strftime('%H') }}", {}, True),
            ("@hourly", "n {{ slot.strftime('%Y%m%dT%H%M%S') }}", {}, False),
            ("@hourly", "n {{ slot }}", {}, False),
            ("@daily", "n {{ slot.strftime('%F') }}", {}, False),
            ("@daily", "n {{ slot.local.strftime('%F') }}", {}, False),
            ("@daily", "n {{ slot.strftime('%d') }}", {}, True),
            ("@hourly", "{{ slot.strftime('%H') }}", {"experiment": "{{ slot.local }}"}, False),
            ("@hourly", "{{ slot.strftime('%H') }}", {"experiment": "e"}, True),
            ("@hourly", "", {}, False),
        ],
    )
    def test_runs_of_an_experiment_have_names_of_their_own(
        self, world: World, trigger: str, name: str, more: dict[str, Any], *, fixed: bool
    ) -> None:
        told = {"cron": trigger, "timezone": "Asia/Seoul"}
        given: dict[str, Any] = {"trigger": told, "parameters": {"name": name, **more}}
        if not fixed:
            assert create(**given)["parameters"]["name"] == name
            return
        _refused("RunNameFixed", **given)

    @pytest.mark.parametrize(
        ("name", "fixed"), [("n", True), ("n {{ slot.strftime('%F') }}", False)]
    )
    def test_a_single_slot_s_name_has_the_slot_too(
        self, world: World, name: str, *, fixed: bool
    ) -> None:
        once = {"interval_seconds": HOUR, "start": at(1), "end": at(2)}
        given: dict[str, Any] = {"trigger": once, "parameters": {"name": name}}
        if fixed:
            _refused("RunNameFixed", **given)
        else:
            create(**given)

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"parameters": {"name": "taken"}}, "RunNameFixed"),
            ({"trigger": {"cron": "* * *"}}, "CronFieldCount"),
            ({"trigger": {}}, "TriggerMissing"),
        ],
    )
    def test_what_no_other_run_name_mends_is_told_first(
        self, world: World, given: dict[str, Any], code: str
    ) -> None:
        def check(*_: Any) -> dict[str, Any]:
            raise ConflictError("There is a run 'taken' already.", "Choose another name.")

        written = {"trigger": {"interval_seconds": HOUR}, **given}
        spec = ScheduleSpec(name="s", deployment="train", **written)
        with pytest.raises(BadInputError) as raised:
            verbs.create(spec, check)

        assert raised.value.code == code

    def test_a_name_is_taken_once(self, world: World) -> None:
        create("s")
        with pytest.raises(ConflictError) as raised:
            create("s")

        assert raised.value.code == "NameTaken"


def _refused(code: str, **given: Any) -> None:
    with pytest.raises(ModelyardError) as raised:
        create(**given)
    assert raised.value.code == code
    assert raised.value.hint
    assert views.list_all() == []


class TestState:
    def test_it_is_requested_then_enabled_then_expired(self, world: World) -> None:
        key = create(trigger={"interval_seconds": HOUR, "end": at(2)})["id"]
        assert state(key) == ("CREATE REQUESTED", "")

        world.scheduler().step()
        assert state(key) == ("ENABLED", "")

        pass_hours(world, 2.5)
        assert state(key) == ("ENABLED", "EXPIRED")

    def test_it_is_disabled(self, world: World) -> None:
        key = create(enabled=False)["id"]
        world.scheduler().step()
        assert state(key) == ("DISABLED", "")

        verbs.start(key)
        assert state(key) == ("ENABLED", "")
        verbs.stop(key)
        assert state(key) == ("DISABLED", "")

    def test_no_slots_come_while_it_is_stopped(self, world: World) -> None:
        assert create()["next_slot"] == at(1)
        stopped = verbs.stop("s")
        world.now += 9 * HOUR
        assert (stopped["next"], stopped["next_slot"]) == ([], None)
        assert views.list_all()[0]["next_slot"] is None
        assert verbs.start("s")["next"][0] == at(1)

    def test_one_that_paused_itself_tells_why(self, world: World) -> None:
        key = create(policy={"pause_after_failures": 2})["id"]
        world.fails.add(key)
        pass_hours(world, 4)

        assert state(key) == ("DISABLED", "2 runs in a row failed.")
        verbs.start(key)
        assert state(key) == ("ENABLED", "")
        pass_hours(world, 4)  # the slot that waited is run, and counts: it failed after the start
        assert state(key) == ("DISABLED", "2 runs in a row failed.")
        assert len(world.runs) == 4

    def test_one_failure_may_be_enough_to_pause(self, world: World) -> None:
        key = create(policy={"pause_after_failures": 1})["id"]
        world.fails.add(key)
        pass_hours(world, 2)

        assert state(key) == ("DISABLED", "The last run failed.")

    def test_one_that_cannot_be_made_is_tried_again(self, world: World) -> None:
        key = create()["id"]
        world.refused.add("train")
        world.scheduler().step()
        assert state(key) == ("CREATE FAILED", "It is gone.")

        world.refused.clear()
        verbs.start(key)
        assert state(key) == ("CREATE REQUESTED", "")
        world.scheduler().step()
        assert state(key) == ("ENABLED", "")

    def test_another_deployment_mends_it(self, world: World) -> None:
        key = create()["id"]
        world.refused.add("train")
        world.scheduler().step()
        verbs.update(key, checked, deployment="tune")
        world.scheduler().step()

        assert state(key) == ("ENABLED", "")
        assert views.show(key)["deployment"] == "tune"

    def test_it_is_deleted(self, world: World) -> None:
        key = create()["id"]
        verbs.delete("s")

        assert state(key) == ("DELETED", "")
        assert views.list_all() == []
        [row] = views.list_all(deleted=True)
        assert (row["id"], row["name"], row["state"]) == (key, "s", "DELETED")
        assert row["deleted"]
        assert row["next_slot"] is None

    def test_no_hint_offers_what_nobody_writes(self, world: World) -> None:
        with pytest.raises(BadInputError) as raised:
            create(trigger={"interval_seconds": 60, "ends": at(1)})

        assert "end" in raised.value.hint
        assert "since" not in raised.value.hint


class TestStartAndStop:
    """As Kubeflow Pipelines resumes what was paused."""

    def _resumed(self, world: World, **policy: Any) -> list[tuple[float, str, str]]:
        key = create(policy={"max_concurrency": 99, **policy})["id"]
        world.scheduler().step()
        verbs.stop(key)
        pass_hours(world, 3.5)
        assert rows(key) == []
        verbs.start(key)
        world.scheduler().step()
        return fates(key)

    def test_with_catchup_what_was_missed_is_run(self, world: World) -> None:
        assert self._resumed(world, catchup=True) == [(n, "created", "") for n in (1, 2, 3)]

    def test_without_just_the_last(self, world: World) -> None:
        assert self._resumed(world, catchup=False) == [
            (1, "skipped", "NotLatest"), (2, "skipped", "NotLatest"), (3, "created", ""),
        ]  # fmt: skip

    def test_with_none_nothing(self, world: World) -> None:
        assert {why for _, _, why in self._resumed(world, catchup="none")} == {"CatchupOff"}

    def test_slots_that_waited_wait_until_it_is_started(self, world: World) -> None:
        key = create()["id"]
        world.takes[key] = 1.8 * HOUR
        pass_hours(world, 2.5)
        verbs.stop(key)
        pass_hours(world, 2)
        assert fates(key)[-1] == (2, "waiting", "Disabled")

        verbs.start(key)
        world.scheduler().step()
        assert (2, "created", "") in fates(key)

    @pytest.mark.parametrize("catchup", ["latest", "none"])
    def test_of_slots_that_were_on_time_only_the_latest_waits_where_only_it_would_run(
        self, world: World, catchup: str
    ) -> None:
        """Several are on time at once after a short pause of the scheduler."""
        key = create(policy={"catchup": catchup, "grace": 4 * 3600})["id"]
        scheduler = world.scheduler()
        scheduler.step()
        world.now += 3.5 * HOUR
        scheduler._decide()
        verbs.stop(key)
        scheduler.step()

        assert [(fate, why) for _, fate, why in fates(key)] == [
            ("skipped", "NotLatest"), ("skipped", "NotLatest"), ("waiting", "Disabled"),
        ]  # fmt: skip

    def test_starting_twice_is_no_change(self, world: World) -> None:
        key = create(policy={"pause_after_failures": 3})["id"]
        world.fails.add(key)
        pass_hours(world, 2.5)
        verbs.start(key)  # it is: failures go on counting
        pass_hours(world, 2)

        assert state(key)[0] == "DISABLED"
        assert len(world.runs) == 3


class TestAsked:
    def test_a_run_now(self, world: World) -> None:
        key = create()["id"]
        asked = [verbs.trigger_now("s") for _ in range(3)]
        pass_hours(world, 0.8)

        assert [slot["kind"] for slot in asked] == ["manual"] * 3
        assert len({slot["slot"] for slot in asked}) == 3
        assert [fate for _, fate, _ in fates(key)] == ["created"] * 3
        assert len(world.runs) == 3

    def test_a_past_range(self, world: World) -> None:
        key = create(policy={"max_concurrency": 99})["id"]
        pass_hours(world, 3.5)
        assert verbs.backfill("s", at(1), at(9)) == {"slots": 0, "run_before": 2}
        create("t", trigger={"interval_seconds": HOUR, "start": at(-1)})
        assert verbs.backfill("t", at(-1), at(2)) == {"slots": 3, "run_before": 0}
        assert verbs.backfill("t", at(-1), at(2)) == {"slots": 0, "run_before": 3}
        assert len(rows(key)) == 3

    def test_an_interval_keeps_its_phase_and_has_no_slots_before_its_start(
        self, world: World
    ) -> None:
        key = create(trigger={"interval_seconds": HOUR, "start": at(-2.25), "end": at(9)})["id"]
        with pytest.raises(BadInputError) as raised:
            verbs.backfill("s", at(-9), at(-3))
        assert raised.value.code == "BackfillEmpty"
        assert f"An interval has no slots before its base, {at(-2.25)}." in raised.value.message

        assert verbs.backfill("s", at(-9), at(-0.5)) == {"slots": 1, "run_before": 0}
        assert [hour for hour, _, _ in fates(key)] == [-1.25]

    @pytest.mark.parametrize("edited", [False, True])
    def test_a_slot_that_was_asked_for_before_it_was_decided_has_no_second_run(
        self, world: World, *, edited: bool
    ) -> None:
        key = create(policy={"max_concurrency": 99})["id"]
        world.scheduler().step()
        verbs.stop(key)
        pass_hours(world, 3.5)
        assert verbs.backfill(key, at(1), at(2)) == {"slots": 1, "run_before": 0}
        verbs.start(key)
        if edited:
            verbs.update(key, checked, trigger={"interval_seconds": 2 * HOUR})
        world.scheduler().step()

        assert fates(key) == [
            (1, "created", ""),
            (2, "created", ""),
            (2, "skipped", "Backfilled"),
            (3, "created", ""),
        ]
        assert len(world.runs) == 3

    def test_what_was_refused_can_be_asked_for_again(self, world: World) -> None:
        key = create(trigger={"cron": "@hourly"}, policy={"max_concurrency": 99})["id"]
        world.scheduler().step()
        world.malformed.add(key)
        verbs.backfill("s", at(-3), at(0))
        world.scheduler().step()
        assert world.runs == {}

        world.malformed.clear()
        assert verbs.backfill("s", at(-3), at(0)) == {"slots": 3, "run_before": 0}
        world.scheduler().step()
        assert len(world.runs) == 3

    @pytest.mark.parametrize(
        ("start", "end", "code"),
        [
            (at(5), at(9), "BackfillEmpty"),
            (at(0), at(0), "BackfillEmpty"),
            ("soon", at(0), "TimeInvalid"),
            ("1990-01-01", at(0), "BackfillTooLarge"),
        ],
    )
    def test_ranges_that_are_refused(self, world: World, start: str, end: str, code: str) -> None:
        key = create(trigger={"cron": "@hourly"})["id"]
        with pytest.raises(BadInputError) as raised:
            verbs.backfill("s", start, end)

        assert raised.value.code == code
        assert rows(key) == []
