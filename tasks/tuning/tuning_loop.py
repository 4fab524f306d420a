"""The loop of a tuning: it asks for points, launches trials, handles their events, and ends.

One thread decides everything, and each fact about a trial is written to the catalogue before it
has any effect. So a tuning that was killed at any moment resumes where it was: its decisions
depend on the rows, the seed and the trials' reports alone.

A signal can raise an exception in that thread anywhere. So an event is removed from the queue only
after all of its effects; an interrupted one is handled again before the end.
"""

from __future__ import annotations

import contextlib
import math
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from infra.errors import ModelyardError
from tasks.trials.base import Launcher, MetricReported, TrialEnded, TrialEvent, TrialStarted
from tuning import objectives
from tuning.completion import TuningLimits, TuningOutcome, decide
from tuning.early_stopping import StoppingRule
from tuning.objectives import Constraint, Objective
from tuning.space import Point
from tuning.trials import ACTIVE, Trial, TrialState

_TICK_SECONDS = 0.25
_MOST_LOSSES = 2
_LONGEST_REASON = 1000
_KILLED_TWICE = "Its process was killed twice."


class Interruption(StrEnum):
    """Interruption of a tuning from outside."""

    STOPPED = "Stopped"
    TIMED_OUT = "TimedOut"


class PointSource(Protocol):
    """Source of points, as :class:`tuning.search.Search` implements it."""

    def ask(self, number: int) -> Point | None:
        """Return the point of the trial ``number``; None if no point is left."""

    def tell(self, trial: Trial) -> None:
        """Learn from a trial that has ended."""

    def pending(self, trial: Trial) -> None:
        """Register a trial of an earlier attempt that is resumed."""


@dataclass(frozen=True)
class TuningPlan:
    """Objectives and limits of a tuning.

    Attributes:
        objectives: Metrics to optimize.
        constraints: Bounds of other metrics.
        limits: Returns the current limits, which can change while the tuning runs.
        rule: Early-stopping rule; None for none.
        stop_running: Whether running trials are stopped once the end is decided.
    """

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    limits: Callable[[], TuningLimits]
    rule: StoppingRule | None = None
    stop_running: bool = True


@dataclass
class _ActiveTrial:
    """State of an active trial.

    Attributes:
        observed: Values of each reported metric, in order.
        pruned: Whether the early-stopping rule has stopped it.
    """

    observed: dict[str, list[float]] = field(default_factory=dict)
    pruned: bool = False


