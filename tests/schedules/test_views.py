"""The keys and types that ``--json`` prints of schedules and slots."""

from __future__ import annotations

import pytest

from schedules import verbs, views
from tests.printed_json import printed, shape
from tests.schedules.asking import HOUR, at, checked, create, pass_hours
from tests.schedules.world import World

BRIEF = {
    "id": "str", "name": "str", "state": "str", "detail": "str", "deployment": "str",
    "when": "str", "timezone": "str", "next_slot": "str", "deleted": "NoneType",
}  # fmt: skip
SLOT = {
    "slot": "str", "kind": "str", "fate": "str", "reason": "str", "run": "str",
    "state": "NoneType", "decided": "str", "decided_by": "str",
}  # fmt: skip
SHOWN = {
    **BRIEF, "description": "str", "trigger": {"interval_seconds": "int"}, "parameters": {},
    "notice": "str", "next": ["str"], "slots": [], "created": "str", "created_by": "str",
    "source": "str", "fates": {}, "scheduler": "NoneType",
}  # fmt: skip


def test_schedules(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, create("s"))
    assert shape(made.pop("history")) == [
        {"at": "str", "user": "str", "verb": "str", "detail": {"name": "str"}}
    ]
    assert set(shape(made.pop("policy")).values()) <= {"str", "int", "NoneType"}
    made["trigger"].pop("since", None)
    made["trigger"].pop("timezone", None)
    assert shape(made) == {**SHOWN, "trigger": {"interval_seconds": "int"}}
    assert shape(printed(capsys, views.list_all())) == [BRIEF]

    pass_hours(world, 3)
    verbs.stop("s")
    shown = printed(capsys, views.show("s", following=1))
    assert shape([{**slot, "state": None} for slot in shown["slots"]]) == [SLOT]
    assert shown["fates"] == {"created": 3}
    assert printed(capsys, views.list_all())[0]["next_slot"] is None
    key = shown["id"]
    changed = printed(capsys, verbs.update("s", checked, description="new"))
    assert (changed["description"], changed["id"]) == ("new", key)
    assert printed(capsys, verbs.trigger_now("s"))["fate"] == "waiting"


def test_those_that_were_changed_last_are_listed_first(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        create(name)
    verbs.update("a", checked, description="new")
    verbs.delete("d")

    assert [row.name for row in views.list_newest(2)] == ["a", "c"]


def test_slots_that_share_their_fate(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    create("s", policy={"catchup": "none"}, trigger={"interval_seconds": 1})
    world.now += 5 * HOUR
    world.scheduler().step()
    found = [one for one in printed(capsys, views.slots_of("s", last=9999)) if "count" in one]

    assert shape(found[0]) == {**SLOT, "run": "NoneType", "until": "str", "count": "int"}
    assert list(found[0])[:3] == ["slot", "until", "count"]


@pytest.mark.parametrize(("catchup", "count"), [("all", 3), ("latest", 1), ("none", 0)])
def test_missed_slots_that_run_at_once(world: World, catchup: str, count: int) -> None:
    create("s", policy={"catchup": catchup}, trigger={"interval_seconds": HOUR, "end": at(4)})
    assert views.backlog("s") == (0, at(1))

    world.now += 3.5 * HOUR
    assert views.backlog("s") == (count, at(4))
    world.now += HOUR
    assert views.backlog("s") == (count + (catchup == "all"), None)
