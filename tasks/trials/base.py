"""Interface of the launchers of a tuning's trials, and the events that they report."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from infra.errors import ModelyardError
from infra.home import Home
from infra.settings import Settings
from infra.workloads.process_group import UNOBSERVED, ProcessObserver
from infra.workloads.usage_monitor import Report
from registry.tracking import Tracked
from tasks.run_directory import RunDirectory
from tasks.training.training_request import Training
from tuning.trials import Trial


def unobserved(_: Report) -> ProcessObserver:
    """Observe no processes."""
    return UNOBSERVED


@dataclass(frozen=True)
class TrialStarted:
    """A trial's script has started.

    Attributes:
        number: Number of the trial.
        mlflow_run_id: Its MLflow run.
        flow_run_id: Its flow run; None for an inline trial.
        attempts: How often it was started; None to count one more.
    """

    number: int
    mlflow_run_id: str
    flow_run_id: str | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class MetricReported:
    """A trial has reported a value of an objective or a constraint.

    Attributes:
        number: Number of the trial.
        metric: Name of the metric.
        value: Its value, which may be infinite or NaN.
    """

    number: int
    metric: str
    value: float


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, and none of its processes run any more.

    Attributes:
        number: Number of the trial.
        error: The error that it failed with; None if it succeeded or was stopped.
        stopped: Whether it was stopped.
    """

    number: int
    error: ModelyardError | None = None
    stopped: bool = False


TrialEvent = TrialStarted | MetricReported | TrialEnded


@dataclass(frozen=True)
class TrialContext:
    """Context that all trials of a tuning share.

    Attributes:
        training: Training of each trial, without its parameters.
        tuning: Flow run of the tuning.
        name: Name of the tuning.
        parent: MLflow run of the tuning.
        metrics: Metrics of the objectives and constraints, whose values are reported.
        home: Modelyard's home.
        settings: Modelyard's settings.
        logger: Logger of the tuning.
        parallel: Number of trials that run at once.
        observe: Returns the observer of an inline trial's processes, given what records its
            resource usage.
    """

    training: Training
    tuning: str
    name: str
    parent: Tracked
    metrics: Set[str]
    home: Home
    settings: Settings
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    parallel: int = 1
    observe: Callable[[Report], ProcessObserver] = unobserved

    def run_dir(self, number: int) -> RunDirectory:
        """Folders of an inline trial."""
        return RunDirectory(self.home.runs / self.tuning / "trials" / str(number))


class Launcher(abc.ABC):
    """Runs trials, and emits their events.

    The contract, which ``tests/tasks/trials/contract.py`` checks for every implementation:

    - Every launched trial ends with exactly one :class:`TrialEnded`. Its processes have ended by
      then, unless their end cannot be waited for.
    - Events of one trial are in order: :class:`TrialStarted`, each :class:`MetricReported` in the
      order of the reports, then its end. Reports of earlier attempts of the tuning come first, and
      none comes twice. A trial whose script never started may end without other events; a
      restarted one emits another ``TrialStarted``.
    - A trial that a killed attempt of the tuning has launched is resumed; if its script has
      succeeded since, it is not started again.
    - No method but :meth:`close` waits for a script or for another service.

    Attributes:
        stop_timeout_seconds: How long after :meth:`stop` the end of a trial is waited for.
    """

    stop_timeout_seconds: float

    @abc.abstractmethod
    def launch(self, trial: Trial, *, again: bool = False) -> None:
        """Start ``trial``; ``again``: resume it if an earlier attempt has started it."""

    def prepare_next(self, number: int) -> None:  # noqa: B027 (a launcher may have nothing to prepare)
        """Prepare for the trial that is probably launched next."""

    @abc.abstractmethod
    def stop(self, number: int) -> None:
        """Request the end of a trial, which :class:`TrialEnded` reports."""

    @abc.abstractmethod
    def conclude(self, trial: Trial) -> None:
        """Record the end of a trial in MLflow, after its row was written."""

    @abc.abstractmethod
    def settle(self, trials: Iterable[Trial]) -> None:
        """Conclude the trials of earlier attempts that have ended, if that was not done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop the running trials, wait for their ends, and write pending records.

        It takes a bounded time even if services do not answer. A trial that does not end in time
        gets its ``TrialEnded`` anyway. A second call does nothing.
        """
