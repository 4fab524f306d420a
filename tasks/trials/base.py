"""What every way to run trials has in common."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass

from infra.errors import ModelyardError
from infra.home import Home
from infra.settings import Settings
from registry.tracking import Tracked
from tasks.training.training_request import Training
from tasks.workplace import Workplace
from tuning.trials import Trial


@dataclass(frozen=True)
class Began:
    """A trial's script has begun to run.

    Attributes:
        number: The trial's number.
        mlflow_run_id: Its MLflow run.
        flow_run_id: Its own flow run, if it has one.
        attempts: How often it was begun, where that is known; else this is once more.
    """

    number: int
    mlflow_run_id: str
    flow_run_id: str | None = None
    attempts: int | None = None


@dataclass(frozen=True)
class Observed:
    """A trial has reported a value of a metric that somebody waits for.

    Attributes:
        number: The trial's number.
        metric: The metric's name.
        value: Its value, which may be no finite number.
    """

    number: int
    metric: str
    value: float


@dataclass(frozen=True)
class Finished:
    """A trial has ended, and nothing of it runs any more.

    Attributes:
        number: The trial's number.
        error: Why it failed; None if it ended well, or was stopped.
        stopped: Whether it was stopped.
    """

    number: int
    error: ModelyardError | None = None
    stopped: bool = False


Event = Began | Observed | Finished


@dataclass(frozen=True)
class Setting:
    """What all trials of a tuning have in common.

    Attributes:
        training: The training that each of them is, but for its parameters.
        tuning: The tuning's flow run.
        name: What the tuning is called.
        parent: Its MLflow run.
        metrics: The metrics that somebody waits for.
        home: Where they work.
        settings: The settings.
        logger: The tuning's log.
        parallel: How many trials are to run at once.
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

    def place(self, number: int) -> Workplace:
        """A trial's folders."""
        return Workplace(self.home.runs / self.tuning / "trials" / str(number))


class Launcher(abc.ABC):
    """Runs trials, and puts what happens to them into a queue.

    The contract, which ``tests/tasks/trials/contract.py`` checks of every implementation:

    - Every trial that was launched ends in one :class:`Finished`, whatever becomes of it. When it
      comes, nothing of the trial runs any more, except where that cannot be waited for.
    - The events of one trial come in order: its :class:`Began`, what it has :class:`Observed`, in
      the order in which it was reported, then its end. What earlier attempts of the tuning have
      observed comes first, and nothing comes twice. A trial whose script never began may end
      without the others; one that was begun once more tells it by a further ``Began``.
    - A trial that was launched before, by an attempt of the tuning that was killed, goes on where
      it was; one whose script has ended well since is not begun again.
    - No method waits for a script, nor for another service, but :meth:`close`.

    Attributes:
        patience: How many seconds after :meth:`stop` a trial's end is waited for.
    """

    patience: float

    @abc.abstractmethod
    def launch(self, trial: Trial, *, again: bool = False) -> None:
        """Begin ``trial``; or go on with it, where an earlier attempt may have begun it."""

    def expect(self, number: int) -> None:  # noqa: B027 (a launcher may have nothing to prepare)
        """Prepare for a trial that is likely to be launched next."""

    @abc.abstractmethod
    def stop(self, number: int) -> None:
        """Ask for the end of a trial, which has ended when :class:`Finished` says so."""

    @abc.abstractmethod
    def conclude(self, trial: Trial) -> None:
        """Write down what became of a trial that has ended, whose row says so."""

    @abc.abstractmethod
    def settle(self, trials: Iterable[Trial]) -> None:
        """Know of all trials of earlier attempts; conclude those of which that was not done."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop the trials that still run, wait for their ends, and write down what is left.

        It takes a bounded time, whoever does not answer. A trial whose end does not come has its
        ``Finished`` then too. A second call does nothing.
        """