class Tuner:
    """Runs a tuning, in the thread that calls :meth:`run`.

    Attributes:
        trials: All trials so far, by number; other threads may read it.
    """

    def __init__(
        self,
        plan: TuningPlan,
        search: PointSource,
        *,
        save: Callable[..., None],
        on_change: Callable[[Trial], object] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a tuning.

        Args:
            plan: Its objectives and limits.
            search: Source of its points.
            save: Writes trials durably before it returns.
            on_change: Called with each changed trial, after it was saved.
            now: Returns the current time, in seconds since 1970.
        """
        self.trials: dict[int, Trial] = {}
        self._plan = plan
        self._search = search
        self._save = save
        self._on_change = on_change
        self._now = now
        self._inbox: queue.SimpleQueue[TrialEvent] = queue.SimpleQueue()
        self._events: deque[TrialEvent] = deque()  # the first may be partly handled
        self._active: dict[int, _ActiveTrial] = {}
        self._again: deque[Trial] = deque()
        self._counts: Counter[TrialState] = Counter()
        self._exhausted = False
        self._goal_reached = False

    def emit(self, event: TrialEvent) -> None:
        """Queue an event of a launcher; thread-safe."""
        self._inbox.put(event)

    def restore(self, trials: Iterable[Trial]) -> None:
        """Restore the trials of earlier attempts, in the order of their numbers.

        Ended trials stay as they are. The others are launched again, and resume from their
        checkpoints; a trial that was killed with the tuning twice fails.
        """
        for trial in trials:
            lost = trial.state is TrialState.RUNNING and not trial.flow_run_id
            losses = trial.losses + lost
            if lost and losses >= _MOST_LOSSES:
                self._put(
                    replace(
                        trial, state=TrialState.FAILED, reason=_KILLED_TWICE, losses=losses,
                        ended=self._now(),
                    )
                )  # fmt: skip
                self._learn(self.trials[trial.number])
            elif trial.state in ACTIVE or trial.state is TrialState.KILLED:
                again = replace(
                    trial, state=TrialState.CREATED, reason="", losses=losses, ended=None,
                    reports=(), values=None, violations=(),
                )  # fmt: skip
                self._put(again)
                self._search.pending(again)
                self._again.append(again)
            else:
                self._know(trial)
                self._learn(trial)

    def run(
        self, launcher: Launcher, *, deadline: float | None, stop_requested: Callable[[], bool]
    ) -> TuningOutcome | Interruption:
        """Run trials until the tuning ends; how it ended.

        All trials are stopped before this returns or raises.

        Args:
            launcher: Runs the trials and calls :meth:`emit`. It is closed at the end.
            deadline: ``time.monotonic()`` of the time limit; None without a limit.
            stop_requested: Polled a few times a second; true stops the tuning.
        """
        try:
            launcher.settle(self.trials.values())
            ended = self._until_decided(launcher, deadline, stop_requested)
            if isinstance(ended, TuningOutcome):
                if self._plan.stop_running:
                    self._stop_all(launcher)
                cut = self._until_idle(launcher, deadline, stop_requested)
                return ended if self._plan.stop_running else cut or ended
            return ended
        finally:
            self._end(launcher)

    def _until_decided(
        self, launcher: Launcher, deadline: float | None, stop_requested: Callable[[], bool]
    ) -> TuningOutcome | Interruption:
        while True:
            interruption = _interruption(deadline, stop_requested)
            if interruption is not None:
                return interruption
            limits = self._plan.limits()
            decision = decide(
                self._counts, limits, goal_reached=self._goal_reached, exhausted=self._exhausted
            )
            if decision.outcome is not None:
                return decision.outcome
            begun = self._begin_one(launcher, limits, decision.start)
            # The search can be slow, so events are handled before the next point is asked for.
            self._handle(launcher, wait=0 if begun else _TICK_SECONDS)

    def _until_idle(
        self, launcher: Launcher, deadline: float | None, stop_requested: Callable[[], bool]
    ) -> Interruption | None:
        """Wait for the ends of active trials; the interruption of the wait, if any."""
        while self._active:
            interruption = _interruption(deadline, stop_requested)
            if interruption is not None:
                return interruption
            self._handle(launcher, wait=_TICK_SECONDS)
        return None

    def _stop_all(self, launcher: Launcher) -> None:
        for number in self._active:
            launcher.stop(number)

    def _end(self, launcher: Launcher) -> None:
        """Stop the active trials, and save their ends."""
        try:
            self._stop_all(launcher)
            until = time.monotonic() + launcher.stop_timeout_seconds
            while self._active and time.monotonic() < until:
                self._handle(launcher, wait=_TICK_SECONDS)
        finally:
            launcher.close()
        while self._handle(launcher, wait=0):
            pass
        for number in [trial.number for trial in self._again]:
            if self.trials[number].state in ACTIVE:
                killed = replace(self.trials[number], state=TrialState.KILLED, ended=self._now())
                self._put(killed)

    def _begin_one(self, launcher: Launcher, limits: TuningLimits, count: int) -> bool:
        """Launch one trial, those of earlier attempts first; whether anything has changed."""
        if self._again:
            if len(self._active) >= limits.parallel_trials:
                return False
            self._launch(launcher, self._again[0], again=True)
            self._again.popleft()
            return True
        if count == 0:
            return False
        number = len(self.trials)
        point = self._search.ask(number)
        if point is None:
            self._exhausted = True
            return True
        trial = Trial(number, point, TrialState.CREATED, created=self._now())
        self._put(trial)
        self._launch(launcher, trial)
        if limits.max_trials is None or len(self.trials) < limits.max_trials:
            launcher.prepare_next(len(self.trials))
        return True

    def _launch(self, launcher: Launcher, trial: Trial, *, again: bool = False) -> None:
        self._active[trial.number] = _ActiveTrial()
        launcher.launch(trial, again=again)

    def _put(self, trial: Trial) -> None:
        self._save(trial)
        self._know(trial)
        self._on_change(trial)

    def _know(self, trial: Trial) -> None:
        before = self.trials.get(trial.number)
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[trial.state] += 1
        self.trials[trial.number] = trial

    def _handle(self, launcher: Launcher, wait: float) -> bool:
        """Handle the queued events, waiting for the first; whether there was any.

        It returns after the end of a trial, so that the next trial can start at once.
        """
        with contextlib.suppress(queue.Empty):
            if wait and not self._events:
                self._events.append(self._inbox.get(timeout=wait))
            while True:
                self._events.append(self._inbox.get_nowait())
        found = bool(self._events)
        while self._events:
            event = self._events[0]
            active = self._active.get(event.number)
            if active is not None:  # None for an event after the trial's end
                self._handle_one(launcher, active, event)
            self._events.popleft()
            if isinstance(event, TrialEnded):
                break
        return found

    def _handle_one(self, launcher: Launcher, active: _ActiveTrial, event: TrialEvent) -> None:
        match event:
            case TrialStarted():
                self._began(event)
            case MetricReported():
                self._observed(launcher, active, event)
            case TrialEnded():
                self._finished(launcher, active, event)

    def _began(self, event: TrialStarted) -> None:
        trial = self.trials[event.number]
        once_more = trial.attempts + (trial.started is not None)
        self._put(
            replace(
                trial,
                state=TrialState.RUNNING,
                started=trial.started or self._now(),
                attempts=event.attempts or once_more,
                mlflow_run_id=event.mlflow_run_id,
                flow_run_id=event.flow_run_id,
            )
        )

    def _observed(self, launcher: Launcher, active: _ActiveTrial, event: MetricReported) -> None:
        if active.pruned:
            return  # values after the decision to stop do not count
        values = active.observed.setdefault(event.metric, [])
        values.append(event.value)
        rule = self._plan.rule
        if rule is None or event.metric != self._plan.objectives[0].metric:
            return
        if rule.stops(event.number, values):
            active.pruned = True
            launcher.stop(event.number)

    def _finished(self, launcher: Launcher, active: _ActiveTrial, event: TrialEnded) -> None:
        trial = self.trials[event.number]
        if trial.state in ACTIVE:
            self._put(self._ended(trial, active, event))
            self._learn(self.trials[event.number])
        launcher.conclude(self.trials[event.number])
        del self._active[event.number]

    def _ended(self, trial: Trial, active: _ActiveTrial, event: TrialEnded) -> Trial:
        state, reason = self._final(active, event)
        violations = objectives.violations(active.observed, self._plan.constraints)
        if violations is None:  # a constrained metric is unknown
            violations = (math.inf,) * len(self._plan.constraints)
        return replace(
            trial,
            state=state,
            reason=reason[:_LONGEST_REASON],
            ended=self._now(),
            reports=tuple(active.observed.get(self._plan.objectives[0].metric, ())),
            values=objectives.values(active.observed, self._plan.objectives),
            violations=violations,
        )

    def _final(self, active: _ActiveTrial, event: TrialEnded) -> tuple[TrialState, str]:
        """Final state of a trial, and the reason."""
        if active.pruned:
            return TrialState.EARLY_STOPPED, ""
        if event.stopped:
            return TrialState.KILLED, ""
        if event.error is not None:
            return TrialState.FAILED, _reason(event.error)
        for one in (*self._plan.objectives, *self._plan.constraints):
            reports = active.observed.get(one.metric, ())
            if not any(map(math.isfinite, reports)):
                finite = "finite " if reports else ""
                return TrialState.METRICS_UNAVAILABLE, f"It reported no {finite}{one.metric}."
        return TrialState.SUCCEEDED, ""

    def _learn(self, trial: Trial) -> None:
        """Update the search, the early-stopping rule and the goal with an ended trial."""
        self._search.tell(trial)
        if self._plan.rule is not None:
            self._plan.rule.ended(trial.number, trial.state, trial.reports)
        if objectives.reached(trial, self._plan.objectives):
            self._goal_reached = True


def _interruption(
    deadline: float | None, stop_requested: Callable[[], bool]
) -> Interruption | None:
    """The interruption of the tuning that applies now, if any."""
    if stop_requested():
        return Interruption.STOPPED
    late = deadline is not None and time.monotonic() >= deadline
    return Interruption.TIMED_OUT if late else None


def _reason(error: ModelyardError) -> str:
    return f"{error.code}: {error.message}"
