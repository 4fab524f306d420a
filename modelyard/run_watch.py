"""Watch a run until its end: its states, its progress, its newest metrics, and its log."""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import typer

from infra import local_time
from modelyard import output
from modelyard.output import console
from registry.batch_inference_results import BatchInferenceResultView
from registry.evaluation_results import EvaluationSummaryView
from registry.pipelines.pipeline_views import PipelineResultView
from registry.runs import run_results, runs, statuses
from registry.runs.run_views import (
    ResultView,
    RunOutcomeView,
    RunResultView,
    RunStatusView,
    RunView,
)
from registry.tunings.tuning_views import TuningResultView
from tasks import run_logs

INTERRUPTED = 130
_POLL_SECONDS = 0.5
_LAST_LINES_SECONDS = 1.0
_POLLS_PER_PROGRESS = 10  # what it takes to find it grows with the run
_MOST_METRICS = 8
# What Prefect logs of the states of a run and of its steps, which are shown anyway.
_STATE_LINE = re.compile(
    "Worker '.*' submitting flow run '|Flow run '.*' submitted to infrastructure$"
    "|Beginning flow run '|Finished in state "
)
_LAST_LINES = 40  # more than the message of a failure repeats
_SHOWN = "(see above)"


class ShownLines:
    """The last lines of a log that were printed, which the message of an end repeats."""

    def __init__(self) -> None:
        """Begin without a line."""
        self._lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)

    def add(self, text: str) -> None:
        """Add what was printed: a line, or several."""
        self._lines.extend(text.splitlines())

    def without(self, message: str) -> str:
        """Return the message of an end without the lines that were printed."""
        lines = [_SHOWN if line in self._lines else line for line in message.splitlines()]
        kept = "\n".join(line for line, _ in itertools.groupby(lines))
        return kept.replace(f":\n{_SHOWN}", f": {_SHOWN}")


def print_started(found: RunStatusView, *, as_json_: bool) -> None:
    """Print a run that was just started, and how to watch it."""
    output.thing(found, as_json_=as_json_)
    if not as_json_:
        output.sentence(f"Watch it: {_watching(found.flow_run_id)}")


def _watching(run_id: str) -> str:
    return f"modelyard runs watch {run_id}"


@contextlib.contextmanager
def interruption_explained(run_id: str) -> Iterator[None]:
    """Say at Ctrl-C that the run continues, and exit with the status 130."""
    try:
        yield
    except KeyboardInterrupt:
        output.notice(
            f"The run continues. Watch it: {_watching(run_id)}\n"
            f"Its log: modelyard runs logs {run_id} -f\n"
            f"Stop it: modelyard runs stop {run_id}"
        )
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def state_logged_once() -> Iterator[ShownLines]:
    """Keep states, which the command prints, out of what Prefect prints of a call.

    Yields:
        The lines that are printed.
    """
    shown = ShownLines()

    def is_no_state(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        shown.add(text)
        return not _STATE_LINE.match(text)

    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(is_no_state)
    try:
        yield shown
    finally:
        for handler in handlers:
            handler.removeFilter(is_no_state)


def watch(run_id: str, *, quiet: bool, log: bool = True) -> RunOutcomeView:
    """Wait until a run has ended; return its outcome.

    Args:
        run_id: The run.
        quiet: Print nothing meanwhile.
        log: Print the lines of its log as well.

    Raises:
        NotFoundError: If the run is deleted.
        typer.Exit: At Ctrl-C.
    """
    report = _Report(run_id, log=log)
    with interruption_explained(run_id):
        for poll in itertools.count():
            found = next(iter(runs.with_ids([run_id])), None)
            if found is None:
                break
            if not quiet:
                report.update(found, with_progress=poll % _POLLS_PER_PROGRESS == 0)
            if found.is_final:
                break
            time.sleep(_POLL_SECONDS)
        outcome = RunOutcomeView.from_run(runs.show(run_id))
    return outcome.model_copy(update={"message": report.last.without(outcome.message)})


class _Report:
    """Prints what has changed since the last look at a run."""

    def __init__(self, run_id: str, *, log: bool) -> None:
        self._lines = run_logs.PrefectLines(run_id) if log else None
        self.last = ShownLines()
        self._word = ""
        self._state = ""
        self._progress = ""

    def update(self, found: RunView, *, with_progress: bool) -> None:
        """Print what is new; the state of a run whose work has ended after its last lines."""
        ends = found.is_final or statuses.is_concluding(found.state)
        if ends and found.state != self._word:
            if self._lines:
                time.sleep(_LAST_LINES_SECONDS)  # they arrive just after the state
            self._print_log()
        self._word = found.state
        self._print_state(found)
        self._print_log()
        if with_progress and not found.is_final:
            self._print_progress(run_results.result(found))

    def _print_state(self, found: RunView) -> None:
        detail = f" ({found.detail})" if found.detail else ""
        waiting = f": {found.waiting}" if found.waiting else ""
        state = f"{found.state}{detail}{waiting}"
        if state != self._state:
            self._state = state
            _print_event(state)

    def _print_log(self) -> None:
        for line in self._lines.new() if self._lines else ():
            if not _STATE_LINE.match(line):
                self.last.add(line)
                console.print(line, markup=False)

    def _print_progress(self, result: ResultView) -> None:
        progress = describe(result)
        if progress not in {"", self._progress}:
            self._progress = progress
            _print_event(progress)


def _print_event(text: str) -> None:
    now = local_time.local(datetime.now(UTC))
    console.print(f"{now}  {text}", markup=False, style="bold")


def describe(result: ResultView) -> str:
    """Describe how far a run is in a line: its metrics, or its trials or tasks by state."""
    if isinstance(result, TuningResultView):
        best = result.best and f"; best {_number(result.best.value)} (trial {result.best.number})"
        return _counts(trial.state for trial in result.trials) + (best or "")
    if isinstance(result, PipelineResultView):
        return _counts(task.state for task in result.tasks)
    if isinstance(result, BatchInferenceResultView):
        failed = f", {result.failed:,} failed" if result.failed else ""
        return f"{result.records:,} records{failed}" if result.records else ""
    if isinstance(result, RunResultView | EvaluationSummaryView):
        metrics = list(result.metrics.items())
        shown = [f"{name} {_number(value)}" for name, value in metrics[:_MOST_METRICS]]
        more = len(metrics) - _MOST_METRICS
        return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])])
    return ""


def _counts(states: Iterable[str]) -> str:
    counts = collections.Counter(states)
    return ", ".join(f"{count} {state.lower()}" for state, count in counts.items())


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
