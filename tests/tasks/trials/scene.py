"""A tuning whose trials are launched by a test."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.home import Home
from infra.settings import Settings
from registry import tracking
from registry.tracking import Tracked
from tasks.trials.base import Launcher, TrialContext, TrialEnded, TrialEvent
from tasks.tuning.tuning_request import Tuning
from tests.processes import PATIENCE_SECONDS, eventually
from tuning.trials import Trial, TrialState


class Warnings(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@dataclass
class Scene:
    """A tuning, and the events of its trials."""

    home: Home
    settings: Settings
    tuning: str
    name: str
    parent: Tracked
    algorithm: Path
    scratch: Path
    warnings: Warnings
    events: list[TrialEvent] = field(default_factory=list)
    launcher: Launcher | None = None

    def trial_context(self, **changes: Any) -> TrialContext:
        training = {
            "algorithm": {"uri": str(self.algorithm), "entry_point": "script.py"},
            "metrics": [{"name": "loss"}],
            **changes,
        }
        return TrialContext(
            training=Tuning(**training).training({}),
            tuning=self.tuning,
            name=self.name,
            parent=self.parent,
            metrics={"loss"},
            home=self.home,
            settings=self.settings,
            logger=logging.getLogger("tests.trials"),
        )

    def of(self, number: int) -> list[TrialEvent]:
        return [event for event in list(self.events) if event.number == number]

    def values(self, number: int) -> list[float]:
        return [event.value for event in self.of(number) if hasattr(event, "value")]

    def kinds(self, number: int) -> list[str]:
        return [type(event).__name__ for event in self.of(number)]

    def end(self, number: int, patience: float = PATIENCE_SECONDS) -> TrialEnded:
        """The end of a trial, once it is there."""
        ends = eventually(
            lambda: [one for one in self.of(number) if isinstance(one, TrialEnded)],
            f"trial {number} ends",
            patience,
        )
        assert len(ends) == 1
        return ends[0]

    def run_of(self, number: int) -> Any:
        """The MLflow run of a trial that has begun."""
        (began, *_) = [one for one in self.of(number) if hasattr(one, "mlflow_run_id")]
        return tracking.client().get_run(began.mlflow_run_id)

    def status(self, number: int) -> tuple[str, str | None]:
        """MLflow's status of a trial, and ours."""
        run = self.run_of(number)
        return run.info.status, run.data.tags.get(tracking.STATE_TAG)

    def begun(self, trial: Trial) -> Trial:
        """The trial as its row would be, now that it has begun."""
        (began, *_) = [one for one in self.of(trial.number) if hasattr(one, "mlflow_run_id")]
        return replace(
            trial, state=TrialState.RUNNING, started=1.0, mlflow_run_id=began.mlflow_run_id,
            flow_run_id=began.flow_run_id,
        )  # fmt: skip


def ended(row: Trial, state: str = "SUCCEEDED", **fields: Any) -> Trial:
    """The row of a trial that has ended."""
    return replace(row, state=TrialState(state), **fields)


def trial(number: int, **parameters: Any) -> Trial:
    """A trial that is new; its parameters tell the script what to do."""
    return Trial(number, {"x": float(number), **parameters}, TrialState.CREATED)


def our_threads() -> set[str]:
    """Names of the threads that launchers have."""
    ours = ("trial", "pushed metrics", "a trial", "trials in", "event files", "tidying")
    return {one.name for one in threading.enumerate() if one.name.startswith(ours)}
