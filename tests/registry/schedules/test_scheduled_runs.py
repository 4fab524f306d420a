"""What is read of the flow runs of slots."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx
import pytest
from prefect.states import Running

from registry.schedules import scheduled_runs
from tests.registry.fake_runs import PrefectClient, new_id


def test_states_are_read_of_runs_that_go_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = PrefectClient()
    monkeypatch.setattr(scheduled_runs, "prefect_client", lambda: contextlib.nullcontext(fake))
    goes_on, over, gone = fake.add("train", "a", Running()), fake.add("train", "b"), new_id()
    asked = [goes_on, over, gone]

    assert scheduled_runs.ended(asked) == {over: "COMPLETE", gone: "DELETED"}
    assert scheduled_runs.states(asked) == {goes_on: "RUNNING", over: "COMPLETE", gone: "DELETED"}
    assert scheduled_runs.states([*(new_id() for _ in range(200)), goes_on]).get(goes_on) is None


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), RuntimeError("Failed to reach API")])
def test_without_an_answer_there_are_no_states(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> Any:
        raise error

    monkeypatch.setattr(scheduled_runs, "prefect_client", silent)

    assert scheduled_runs.states([new_id()]) == {}
    assert scheduled_runs.states([]) == {}
