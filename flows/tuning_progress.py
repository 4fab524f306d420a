"""Progress of a tuning: a table and a bar in Prefect, metrics and plots in MLflow."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_run_logger

from flows import artifacts
from flows.run_context import RunContext
from infra.prefect_client import prefect_client
from registry import tracking
from registry.mlflow_writer import MlflowWriter
from registry.tracking import Tracked
from registry.tunings import tunings
from tasks.tuning.tuning_request import Tuning
from tuning import objectives, space
from tuning.completion import TuningLimits, TuningOutcome
from tuning.objectives import Objective
from tuning.plots import plots
from tuning.space import Value
from tuning.trials import ACTIVE, FAILURES, OBSERVED, Trial, TrialState

_REFRESH_SECONDS = 3.0
_PLOT_SECONDS = 30.0
_METRICS_SECONDS = 30.0
_LAST_REFRESH_SECONDS = 30.0
_SHOWN_TRIALS = 100
_NAMED = 3  # of the best trials, in a description

# Ends of a trial that are logged; of successful trials only each new best is.
_WORDS = {
    TrialState.EARLY_STOPPED: "was stopped early",
    TrialState.FAILED: "failed",
    TrialState.METRICS_UNAVAILABLE: "reported no value",
}


class TuningProgress:
    """Progress of a tuning, which a thread renders at an interval."""

    def __init__(
        self,
        context: RunContext,
        request: Tuning,
        tracked: Tracked,
        limits: Callable[[], TuningLimits],
    ) -> None:
        """Prepare the progress of a tuning.

        Args:
            context: Its run.
            request: The tuning.
            tracked: Its MLflow run.
            limits: Its current limits, read at each refresh.
        """
        self._request = request
        self._context = context
        self._tracked = tracked
        self._limits = limits
        self._ended: TuningOutcome | None = None
        self._logger = get_run_logger()
        self._trials: dict[int, Trial] = {}
        self._counts: Counter[TrialState] = Counter()
        self._best_trial: Trial | None = None
        self._best: tuple[int, ...] = ()
        self._changed = threading.Event()
        self._lock = threading.Lock()
        self._writer = MlflowWriter(self._logger.warning, flush_seconds=_REFRESH_SECONDS)
        self._writer.track(tracked)
        self._table: UUID | None = None
        self._bar: UUID | None = None

    def restored(self, trials: Iterable[Trial]) -> None:
        """Add the trials of earlier attempts, which were logged then."""
        for trial in trials:
            self._take(trial)
        self._changed.set()

    def changed(self, trial: Trial) -> None:
        """Show a changed trial."""
        self._take(trial)
        if trial.state not in ACTIVE:
            self._record(trial)
        self._changed.set()

    def _take(self, trial: Trial) -> None:
        with self._lock:
            before = self._trials.get(trial.number)
            self._trials[trial.number] = trial
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[trial.state] += 1
        known = [one for one in (self._best_trial, trial) if one is not None]
        self._best_trial = objectives.best(known, self._request.objective)

    def ended(self, ending: object) -> None:
        """Show the tuning's end; an interruption leaves the bar as it is."""
        self._ended = ending if isinstance(ending, TuningOutcome) else None

    def _record(self, ended: Trial) -> None:
        """Log the counts and the best value so far as metrics, and notable ends as lines."""
        if ended.state in _WORDS:
            why = f" ({ended.reason})" if ended.reason else ""
            self._logger.info(
                "Trial %d %s%s: %s", ended.number, _WORDS[ended.state], why, _point(ended)
            )
        step = sum(count for state, count in self._counts.items() if state not in ACTIVE)
        for name, states in (("done", OBSERVED), ("failed", FAILURES)):
            count = sum(self._counts[state] for state in states)
            self._writer.log_metric(self._tracked.run_id, f"trials {name}", count, step)
        best = self._best_trial  # None with several objectives
        if best is not None and best.values is not None:
            metric = self._request.objective[0].metric
            self._writer.log_metric(self._tracked.run_id, f"best {metric}", best.values[0], step)
            if best.number == ended.number:
                self._logger.info(
                    "Trial %d is the best so far with %s = %g: %s",
                    best.number, metric, best.values[0], _point(best),
                )  # fmt: skip

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Update the progress at an interval while the context is open, and at its end."""
        self._make()
        done = threading.Event()

        def refresh() -> None:
            plotted = time.monotonic()
            while not done.wait(_REFRESH_SECONDS):
                if not self._changed.is_set():
                    continue
                self._changed.clear()
                try:
                    self._refresh()
                except Exception as error:  # noqa: BLE001 (the edge of the loop; drawn again)
                    self._logger.debug("The progress could not be shown: %s", error)
                if time.monotonic() - plotted > _PLOT_SECONDS:
                    plotted = time.monotonic()
                    self._plot()

        thread = threading.Thread(target=refresh, daemon=True, name="progress")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_LAST_REFRESH_SECONDS)
            self._last()

    def _last(self) -> None:
        """Show the end. Only the mark of the best trials, which the result needs, must succeed."""
        self._mark(self._known())
        try:
            self._refresh()
        except Exception as error:  # noqa: BLE001 (no tuning fails because of a table)
            self._logger.warning("The end of the tuning could not be shown: %s", error)
        self._plot()

    def close(self) -> None:
        """Send the remaining metrics."""
        self._writer.close(_METRICS_SECONDS)

    def _make(self) -> None:
        description = self._description(self._known())
        run = self._context.flow_run_id
        table = artifacts.find(run, "trials") or create_table_artifact(
            key="trials", table=[], description=description
        )
        bar = artifacts.find(run, "progress") or create_progress_artifact(
            progress=0.0, key="progress", description=description
        )
        # Prefect's types include the coroutine that is returned in async code.
        assert isinstance(table, UUID)
        assert isinstance(bar, UUID)
        self._table, self._bar = table, bar

    def _known(self) -> list[Trial]:
        with self._lock:
            return [self._trials[number] for number in sorted(self._trials)]

    def _mark(self, trials: list[Trial]) -> None:
        """Tag the MLflow run with the best trials."""
        best = self._best_of(trials)
        if best != self._best:
            tunings.mark_best(self._tracked.run_id, best)
            self._best = best

    def _refresh(self) -> None:
        trials = self._known()
        self._mark(trials)
        description = self._description(trials)
        table = ArtifactUpdate(
            data=_rows(trials, self._request.objective), description=description
        )
        bar = ArtifactUpdate(data=self._percent(trials), description=description)
        with prefect_client() as client:
            if self._table:
                client.update_artifact(self._table, table)
            if self._bar:
                client.update_artifact(self._bar, bar)

    def _best_of(self, trials: list[Trial]) -> tuple[int, ...]:
        wanted = self._request.objective
        if len(wanted) > 1:
            return tuple(trial.number for trial in objectives.front(trials, wanted))
        best = objectives.best(trials, wanted)
        return () if best is None else (best.number,)

    def _plot(self) -> None:
        try:
            drawn = plots(
                self._known(),
                self._request.parameters,
                [one.metric for one in self._request.objective],
                [one.direction for one in self._request.objective],
            )
            if drawn:
                own = self._context.home.runs / self._context.flow_run_id
                with tempfile.TemporaryDirectory(dir=own) as folder:
                    for name, data in drawn.items():
                        Path(folder, name).write_bytes(data)
                    tracking.client().log_artifacts(self._tracked.run_id, folder, "plots")
        except Exception as error:  # noqa: BLE001 (no tuning fails because of a plot)
            self._logger.warning("The plots could not be drawn: %s", error)

    def _most(self) -> int | None:
        """Upper bound of the number of trials; None if there is none."""
        request = self._request
        size = (
            len(space.Grid(request.parameters))
            if request.strategy == "grid"
            else space.size(request.parameters)
        )
        known = [one for one in (self._limits().max_trials, size) if one is not None]
        return min(known, default=None)

    def _percent(self, trials: list[Trial]) -> float:
        if self._ended is not None and self._ended is not TuningOutcome.FAILED:
            return 100.0
        most = self._most()
        done = sum(trial.state not in ACTIVE for trial in trials)
        return min(100.0, 100.0 * done / most) if most else 0.0

    def _description(self, trials: list[Trial]) -> str:
        """Counts, the best trials so far, and the end or the time left, in one line."""
        counts = Counter(trial.state.value for trial in trials)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        most = self._most()
        done = sum(trial.state not in ACTIVE for trial in trials)
        of = f" of {most}" if most and most <= space.LARGEST_GRID else ""
        words = [f"{done}{of} trials done{': ' if states else ''}{states}."]
        best = self._best_of(trials)
        if best:
            by_number = {trial.number: trial for trial in trials}
            named = "; ".join(self._describe(by_number[number]) for number in best[:_NAMED])
            more = f", and {len(best) - _NAMED} more" if len(best) > _NAMED else ""
            words.append(f"Best: {named}{more}.")
        left = self._seconds_left(trials, most)
        if self._ended is not None:
            words.append(f"Ended: {self._ended.value}.")
        elif left is not None and done < len(trials):
            words.append(f"About {_time(left)} left.")
        return " ".join(words)

    def _describe(self, trial: Trial) -> str:
        metrics = (one.metric for one in self._request.objective)
        pairs = zip(metrics, trial.values or (), strict=False)
        values = ", ".join(f"{metric} = {value:g}" for metric, value in pairs)
        return f"trial {trial.number} with {values} ({_point(trial)})"

    def _seconds_left(self, trials: list[Trial], most: int | None) -> float | None:
        """Estimate the remaining time from the duration of trials and the time limit."""
        limit = self._request.max_minutes
        spent = time.monotonic() - self._context.began
        known = [] if limit is None else [limit * 60 - spent]
        # The median, because restarted trials took longer than their scripts.
        taken = [one.ended - one.started for one in trials if one.ended and one.started]
        if taken and most:
            rest = most - sum(trial.state not in ACTIVE for trial in trials)
            rounds = math.ceil(rest / self._limits().parallel_trials)
            known.append(rounds * statistics.median(taken))
        return max(0.0, min(known)) if known else None


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _point(trial: Trial) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in trial.parameters.items())


def _short(value: Value) -> Value:
    """Round a value for display; MLflow and the result have all digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _rows(trials: list[Trial], wanted: Sequence[Objective]) -> str:
    """Rows of the table: the best trials first, then those without a value, newest first."""
    sign = 1 if wanted[0].direction == "minimize" else -1

    def place(trial: Trial) -> tuple[int, float]:
        value = trial.values
        return (1, -trial.number) if value is None else (0, sign * value[0])

    shown = sorted(trials, key=place)[:_SHOWN_TRIALS]
    reasons = any(trial.reason for trial in shown)
    return json.dumps([_row(trial, wanted, reasons=reasons) for trial in shown])


def _row(trial: Trial, wanted: Sequence[Objective], *, reasons: bool) -> dict[str, Any]:
    seconds = (trial.ended or time.time()) - trial.started if trial.started else None
    own = {"trial", "state", "seconds", "reason"}
    row: dict[str, Any] = {"trial": trial.number, "state": trial.state.value}
    for place, one in enumerate(wanted):
        value = None if trial.values is None else _short(trial.values[place])
        row[f"{one.metric} (metric)" if one.metric in own else one.metric] = value
    for name, value in trial.parameters.items():
        # A hyperparameter may have the name of a metric, such as loss, or of another column.
        row[f"{name} (parameter)" if name in row or name in own else name] = _short(value)
    row["seconds"] = None if seconds is None else round(seconds, 1)
    return {**row, "reason": trial.reason} if reasons else row
