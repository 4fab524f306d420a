"""Limits of a tuning that are changed while it runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from flows import tuning_limits
from flows.tuning_limits import LiveLimits
from tasks.tuning.tuning_request import Tuning
from tests.processes import eventually
from tuning.completion import TuningLimits

X = {"name": "x", "type": "double", "min": 0, "max": 1}
LOSS = {"metric": "loss", "direction": "minimize"}


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run's log says."""
    kept: list[str] = []
    logger = logging.getLogger("tests.tuning")
    monkeypatch.setattr(logger, "info", lambda message, *args: kept.append(message % args))
    monkeypatch.setattr(tuning_limits, "get_run_logger", lambda: logger)
    return kept


@pytest.fixture
def request_() -> Tuning:
    return Tuning(parameters=[X], objective=LOSS, metrics=[{"name": "loss"}], max_trials=3)


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Has the parameters of the run, or raises what is set."""
    fake = SimpleNamespace(parameters={"max_trials": 3}, asked=0)

    def read(_: Any) -> Any:
        fake.asked += 1
        if isinstance(fake.parameters, Exception):
            raise fake.parameters
        return fake

    fake.read_flow_run = read
    monkeypatch.setattr(tuning_limits, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(tuning_limits, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    return fake


def test_changes_are_noticed(request_: Tuning, prefect: SimpleNamespace, said: list[str]) -> None:
    limits = LiveLimits(request_, str(uuid4()))
    assert limits() == TuningLimits(3, None, 1)
    with limits.followed():
        prefect.parameters = {"max_trials": 9, "parallel_trials": 4, "name": "n"}
        eventually(lambda: limits() == TuningLimits(9, None, 4), "the change is noticed")

    assert said == ["The limits are now max_trials 9, parallel_trials 4."]
    assert "limits" not in {one.name for one in threading.enumerate()}


@pytest.mark.parametrize(
    "wrong",
    [ConnectionError("away"), {"max_trials": "many"}, {"parallel_trials": -1}],
    ids=str,
)
def test_what_cannot_be_read_changes_nothing(
    request_: Tuning, prefect: SimpleNamespace, wrong: Any
) -> None:
    limits = LiveLimits(request_, str(uuid4()))
    prefect.parameters = wrong
    with limits.followed():
        eventually(lambda: prefect.asked > 2, "it is asked again")
        assert limits() == TuningLimits(3, None, 1)
        prefect.parameters = {"max_trials": 4}
        eventually(lambda: limits().max_trials == 4, "it is noticed afterwards")


def test_a_client_that_cannot_be_made_is_made_later(
    request_: Tuning, prefect: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = iter([ConnectionError("away"), ConnectionError("away")])

    def client(**_: Any) -> Any:
        problem = next(made, None)
        if problem:
            raise problem
        return contextlib.nullcontext(prefect)

    monkeypatch.setattr(tuning_limits, "prefect_client", client)
    limits = LiveLimits(request_, str(uuid4()))
    prefect.parameters = {"max_trials": 5}
    with limits.followed():
        eventually(lambda: limits().max_trials == 5, "it is noticed")
