"""What messages say, filled by the engine of Prefect's server."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.server.events.jinja_filters import all_filters
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities import user_templates

from infra import prefect_events
from registry import flow_kinds
from registry.notifications import notification_messages as messages
from registry.runs import statuses

RUN = "0f5c1e2a-6a39-4b4c-9d3e-1f1f1f1f1f1f"


@pytest.fixture(autouse=True)
def _filters(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {name: lambda obj: f"http://prefect/{obj}" if obj else None for name in all_filters}
    environment = user_templates._template_environment
    monkeypatch.setattr(environment, "filters", {**environment.filters, **shown})


def event(name: str, resource: dict[str, str], flow: str = "") -> ReceivedEvent:
    return ReceivedEvent.model_validate({
        "id": UUID(RUN), "event": name, "occurred": "2026-11-24T10:00:00Z", "resource": resource,
        "related": [prefect_events.related("flow", "1", flow)] if flow else [],
    })  # fmt: skip


def ended(flow: str, state: State[Any], name: str = "digits") -> ReceivedEvent:
    labels = {
        "prefect.resource.id": f"prefect.flow-run.{RUN}", "prefect.resource.name": name,
        "prefect.state-name": str(state.name), "prefect.state-type": state.type.value,
        "prefect.state-message": state.message or "",
    }  # fmt: skip
    return event(f"prefect.flow-run.{state.name}", labels, flow)


def render(template: str, happened: ReceivedEvent) -> str:
    run = "run" if happened.event.startswith("prefect.flow-run") else None
    context = {"event": happened, "automation": {"name": "oncall"}, "flow_run": run}
    user_templates.validate_user_template(template)
    return asyncio.run(user_templates.render_user_template(template, context))


ENDS = [
    State(type=StateType.COMPLETED, name="Completed", message="[GoalReached] Best: trial 3"),
    State(type=StateType.COMPLETED, name="Completed"),
    State(type=StateType.CANCELLED, name="Cancelled", message="a user"),
    State(type=StateType.FAILED, name="Failed", message="It ended.\nline 2"),
    State(type=StateType.FAILED, name="Failed", message="[CreateFailed] No such folder."),
    State(type=StateType.FAILED, name="TimedOut", message="Too long."),
    State(type=StateType.FAILED, name="Failed", message="[OOMKilled] It had no memory."),
    State(type=StateType.FAILED, name="Failed", message="[a list] is no detail"),
    State(type=StateType.CRASHED, name="Crashed", message="lost"),
]


@pytest.mark.parametrize("state", ENDS, ids=lambda state: f"{state.name} {state.message}")
@pytest.mark.parametrize("flow", [*(kind.name for kind in flow_kinds.ALL), "somebodys-own"])
def test_word_and_detail_are_those_of_commands(flow: str, state: State[Any]) -> None:
    said = json.loads(render(messages.WEBHOOK, ended(flow, state)))

    assert said["state"] == statuses.word(flow, state)
    assert said["detail"] == statuses.detail(state)
    assert said["reason"] == statuses.message(state).split("\n")[0]


def test_a_run_that_failed() -> None:
    state = State(type=StateType.FAILED, name="Failed", message="Exit code 1: <a> & 'b'.\nmore")
    happened = ended("train", state, 'digits "small"')

    assert render(messages.SUBJECT, happened) == 'FAIL TRAIN: digits "small" (train)'
    assert render(messages.BODY, happened).splitlines() == [
        'The run digits "small" of train ended FAIL TRAIN.',
        "Exit code 1: <a> & 'b'.",
        "http://prefect/run",
    ]
    slack = json.loads(render(messages.SLACK, happened))
    assert slack["text"].splitlines()[1] == "Exit code 1: &lt;a&gt; &amp; 'b'."
    assert json.loads(render(messages.WEBHOOK, happened)) == {
        "notification": "oncall", "noun": "run", "name": 'digits "small"', "id": RUN,
        "flow": "train", "state": "FAIL TRAIN", "detail": "", "reason": "Exit code 1: <a> & 'b'.",
        "link": "http://prefect/run", "time": "2026-11-24T10:00:00+00:00",
        "event": "prefect.flow-run.Failed", "subject": 'FAIL TRAIN: digits "small" (train)',
        "text": render(messages.BODY, happened),
    }  # fmt: skip


def test_a_script_that_failed_is_quoted_by_its_last_line() -> None:
    message = (
        "ScriptFailed: The script failed. Its last lines:\nabout to fail\nthe data is wrong\n"
    )
    said = render(messages.WEBHOOK, ended("train", State(type=StateType.FAILED, message=message)))

    assert json.loads(said)["reason"] == (
        "ScriptFailed: The script failed. Its last lines: the data is wrong"
    )


def test_a_detail_is_beside_the_word() -> None:
    assert render(messages.SUBJECT, ended("tune", ENDS[0])) == (
        "COMPLETE (GoalReached): digits (tune)"
    )


def test_a_schedule_that_was_paused() -> None:
    labels = {
        "prefect.resource.id": "modelyard.schedule.s1", "prefect.resource.name": "nightly",
        prefect_events.REASON_LABEL: "3 runs in a row failed.",
    }  # fmt: skip
    happened = event(prefect_events.PAUSED_SCHEDULE, labels, "train")

    assert render(messages.SUBJECT, happened) == "DISABLED: schedule nightly"
    lines = render(messages.BODY, happened).splitlines()
    assert lines[:2] == ["The schedule nightly was paused.", "3 runs in a row failed."]
    assert lines[2].startswith("http://prefect/")
    said = json.loads(render(messages.WEBHOOK, happened))
    assert (said["noun"], said["id"], said["state"]) == ("schedule", "s1", "DISABLED")


def test_a_very_long_reason_is_cut() -> None:
    state = State(type=StateType.FAILED, name="Failed", message="x" * 10_000)
    assert len(render(messages.BODY, ended("train", state))) < 700
