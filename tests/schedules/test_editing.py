"""Schedules that are changed, and copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError
from registry import id_prefixes
from schedules import deciding, verbs, views
from tests.schedules.asking import HOUR, at, checked, create, fates, pass_hours, rows, state
from tests.schedules.world import World


class TestCreate:
    def test_one_that_would_begin_with_very_many_runs_is_refused(self, world: World) -> None:
        past = {"interval_seconds": 60, "start": "2020-01-01T00:00:00Z"}
        with pytest.raises(BadInputError) as raised:
            create(trigger=past)
        assert raised.value.code == "CatchupTooMany"

        for n, policy in enumerate(
            ({"catchup": "latest"}, {"max_catchup_runs": 10}, {"catchup_window": HOUR})
        ):
            assert create(f"s{n}", trigger=past, policy=policy)["state"] == "CREATE REQUESTED"


class TestUpdate:
    def test_the_id_the_slots_and_the_history_stay(self, world: World) -> None:
        made = create()
        pass_hours(world, 2)
        before = rows(made["id"])
        changed = verbs.update(
            "s", checked, name="t", description="d", trigger={"cron": "0 30 * * * *"},
            policy={"jitter": 5}, revise=lambda present: {**present, "a": 1},
        )  # fmt: skip

        assert changed["id"] == made["id"]
        assert rows(made["id"]) == before
        assert [deed["verb"] for deed in changed["history"]] == ["create", "update"]
        detail = changed["history"][-1]["detail"]
        assert detail["trigger"] == {"cron": "0 30 * * * *"}
        assert detail["changed"] == [
            "description", "name", "parameters.a", "policy.jitter", "trigger.cron",
            "trigger.interval_seconds",
        ]  # fmt: skip
        assert "parameters" not in detail
        assert (changed["name"], changed["description"]) == ("t", "d")
        assert changed["parameters"] == {"a": 1}

    def test_what_is_not_given_stays(self, world: World) -> None:
        trigger = {"cron": "@daily", "timezone": "Asia/Seoul", "end": at(1000)}
        made = create(trigger=trigger, policy={"jitter": 5}, parameters={"a": 1})
        changed = verbs.update("s", checked, trigger={"cron": "@hourly"}, policy={"grace": 7})

        assert changed["trigger"] == {**made["trigger"], "cron": "@hourly"}
        assert changed["policy"] == {**made["policy"], "grace": 7}
        assert changed["parameters"] == {"a": 1}

    def test_cron_and_interval_take_each_other_s_place(self, world: World) -> None:
        create()
        changed = verbs.update("s", checked, trigger={"cron": "@daily"})
        assert changed["trigger"] == {"cron": "@daily", "timezone": "UTC"}
        changed = verbs.update("s", checked, trigger={"interval_seconds": 60})
        assert changed["trigger"] == {"interval_seconds": 60, "timezone": "UTC"}

    @pytest.mark.parametrize("empty", [None, ""])
    def test_an_end_is_taken_away(self, world: World, empty: str | None) -> None:
        key = create(trigger={"interval_seconds": HOUR, "end": at(1)})["id"]
        pass_hours(world, 2)
        changed = verbs.update("s", checked, trigger={"end": empty})

        assert "end" not in changed["trigger"]
        assert state(key) == ("ENABLED", "")
        assert changed["next"][0] == at(3)

    def test_a_policy_s_field_has_its_default_again(self, world: World) -> None:
        create(policy={"catchup_window": 60, "max_concurrency": 5})
        changed = verbs.update(
            "s", checked, policy={"catchup_window": None, "max_concurrency": None}
        )

        assert changed["policy"]["catchup_window"] is None
        assert changed["policy"]["max_concurrency"] == 1

    def test_what_was_due_is_decided_by_the_old_trigger(self, world: World) -> None:
        key = create(policy={"max_concurrency": 9})["id"]
        world.scheduler().step()
        world.now += 2.5 * HOUR  # while no scheduler runs
        verbs.update("s", checked, trigger={"interval_seconds": 2 * HOUR})
        assert fates(key) == [(1, "waiting", "Queued"), (2, "waiting", "Queued")]

        pass_hours(world, 2.5)
        assert fates(key) == [(1, "created", ""), (2, "created", ""), (4.5, "created", "")]

    def test_however_much_was_due(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deciding, "MOST_RUNS", 10)
        key = create(trigger={"interval_seconds": 60})["id"]
        world.now += HOUR
        verbs.update("s", checked, trigger={"cron": "@daily"})

        assert len(rows(key)) == 60

    def test_while_it_is_stopped_what_was_missed_is_skipped(self, world: World) -> None:
        key = create()["id"]
        world.scheduler().step()
        verbs.stop("s")
        world.now += 2.5 * HOUR
        verbs.update("s", checked, trigger={"interval_seconds": 2 * HOUR})
        verbs.start("s")
        pass_hours(world, 2.5)

        assert fates(key) == [
            (1, "skipped", "TriggerChanged"), (2, "skipped", "TriggerChanged"),
            (4.5, "created", ""),
        ]  # fmt: skip

    def test_an_interval_that_stays_is_counted_from_where_it_was(self, world: World) -> None:
        create()
        world.now += HOUR / 2
        assert verbs.update("s", checked, trigger={"end": at(9)})["next"][0] == at(1)
        same = verbs.update("s", checked, trigger={"interval_seconds": "1h"})
        assert same["next"][0] == at(1)
        assert verbs.update("s", checked, trigger={"interval_seconds": 60})["next"][0] == at(
            0.5 + 1 / 60
        )

    def test_the_same_trigger_decides_nothing(self, world: World) -> None:
        key = create()["id"]
        verbs.stop(key)
        world.now += 2 * HOUR
        verbs.update("s", checked, trigger={"interval_seconds": HOUR, "end": ""})

        assert rows(key) == []

    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"name": "other"}, "NameTaken"),
            ({"name": "a/b"}, "NameInvalid"),
            ({"trigger": {"cron": "60 * * * * *"}}, "CronValueOutOfRange"),
            ({"trigger": {"end": at(-5)}}, "TriggerNeverFires"),
            ({"trigger": {"interval_seconds": ""}}, "TriggerMissing"),
            ({"policy": {"max_concurrency": 0}}, "PolicyNumberInvalid"),
            ({"deployment": "gone"}, "DeploymentUnknown"),
            ({"deployment": "with required"}, "ParameterInvalid"),
            ({"revise": lambda present: {"a": "{{ b }}"}}, "MacroUnknown"),
            ({"revise": lambda _: {"name": "n {{ slot.strftime('%F') }}"}}, "RunNameFixed"),
        ],
    )
    def test_what_is_refused_changes_nothing(
        self, world: World, given: dict[str, Any], code: str
    ) -> None:
        create("other")
        made = create()
        with pytest.raises(ModelyardError) as raised:
            verbs.update("s", checked, description="new", **given)

        assert raised.value.code == code
        assert views.show(made["id"]) == made

    def test_another_trigger_may_give_runs_the_same_name(self, world: World) -> None:
        named = {"name": "n {{ slot.strftime('%F') }}"}
        made = create(trigger={"cron": "@daily"}, parameters=named)
        with pytest.raises(BadInputError) as raised:
            verbs.update("s", checked, trigger={"cron": "@hourly"})

        assert raised.value.code == "RunNameFixed"
        assert "%Y%m%dT%H%M%S" in raised.value.hint
        assert views.show(made["id"]) == made

    def test_nobody_asks_others_while_the_row_is_locked(self, world: World) -> None:
        create(parameters={"a": 1})

        def check(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
            verbs.stop("s")  # would wait for ever
            return dict(given)

        assert verbs.update("s", check, revise=lambda present: {"a": 2})["parameters"] == {"a": 2}

    def test_two_who_change_parameters_do_not_mix_them(self, world: World) -> None:
        create(parameters={"a": 1})

        def meanwhile(deployment: str, given: Mapping[str, Any]) -> dict[str, Any]:
            verbs.update("s", checked, revise=lambda present: {"a": 3})
            return dict(given)

        with pytest.raises(ConflictError) as raised:
            verbs.update("s", meanwhile, revise=lambda present: {"a": 2})

        assert raised.value.code == "ChangedMeanwhile"
        assert views.show("s")["parameters"] == {"a": 3}

    def test_the_beginning_of_an_id_is_enough(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, other = create("one")["id"], create("two")["id"]

        assert verbs.stop(one[:30])["name"] == "one"
        assert views.show(other.replace("-", "")[:28])["name"] == "two"
        monkeypatch.setattr(id_prefixes, "parse", lambda _: "")  # with which both ids begin
        with pytest.raises(ConflictError, match="2 schedules have an id that begins") as raised:
            verbs.stop("00000000")
        assert all(f"{key}  {name}" in raised.value.hint
                   for key, name in ((one, "one"), (other, "two")))  # fmt: skip

    def test_unknown_and_deleted_ones(self, world: World) -> None:
        key = create()["id"]
        verbs.delete("s")
        for ask in (verbs.start, verbs.stop, verbs.trigger_now, verbs.delete):
            with pytest.raises(NotFoundError) as unknown:
                ask("s")
            assert unknown.value.code == "ScheduleUnknown"
            with pytest.raises(ConflictError) as deleted:
                ask(key)
            assert deleted.value.code == "ScheduleDeleted"

    def test_an_unknown_name_is_answered_with_those_like_it_or_else_all(
        self, world: World
    ) -> None:
        for name in ("nightly", "weekly"):
            create(name)
        for asked, told in (
            ("nighty", "There is: nightly."),
            ("zz", "There is: nightly, weekly."),
        ):
            with pytest.raises(NotFoundError) as unknown:
                verbs.start(asked)
            assert unknown.value.hint == told


class TestCopy:
    def test_it_has_everything_of_the_other(self, world: World) -> None:
        made = create(description="d", parameters={"a": 1}, policy={"jitter": 3}, enabled=False)
        copied = verbs.copy("s", "t", checked)
        world.scheduler().step()

        told = ("description", "parameters", "policy", "trigger", "deployment")
        assert {name: copied[name] for name in told} == {name: made[name] for name in told}
        assert copied["id"] != made["id"]
        assert state("t") == ("DISABLED", "")

    def test_with_another_deployment_and_stopped(self, world: World) -> None:
        create()
        copied = verbs.copy("s", "t", checked, deployment="tune", enabled=False)
        world.scheduler().step()

        assert copied["deployment"] == "tune"
        assert state("t") == ("DISABLED", "")
        with pytest.raises(NotFoundError):
            verbs.copy("s", "u", checked, deployment="gone")

    def test_with_changes(self, world: World) -> None:
        create(parameters={"a": 1})
        copied = verbs.copy(
            "s", "t", checked, description="d", trigger={"cron": "@daily"}, policy={"grace": 5},
            revise=lambda present: {**present, "b": 2},
        )  # fmt: skip

        assert copied["trigger"] == {"cron": "@daily", "timezone": "UTC"}
        assert copied["parameters"] == {"a": 1, "b": 2}
        assert (copied["policy"]["grace"], copied["description"]) == (5, "d")
        assert views.show("s")["parameters"] == {"a": 1}

    def test_its_slots_count_from_now_in_the_other_s_rhythm(self, world: World) -> None:
        create(trigger={"interval_seconds": HOUR, "start": at(-9.5)})
        key = verbs.copy("s", "t", checked)["id"]
        pass_hours(world, 1)

        assert fates(key) == [(0.5, "created", "")]

    def test_a_start_that_is_given_is_heeded(self, world: World) -> None:
        create()
        trigger, policy = {"start": at(-3)}, {"max_concurrency": 9}
        key = verbs.copy("s", "t", checked, trigger=trigger, policy=policy)["id"]
        world.scheduler().step()

        assert fates(key) == [(n, "created", "") for n in (-2, -1, 0)]

    def test_one_that_has_expired_needs_another_end(self, world: World) -> None:
        create(trigger={"interval_seconds": HOUR, "start": at(-9), "end": at(-1)})
        with pytest.raises(BadInputError) as raised:
            verbs.copy("s", "t", checked)

        assert raised.value.code == "TriggerNeverFires"
        assert verbs.copy("s", "t", checked, trigger={"end": ""})["next"][0] == at(1)
