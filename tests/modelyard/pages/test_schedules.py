"""The page of a schedule, and the links between it and its runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from schedules.views import ScheduleDetailView, SlotView
from tests.modelyard.pages.conftest import RUN, World

HOSTILE = "<script>alert(1)</script>"
ID = "s/1"


def slot(**told: Any) -> SlotView:
    given = {"slot": "2026-01-02T03:04:00Z", "kind": "scheduled", "fate": "created", "reason": "",
             "run": RUN, "state": "FAIL TRAIN", "decided": "2026-01-02T03:04:00Z",
             "decided_by": "me"}  # fmt: skip
    return SlotView(**{**given, **told})


def schedule(**told: Any) -> ScheduleDetailView:
    given = {
        "id": ID, "name": f"nightly{HOSTILE}", "state": "ENABLED", "detail": "",
        "deployment": "train", "when": "0 2 * * *", "timezone": "Asia/Seoul", "next_slot": None,
        "deleted": None, "description": f"why {HOSTILE}", "trigger": {}, "policy": {},
        "parameters": {"hyperparameters": {"lr": 0.1}, "name": "fixed"}, "notice": "",
        "next": ["2026-01-03T17:00:00Z"], "slots": [], "created": datetime(2026, 1, 1, tzinfo=UTC),
        "created_by": "me", "source": "", "fates": {"created": 3, "skipped overlap": 1},
        "scheduler": None, "history": [],
    }  # fmt: skip
    return ScheduleDetailView(**{**given, **told})


def test_a_schedule_is_shown_with_its_slots_and_runs(world: World, client: TestClient) -> None:
    waiting = slot(run=None, state=None, fate="waiting", reason=HOSTILE, kind="backfill",
                   until="2026-01-02T05:00:00Z", count=7)  # fmt: skip
    world.shown_schedules["nightly"] = schedule(slots=[slot(), waiting], notice="Beware.")
    page = client.get("/schedules/nightly").text

    assert f'<a href="/runs/{RUN}">{RUN}</a>' in page
    assert 'data-state="FAIL TRAIN"' in page
    assert "backfill" in page
    assert "7 slots, until" in page
    assert "Asia/Seoul" in page
    assert "3 created, 1 skipped overlap" in page
    assert 'datetime="2026-01-03T17:00:00+00:00"' in page
    assert "Beware." in page
    assert "<dt>hyperparameters.lr</dt><dd><pre>0.1</pre>" in page
    assert "<dt>name</dt><dd><pre>fixed</pre>" in page
    assert "modelyard schedule slots s/1" in page
    assert "<script>alert" not in page
    assert "None" not in page


def test_the_state_of_a_run_that_goes_on_is_shown(world: World, client: TestClient) -> None:
    world.shown_schedules["s"] = schedule(slots=[slot(state=None)])
    world.exist()
    assert 'data-state="RUNNING"' in client.get("/schedules/s").text

    world.silent = True
    page = client.get("/schedules/s")
    assert page.status_code == 200
    assert 'data-state="RUNNING"' not in page.text


def test_a_schedule_without_slots_says_so(world: World, client: TestClient) -> None:
    world.shown_schedules["new"] = schedule(
        when="every 1h", deleted="2026-01-04T00:00:00Z", state="DELETED", fates={}
    )
    page = client.get("/schedules/new").text

    assert "No slot has come yet." in page
    assert "Time zone" not in page
    assert "<dt>Deleted</dt>" in page


def test_a_schedule_that_there_is_not_is_told(client: TestClient) -> None:
    assert client.get("/schedules/none").status_code == 404


@pytest.mark.parametrize("flow", ["train", "pipeline-run"])
def test_a_run_leads_to_its_schedule(world: World, client: TestClient, flow: str) -> None:
    world.shown_schedules[ID] = schedule()
    world.exist(flow=flow, schedule_id=ID, state="CREATE REQUESTED")
    if flow == "pipeline-run":
        world.begin("adding", schedule_id=ID)
    link = '<a href="/schedules/s%2F1">nightly&lt;script'

    assert link in client.get(f"/runs/{RUN}").text
    world.broken = OperationalError("select 1", {}, OSError("away"))
    assert '<a href="/schedules/s%2F1">s/1</a>' in client.get(f"/runs/{RUN}").text


def test_a_run_of_nobodys_schedule_leads_to_none(world: World, client: TestClient) -> None:
    world.exist(flow="train")

    assert "Schedule</dt>" not in client.get(f"/runs/{RUN}").text
