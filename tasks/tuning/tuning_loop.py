"""The tuning itself: it asks for points, has them tried, judges what comes, and decides its end.

One thread decides everything, and every fact about a trial is in the catalogue before anything is
done because of it. So a tuning that was killed at any moment goes on where it was: what its
attempts decide depends on the rows, the seed and the trials' reports alone.

A signal can raise an exception in that thread anywhere. So an event is done with only when all of
its effects are there; one that was interrupted is handled again before the end.
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
from tasks.trials.base import Began, Event, Finished, Launcher, Observed
from tuning import objectives
from tuning.completion import TuningLimits, TuningOutcome, decide
from tuning.early_stopping import StoppingRule
from tuning.objectives import Constraint, Objective
from tuning.space import Point
from tuning.trials import ACTIVE, Trial, TrialState

_TICK_SECONDS = 0.25
_MOST_LOSSES = 2
_LONGEST_REASON = 1000
_KILLED_TWICE = "What ran it was killed, twice."


class Interruption(StrEnum):
    """What ends a tuning from outside."""

    STOPPED = "Stopped"
    TIMED_OUT = "TimedOut"


class Asking(Protocol):
    """What a tuning needs of a search; :class:`tuning.search.Search` is one."""

    def ask(self, number: int) -> Point | None:
        """The point of the trial ``number``; None if there is none left."""

    def tell(self, trial: Trial) -> None:
        """Learn from a trial that has ended."""

    def pending(self, trial: Trial) -> None:
        """Know of a trial of an earlier attempt that goes on."""


@dataclass(frozen=True)
class Plan:
    """What a tuning wants.

    Attributes:
        objectives: What is sought.
        constraints: What must hold.
        limits: What may be used, asked again whenever it matters: it can be changed.
        rule: What stops hopeless trials; None for nothing.
        stop_running: Whether the trials that still run are stopped once the ending is decided.
    """

    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    limits: Callable[[], TuningLimits]
    rule: StoppingRule | None = None
    stop_running: bool = True


@dataclass
class _Watched:
    """What is known of a trial that goes on.

    Attributes:
        observed: The values of each metric that is waited for, in order.
        hopeless: Whether the rule has stopped it.
    """

    observed: dict[str, list[float]] = field(default_factory=dict)
    hopeless: bool = False


class Tuner:
    """Conducts a tuning; everything is done by the thread that calls :meth:`run`.

    Attributes:
        trials: Every trial so far, by its number; others may read it.
    """

    def __init__(
        self,
        plan: Plan,
        search: Asking,
        *,
        save: Callable[..., None],
        on_change: Callable[[Trial], object] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Conduct ``plan`` with the points of ``search``.

        Args:
            plan: What is wanted.
            search: Gives points.
            save: Keeps trials for good, before it returns.
            on_change: Told of every trial that has changed, after it was saved.
            now: The present time, in seconds since 1970.
        """
        self.trials: dict[int, Trial] = {}
        self._plan = plan
        self._search = search
        self._save = save
        self._on_change = on_change
        self._now = now
        self._told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._events: deque[Event] = deque()  # the first of them may have been begun with
        self._watched: dict[int, _Watched] = {}
        self._again: deque[Trial] = deque()
        self._counts: Counter[TrialState] = Counter()
        self._exhausted = False
        self._goal_reached = False

    def emit(self, event: Event) -> None:
        """What launchers tell their events; from any thread."""
        self._told.put(event)

    def restore(self, trials: Iterable[Trial]) -> None:
        """Go on from the trials of earlier attempts, in the order of their numbers.

        Those that ended by themselves stay as they are. The others are begun again, and resume
        from their checkpoints; one that died with the tuning for the second time has failed.
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
        """Try points until the tuning ends, and say how.

        Whatever ends this call, an exception in this thread too, stops every trial first.

        Args:
            launcher: Runs the trials; it tells :meth:`emit`. It is closed at the end.
            deadline: ``time.monotonic()`` at which the tuning is ended; None for never.
            stop_requested: Asked a few times a second whether it is to be ended.
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
            halt = _halt(deadline, stop_requested)
            if halt is not None:
                return halt
            limits = self._plan.limits()
            decision = decide(
                self._counts, limits, goal_reached=self._goal_reached, exhausted=self._exhausted
            )
            if decision.outcome is not None:
                return decision.outcome
            begun = self._begin_one(launcher, limits, decision.start)
            # The search can take its time: what has happened meanwhile comes before a next point.
            self._handle(launcher, wait=0 if begun else _TICK_SECONDS)

    def _until_idle(
        self, launcher: Launcher, deadline: float | None, stop_requested: Callable[[], bool]
    ) -> Interruption | None:
        """Let the trials that run come to their ends; what has cut that short, if anything."""
        while self._watched:
            halt = _halt(deadline, stop_requested)
            if halt is not None:
                return halt
            self._handle(launcher, wait=_TICK_SECONDS)
        return None

    def _stop_all(self, launcher: Launcher) -> None:
        for number in self._watched:
            launcher.stop(number)

    def _end(self, launcher: Launcher) -> None:
        """Stop what runs, and keep what became of it."""
        try:
            self._stop_all(launcher)
            until = time.monotonic() + launcher.patience
            while self._watched and time.monotonic() < until:
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
        """Begin a trial, one of an earlier attempt first; whether anything has changed."""
        if self._again:
            if len(self._watched) >= limits.parallel_trials:
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
            launcher.expect(len(self.trials))
        return True

    def _launch(self, launcher: Launcher, trial: Trial, *, again: bool = False) -> None:
        self._watched[trial.number] = _Watched()
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
        """Handle the events that there are, waiting for the first; whether there was any.

        After a trial's end it returns at once: another can begin, which comes first.
        """
        with contextlib.suppress(queue.Empty):
            if wait and not self._events:
                self._events.append(self._told.get(timeout=wait))
            while True:
                self._events.append(self._told.get_nowait())
        found = bool(self._events)
        while self._events:
            event = self._events[0]
            watched = self._watched.get(event.number)
            if watched is not None:  # its end may have been told without it
                self._handle_one(launcher, watched, event)
            self._events.popleft()
            if isinstance(event, Finished):
                break
        return found

    def _handle_one(self, launcher: Launcher, watched: _Watched, event: Event) -> None:
        match event:
            case Began():
                self._began(event)
            case Observed():
                self._observed(launcher, watched, event)
            case Finished():
                self._finished(launcher, watched, event)

    def _began(self, event: Began) -> None:
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

    def _observed(self, launcher: Launcher, watched: _Watched, event: Observed) -> None:
        if watched.hopeless:
            return  # what comes after the stop was decided does not count
        values = watched.observed.setdefault(event.metric, [])
        values.append(event.value)
        rule = self._plan.rule
        if rule is None or event.metric != self._plan.objectives[0].metric:
            return
        if rule.stops(event.number, values):
            watched.hopeless = True
            launcher.stop(event.number)

    def _finished(self, launcher: Launcher, watched: _Watched, event: Finished) -> None:
        trial = self.trials[event.number]
        if trial.state in ACTIVE:
            self._put(self._ended(trial, watched, event))
            self._learn(self.trials[event.number])
        launcher.conclude(self.trials[event.number])
        del self._watched[event.number]

    def _ended(self, trial: Trial, watched: _Watched, event: Finished) -> Trial:
        state, reason = self._final(watched, event)
        violations = objectives.violations(watched.observed, self._plan.constraints)
        if violations is None:  # not known to hold
            violations = (math.inf,) * len(self._plan.constraints)
        return replace(
            trial,
            state=state,
            reason=reason[:_LONGEST_REASON],
            ended=self._now(),
            reports=tuple(watched.observed.get(self._plan.objectives[0].metric, ())),
            values=objectives.values(watched.observed, self._plan.objectives),
            violations=violations,
        )

    def _final(self, watched: _Watched, event: Finished) -> tuple[TrialState, str]:
        """The state that a trial has ended in, and why."""
        if watched.hopeless:
            return TrialState.EARLY_STOPPED, ""
        if event.stopped:
            return TrialState.KILLED, ""
        if event.error is not None:
            return TrialState.FAILED, _reason(event.error)
        for one in (*self._plan.objectives, *self._plan.constraints):
            if not watched.observed.get(one.metric):
                return TrialState.METRICS_UNAVAILABLE, f"It reported no {one.metric}."
        if objectives.violations(watched.observed, self._plan.constraints) is None:
            return TrialState.METRICS_UNAVAILABLE, "A constrained metric was never finite."
        return TrialState.SUCCEEDED, ""

    def _learn(self, trial: Trial) -> None:
        """Let the search, the rule and the goal know of a trial that has ended."""
        self._search.tell(trial)
        if self._plan.rule is not None:
            self._plan.rule.ended(trial.number, trial.state, trial.reports)
        if objectives.reached(trial, self._plan.objectives):
            self._goal_reached = True


def _halt(deadline: float | None, stop_requested: Callable[[], bool]) -> Interruption | None:
    """What ends the tuning from outside now, if anything."""
    if stop_requested():
        return Interruption.STOPPED
    late = deadline is not None and time.monotonic() >= deadline
    return Interruption.TIMED_OUT if late else None


def _reason(error: ModelyardError) -> str:
    return f"{error.code}: {error.message}"
