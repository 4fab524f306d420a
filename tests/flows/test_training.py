"""The end of a training, which may be interrupted anywhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from flows import training
from flows.lifecycle import Execution
from infra import settings
from infra.home import Home
from infra.script import Ended, Ending
from tasks.training import Workplace
from tasks.training_request import Training

WELL = Ended(Ending.EXITED, 0, ())


class Interrupted(BaseException):
    """The process is gone."""


@pytest.fixture
def execution(home: Home) -> Execution:
    return Execution("run-id", "n", "me", 1, {}, home, settings.load())


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    made = Workplace(tmp_path / "run-id")
    made.model.mkdir(parents=True)
    (made.model / "weights").write_text("w")
    made.finished.touch()
    return made


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    monkeypatch.setattr(training, "_publish", lambda _, place, *__: found.append(place.model))
    return found


def _conclude(place: Workplace, execution: Execution) -> tuple[str, Any]:
    return training._conclude(WELL, Training(), place, execution, "m")


def test_a_script_that_has_ended_well_is_not_run_again_whenever_its_run_is_killed(
    place: Workplace, execution: Execution, published: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: str) -> Any:
        raise Interrupted

    monkeypatch.setattr(training.tracking, "result", killed)
    with pytest.raises(Interrupted):
        _conclude(place, execution)
    assert place.finished.exists()

    found = {"mlflow_run_id": "m", "model_uri": "models:/n/1", "metrics": {}}
    monkeypatch.setattr(training.tracking, "result", lambda _: found)
    status, state = _conclude(place, execution)

    assert (status, state.message) == ("FINISHED", "Model: models:/n/1")
    assert published == [place.model]  # once
    assert place.finished.exists()
    assert not place.model.exists()


def test_what_could_not_be_published_waits(
    place: Workplace, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(training, "_publish", refuse)
    with pytest.raises(OSError, match="no room"):
        _conclude(place, execution)

    assert place.waits
    place.clear()
    assert (place.model / "weights").exists()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_retry_prepares_nothing_for_a_script_that_has_ended_well(
    execution: Execution, published: list[Path], monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    own = Workplace(execution.home.runs / execution.flow_run_id)
    own.root.mkdir(parents=True)
    own.finished.touch()
    execution.attempt = attempt
    prepared: list[str] = []

    def prepare(*_: Any) -> Any:
        prepared.append("prepared")
        raise Interrupted

    monkeypatch.setattr(training, "_prepare", prepare)
    monkeypatch.setattr(training, "_open", lambda *_: training.Tracked("m", "url", {}))
    monkeypatch.setattr(training.tracking, "close_run", lambda *_: None)
    found = {"mlflow_run_id": "m", "model_uri": None, "metrics": {}}
    monkeypatch.setattr(training.tracking, "result", lambda _: found)
    monkeypatch.setattr(training.training_request, "resolved", lambda request: request)
    monkeypatch.setattr(training, "get_run_logger", lambda: logging.getLogger("training"))
    if attempt == 1:
        with pytest.raises(Interrupted):
            training._train(execution, Training())
    else:
        assert training._train(execution, Training()).message == "Model: none"

    assert prepared == ["prepared"] * (2 - attempt)
