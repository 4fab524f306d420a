"""Schedules that are there by themselves."""

from __future__ import annotations

import pytest

from flows import catalogue as flows
from registry import catalogue
from registry.schedules import schedules as rows
from schedules import builtin, editing, verbs, views
from schedules.editing import ScheduleSpec
from tests.schedules.world import World

ONE = ScheduleSpec(name="nightly", deployment="train", trigger={"cron": "0 30 3 * * *"})

pytestmark = pytest.mark.usefixtures("world")


def enabled(name: str) -> bool:
    with catalogue.session() as open_session:
        return bool(rows.find(open_session, name).enabled)


def check(deployment: str, given: object) -> dict[str, object]:
    return {}


def test_each_is_made_once() -> None:
    assert builtin.ensure([ONE]) == ["nightly"]
    assert builtin.ensure([ONE]) == []
    shown = views.show("nightly")
    assert (shown["deployment"], shown["trigger"]["cron"]) == ("train", "0 30 3 * * *")
    assert enabled("nightly")


def test_one_that_was_stopped_stays_stopped() -> None:
    builtin.ensure([ONE])
    verbs.stop("nightly")
    builtin.ensure([ONE])
    assert not enabled("nightly")


def test_one_that_was_deleted_does_not_come_back(world: World) -> None:
    builtin.ensure([ONE])
    verbs.delete("nightly")
    assert builtin.ensure([ONE]) == []
    assert "nightly" not in [row["name"] for row in views.list_all()]


def test_one_that_was_renamed_does_not_come_back() -> None:
    builtin.ensure([ONE])
    verbs.update("nightly", check, name="mine")
    assert builtin.ensure([ONE]) == []


def test_a_name_that_somebody_has_taken_stays_theirs() -> None:
    verbs.create(ONE.model_copy(update={"deployment": "tune"}), check)
    assert builtin.ensure([ONE]) == []
    assert views.show("nightly")["deployment"] == "tune"


def test_those_of_ours_are_valid_and_run_flows_of_ours() -> None:
    for one in flows.SCHEDULES:
        row = editing.new_row(one, dict(one.parameters))
        assert row.next_slot is not None
        flows.find(one.deployment).spec.request(**one.parameters)
