"""Files of schedules."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from infra.errors import ConflictError
from registry import catalogue, history
from registry.schedules import schedules, slots
from schedules import applying, verbs, views
from schedules.files import FileInvalidError
from tests.schedules.asking import HOUR, at, checked, create, fates, pass_hours
from tests.schedules.world import World


def entry(name: str = "a", **given: Any) -> dict[str, Any]:
    return {"name": name, "deployment": "train", "interval_seconds": HOUR, **given}


def apply(*entries: Any, file: str = "f.yaml", adopt: bool = False, **more: Any) -> dict[str, Any]:
    document = {"schedules": list(entries), **more}
    return applying.apply(document, file, checked, adopt=adopt)


def deeds(**given: list[str]) -> dict[str, Any]:
    none: list[str] = []
    told = {"created": none, "changed": none, "unchanged": none, "archived": none, **given}
    return {"set": "f.yaml", **told}


def faults(*entries: Any, **more: Any) -> dict[str, str]:
    """What is wrong, by its place; and that nothing was written."""
    before = [views.show(row["id"]) for row in views.list_all()]
    with pytest.raises(FileInvalidError) as raised:
        apply(*entries, **more)
    assert [views.show(row["id"]) for row in views.list_all()] == before
    assert all(str(fault) in raised.value.message for fault in raised.value.faults)
    return {fault.place: fault.error.code for fault in raised.value.faults}


class TestApply:
    def test_they_are_made(self, world: World) -> None:
        full = entry(
            "b", description="d", parameters={"day": date(2027, 1, 2)}, enabled=False,
            policy={"catchup": False}, timezone="Asia/Seoul", end=at(99),
        )  # fmt: skip
        under = {"name": "c", "deployment": "tune", "trigger": {"cron": "@daily"}, "policy": None}
        assert apply(entry(), full, under) == deeds(created=["a", "b", "c"])

        world.scheduler().step()
        found = {row["name"]: views.show(row["id"]) for row in views.list_all()}
        assert found["a"]["state"] == "ENABLED"
        assert found["b"]["state"] == "DISABLED"
        assert found["b"]["parameters"] == {"day": "2027-01-02"}
        assert found["b"]["policy"]["catchup"] == "latest"
        assert found["b"]["trigger"]["timezone"] == "Asia/Seoul"
        assert found["c"]["when"] == "@daily"
        assert [row["source"] for row in found.values()] == ["f.yaml"] * 3
        assert found["a"]["history"][0]["detail"] == {"name": "a", "applied": "f.yaml"}

    def test_twice_is_no_change(self, world: World) -> None:
        given = [
            entry(policy={"jitter": 3}),
            entry("b", start=at(2), end=at(9), enabled=False),
            entry("c", end=at(9)),
        ]
        apply(*given)
        before = [views.show(row["id"]) for row in views.list_all()]
        world.now += 10 * HOUR  # also when the end is past

        assert apply(*given) == deeds(unchanged=["a", "b", "c"])
        assert [views.show(row["id"]) for row in views.list_all()] == before

    def test_an_interval_may_have_units(self, world: World) -> None:
        assert apply(entry(interval_seconds="1h")) == deeds(created=["a"])
        assert views.show("a")["trigger"]["interval_seconds"] == HOUR
        assert views.show("a")["when"] == "every 1h"
        assert apply(entry(interval_seconds=HOUR)) == deeds(unchanged=["a"])
        assert apply(entry(interval_seconds="90m")) == deeds(changed=["a"])
        assert [row["when"] for row in views.list_all()] == ["every 1h30m"]

    def test_one_is_edited_in_place(self, world: World) -> None:
        apply(entry(), entry("b"))
        key = views.show("a")["id"]
        pass_hours(world, 1.5)
        changed = entry(
            cron="@daily", deployment="tune", parameters={"x": 1}, policy={"grace": 5},
            description="d", interval_seconds=None,
        )  # fmt: skip
        assert apply(changed, entry("b")) == deeds(changed=["a"], unchanged=["b"])

        found = views.show("a")
        assert found["id"] == key
        assert (found["when"], found["deployment"], found["parameters"]) == (
            "@daily", "tune", {"x": 1},
        )  # fmt: skip
        assert (found["policy"]["grace"], found["description"]) == (5, "d")
        assert fates(key) == [(1, "created", "")]
        assert [deed["verb"] for deed in found["history"]] == ["create", "update"]
        assert found["history"][-1]["detail"]["changed"] == [
            "deployment", "description", "parameters.x", "policy.grace", "trigger.cron",
            "trigger.interval_seconds",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "given",
        [
            {"description": "d"}, {"parameters": {"x": 1}}, {"policy": {"grace": 5}},
            {"deployment": "tune"}, {"end": at(5)}, {"enabled": False}, {"interval_seconds": 60},
        ],
    )  # fmt: skip
    def test_whatever_is_changed_is_noticed(self, world: World, given: dict[str, Any]) -> None:
        apply(entry())

        assert apply(entry(**given)) == deeds(changed=["a"])
        assert apply(entry(**given)) == deeds(unchanged=["a"])

    def test_what_is_left_out_is_as_if_it_never_was(self, world: World) -> None:
        apply(entry(parameters={"x": 1}, policy={"grace": 5}, description="d", end=at(9)))
        apply(entry())

        found = views.show("a")
        assert (found["parameters"], found["description"]) == ({}, "")
        assert found["policy"]["grace"] == 60
        assert "end" not in found["trigger"]

    def test_who_stops_one_by_hand_is_heeded_unless_the_file_says_more(self, world: World) -> None:
        apply(entry(), entry("b", enabled=True))
        verbs.stop("a")
        verbs.stop("b")

        assert apply(entry(), entry("b", enabled=True)) == deeds(changed=["b"], unchanged=["a"])
        world.scheduler().step()
        assert [row["state"] for row in views.list_all()] == ["DISABLED", "ENABLED"]

    def test_one_that_is_gone_is_archived_and_its_run_goes_on(self, world: World) -> None:
        apply(entry(), entry("b"))
        create("by hand")
        key = views.show("a")["id"]
        world.takes[key] = 5 * HOUR
        pass_hours(world, 2.5)

        assert apply(entry("b")) == deeds(unchanged=["b"], archived=["a"])
        assert fates(key) == [(1, "created", ""), (2, "skipped", "Deleted")]
        assert world.active(key) == 1
        assert [row["name"] for row in views.list_all()] == ["b", "by hand"]
        assert history.of("schedule", key)[-1]["verb"] == "delete"
        assert apply(entry(), entry("b")) == deeds(created=["a"], unchanged=["b"])
        assert views.show("a")["id"] != key

    def test_an_empty_list_archives_all_of_the_set(self, world: World) -> None:
        apply(entry())
        apply(entry("b"), file="other.yaml")

        assert apply() == deeds(archived=["a"])
        assert [row["name"] for row in views.list_all()] == ["b"]

    def test_a_set_has_the_file_s_name_or_its_own(self, world: World) -> None:
        assert apply(entry(), file="one.yaml", set="mine")["set"] == "mine"
        assert apply(entry(), file="two.yaml", set="mine")["unchanged"] == ["a"]

    def test_one_that_could_not_be_made_is_tried_again(self, world: World) -> None:
        apply(entry())
        world.refused.add("train")
        world.scheduler().step()
        apply(entry(description="d"))

        assert views.show("a")["state"] == "CREATE REQUESTED"


class TestOwners:
    def test_one_that_was_made_by_hand_is_refused(self, world: World) -> None:
        create("a")
        with pytest.raises(ConflictError) as raised:
            apply(entry("b"), entry("a"))

        assert raised.value.code == "ScheduleNotOfFile"
        assert "schedules[1].name: The schedule 'a' was created by hand." in raised.value.message
        assert "--adopt" in raised.value.hint
        assert [row["name"] for row in views.list_all()] == ["a"]

    def test_one_of_another_file_too(self, world: World) -> None:
        apply(entry(), file="one.yaml")
        with pytest.raises(ConflictError, match=r"'a' was applied from 'one\.yaml'") as raised:
            apply(entry(), file="two.yaml")

        assert raised.value.code == "ScheduleNotOfFile"

    def test_they_can_be_taken_over(self, world: World) -> None:
        key = create("a")["id"]
        apply(entry("b"), file="one.yaml")

        assert apply(entry(), entry("b"), adopt=True) == deeds(changed=["a", "b"])
        assert views.show("a")["id"] == key
        assert views.show("a")["source"] == "f.yaml"
        assert apply(file="one.yaml")["archived"] == []

    def test_it_is_told_with_everything_else_that_is_wrong(self, world: World) -> None:
        create("a")

        assert faults(entry(), entry("b", cron="@daily")) == {
            "schedules[1]": "TriggerTwice", "schedules[0].name": "ScheduleNotOfFile",
        }  # fmt: skip

    def test_one_that_comes_at_the_last_moment(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really = schedules.concerned

        def concerned(*given: Any) -> Any:
            create("a")
            return really(*given)

        monkeypatch.setattr(schedules, "concerned", concerned)
        with pytest.raises(ConflictError) as raised:
            apply(entry("b"), entry("a"))

        assert raised.value.code == "ScheduleNotOfFile"
        assert [row["name"] for row in views.list_all()] == ["a"]

    def test_or_even_later(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        really = schedules.concerned

        def concerned(*given: Any) -> Any:
            found = really(*given)
            create("a")
            return found

        monkeypatch.setattr(schedules, "concerned", concerned)
        with pytest.raises(ConflictError) as raised:
            apply(entry("b"), entry("a"))

        assert raised.value.code == "NameTaken"
        assert [row["name"] for row in views.list_all()] == ["a"]


class TestFaults:
    def test_all_are_told_with_their_places(self, world: World) -> None:
        assert faults(
            entry("fine"),
            entry("b", policy={"overlap": "perhaps", "max_concurrency": 0, "odd": 1}),
            entry("c", cron="60 * * * * *", interval_seconds=None, timezone="Mars/Base"),
            entry("d", deployment="gone"),
            entry("e", deployment="with required"),
            entry("fine"),
            entry("f", start=at(2), end=at(1)),
            {"name": "g", "deployment": "train"},
            odd=1,
        ) == {
            "odd": "FieldUnknown",
            "schedules[1].policy.overlap": "PolicyWordInvalid",
            "schedules[1].policy.max_concurrency": "PolicyNumberInvalid",
            "schedules[1].policy.odd": "FieldUnknown",
            "schedules[2].cron": "CronValueOutOfRange",
            "schedules[2].timezone": "TimezoneUnknown",
            "schedules[3].deployment": "DeploymentUnknown",
            "schedules[4].parameters": "ParameterInvalid",
            "schedules[5].name": "NameTaken",
            "schedules[6]": "EndBeforeStart",
            "schedules[7]": "TriggerMissing",
        }

    @pytest.mark.parametrize(
        ("given", "place", "code"),
        [
            ({"name": None}, "name", "FieldInvalid"),
            ({"name": ""}, "name", "FieldInvalid"),
            ({"name": 5}, "name", "FieldInvalid"),
            ({"name": "a/b"}, "name", "NameInvalid"),
            ({"deployment": None}, "deployment", "FieldInvalid"),
            ({"deployment": ["train"]}, "deployment", "FieldInvalid"),
            ({"description": 5}, "description", "FieldInvalid"),
            ({"description": "\0"}, "description", "TextInvalid"),
            ({"enabled": "yes"}, "enabled", "FieldInvalid"),
            ({"odd": 1}, "odd", "FieldUnknown"),
            ({"since": at(0)}, "since", "FieldUnknown"),
            ({"policy": [1]}, "policy", "FieldInvalid"),
            ({"policy": {1: 2}}, "policy", "FieldInvalid"),
            ({"parameters": "a=1"}, "parameters", "FieldInvalid"),
            ({"parameters": {"a": "{{ b }}"}}, "parameters", "MacroUnknown"),
            ({"parameters": {"name": "fixed"}}, "parameters", "RunNameFixed"),
            ({"parameters": {"name": "{{ slot.strftime('%F') }}"}}, "parameters", "RunNameFixed"),
            ({"trigger": "daily"}, "trigger", "FieldInvalid"),
            ({"trigger": {"odd": 1}}, "trigger.odd", "FieldUnknown"),
            ({"trigger": {"since": at(0)}}, "trigger.since", "FieldUnknown"),
            ({"trigger": {"interval_seconds": 5}}, "trigger.interval_seconds", "FieldTwice"),
            ({"interval_seconds": "60"}, "interval_seconds", "IntervalInvalid"),
            ({"trigger": {"end": "soon"}}, "trigger.end", "TimeInvalid"),
            ({"cron": 5, "interval_seconds": None}, "cron", "CronInvalid"),
            ({"cron": "0 0 0 30 2 *", "interval_seconds": None}, "cron", "CronNeverFires"),
            ({"cron": "0 0 0 1 1 * 2027", "interval_seconds": None}, "cron", "CronFieldCount"),
        ],
    )
    def test_each(self, world: World, given: dict[str, Any], place: str, code: str) -> None:
        assert faults(entry(**given)) == {f"schedules[0].{place}": code}

    def test_one_without_a_slot(self, world: World) -> None:
        assert faults(entry(end=at(-1))) == {"schedules[0]": "TriggerNeverFires"}

    @pytest.mark.parametrize("given", ["a", None, 5, ["name"]])
    def test_one_that_is_no_mapping(self, world: World, given: Any) -> None:
        assert faults(given) == {"schedules[0]": "FieldInvalid"}

    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({}, {"schedules": "FieldInvalid"}),
            ({"schedules": None}, {"schedules": "FieldInvalid"}),
            ({"schedules": {"name": "a"}}, {"schedules": "FieldInvalid"}),
            ({"schedules": [], "set": ""}, {"set": "FieldInvalid"}),
            ({"schedules": [], "set": 5}, {"set": "FieldInvalid"}),
        ],
    )
    def test_the_file_itself(
        self, world: World, document: dict[str, Any], expected: dict[str, str]
    ) -> None:
        apply(entry())
        with pytest.raises(FileInvalidError) as raised:
            applying.apply(document, "f.yaml", checked)

        assert {fault.place: fault.error.code for fault in raised.value.faults} == expected
        assert [row["name"] for row in views.list_all()] == ["a"]


def test_nobody_asks_others_while_rows_are_locked(world: World) -> None:
    apply(entry())

    def check(deployment: str, given: Any) -> dict[str, Any]:
        verbs.stop("a")  # would wait for ever
        return dict(given)

    applying.apply({"schedules": [entry(description="d")]}, "f.yaml", check)
    with catalogue.engine().connect() as connection:
        assert slots.of(connection, views.show("a")["id"]) == []
