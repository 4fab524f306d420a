"""Launcher of inline trials: threads of the tuning, each with the processes of a training."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from functools import partial

from infra import storage
from infra.errors import DiskFullError, ModelyardError, RunFailedError
from infra.mlflow import MlflowException
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.process import ProcessBackend
from infra.workloads.process_group import RateLimitedLog
from registry import tracking
from registry.mlflow_writer import MlflowWriter, is_deleted
from registry.runs import run_monitor, tensorboard_logs
from registry.tunings import trial_runs
from tasks import logs
from tasks.parameters import Scalar
from tasks.run_directory import RunDirectory
from tasks.training import (
    checkpoints,
    model_publishing,
    script_execution,
    training_steps,
)
from tasks.training.metrics_collector import following
from tasks.training.training_request import Training
from tasks.trials import reports as kept
from tasks.trials.base import (
    Launcher,
    MetricReported,
    TrialContext,
    TrialEnded,
    TrialEvent,
    TrialStarted,
)
from tasks.trials.reports import Report, Reports, Source
from tasks.tuning.tuning_request import of_trial
from tuning.event_files import EventFileReader
from tuning.metrics import Observation
from tuning.trials import ACTIVE, Trial, TrialState

_POLL_SECONDS = 2.0
_STOP_SECONDS = 10.0  # beside a script's own grace
_LAST_WORDS_SECONDS = 60.0
_TIDYING_SECONDS = 10.0
_THREADS = "OMP_NUM_THREADS"
_REPORTS = "reports"
_RETRY = "Retry the tuning: modelyard runs retry."


@dataclass
class _InlineTrial:
    """An active trial.

    Attributes:
        trial: The trial.
        run_dir: Its folders.
        stop: Set when its end is requested.
        stopped_at: ``time.monotonic()`` of that request.
        run_id: Its MLflow run; "" until it is opened.
        reports: Its reports; None until they are opened.
    """

    trial: Trial
    run_dir: RunDirectory
    stop: threading.Event = field(default_factory=threading.Event)
    stopped_at: float = 0.0
    run_id: str = ""
    reports: Reports | None = None

    def ask_to_stop(self) -> None:
        """Request its end."""
        if not self.stop.is_set():
            self.stopped_at = time.monotonic()
            self.stop.set()


class InlineLauncher(Launcher):
    """Runs trials in threads of this process.

    A marker in a trial's folder says that its script has succeeded. It exists until the trial's
    row is written, so that the script does not run again after a kill in between.
    """

    def __init__(self, context: TrialContext, emit: Callable[[TrialEvent], object]) -> None:
        """Run trials in ``context``, and call ``emit`` with their events."""
        self.stop_timeout_seconds = context.settings.stop_grace_seconds + _STOP_SECONDS
        self._context = context
        self._emit = emit
        self._running: dict[int, _InlineTrial] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()
        self._parent = trial_runs.parent(context.parent.run_id)
        self._known = trial_runs.children(self._parent)
        self._unsettled = trial_runs.unsettled(self._parent)
        self._used: set[str] = set()
        self._ahead: dict[int, Future[str]] = {}
        self._closed = threading.Event()
        self._backend = ProcessBackend(EnvironmentCache(context.home.overlays), context.settings)
        self._writer = MlflowWriter(context.logger.warning)
        self._forward = RateLimitedLog(context.logger.info, context.settings.log_lines_per_second)
        self._poller = threading.Thread(target=self._poll, daemon=True, name="pushed metrics")
        self._poller.start()

    def launch(self, trial: Trial, *, again: bool = False) -> None:
        """Start ``trial`` in a thread."""
        running = _InlineTrial(trial, self._context.run_dir(trial.number))
        with self._lock:
            self._running[trial.number] = running
        thread = threading.Thread(
            target=self._run, args=(running,), daemon=True, name=f"trial {trial.number}"
        )
        self._threads = {n: one for n, one in self._threads.items() if one.is_alive()}
        try:
            thread.start()
        except RuntimeError as error:  # there are too many
            self._end(
                TrialEnded(
                    trial.number,
                    _failed(f"Its thread cannot be started: {error}.", "Lower parallel_trials."),
                )
            )
        else:
            self._threads[trial.number] = thread

    def prepare_next(self, number: int) -> None:
        """Create the MLflow run of the next trial in advance, while others run."""
        if number in self._known or number in self._ahead:
            return
        made: Future[str] = Future()

        def make() -> None:
            try:
                made.set_result(trial_runs.open_trial(self._parent, number))
            except Exception as error:  # noqa: BLE001 (the edge of a thread; it is made later)
                made.set_exception(error)

        self._ahead[number] = made
        threading.Thread(target=make, daemon=True, name="a trial ahead").start()

    def stop(self, number: int) -> None:
        """Request the end of a trial."""
        with self._lock:
            running = self._running.get(number)
        if running:
            running.ask_to_stop()

    def conclude(self, trial: Trial) -> None:
        """Record the end of a trial in MLflow, and remove its inputs."""
        run_dir = self._context.run_dir(trial.number)
        if trial.state != TrialState.KILLED:  # a killed trial may be resumed
            with contextlib.suppress(OSError):
                run_dir.finished_marker.unlink(missing_ok=True)
                run_dir.clear()
        if trial.mlflow_run_id:
            self._writer.end_run(
                trial.mlflow_run_id,
                trial_runs.status(trial.state),
                trial_runs.state_tags(trial.state, trial.reason),
                run_dir.log,
            )

    def settle(self, trials: Iterable[Trial]) -> None:
        """Conclude ended trials of earlier attempts whose end MLflow does not have."""
        for trial in trials:
            if trial.mlflow_run_id:
                self._used.add(trial.mlflow_run_id)
                if trial.state not in ACTIVE and trial.mlflow_run_id in self._unsettled:
                    self._settle(trial, trial.mlflow_run_id)

    def _hyperparameters(self, trial: Trial) -> dict[str, Scalar]:
        """Hyperparameters of the trial: fixed ones, and its point."""
        return {**self._context.training.hyperparameters, **trial.parameters}

    def _settle(self, trial: Trial, run_id: str) -> None:
        """Conclude a trial whose MLflow run may be empty."""
        self._writer.log_params(run_id, self._hyperparameters(trial))
        for report in kept.read(self._context.run_dir(trial.number).root / _REPORTS):
            self._record_again(run_id, report)
        self.conclude(trial)

    def close(self) -> None:
        """Stop the running trials, and write pending records."""
        if self._closed.is_set():
            return
        with self._lock:
            left = list(self._running.values())
        for one in left:
            one.ask_to_stop()
        for one in left:
            thread = self._threads.get(one.trial.number)
            if thread:
                until = max(one.stopped_at + self.stop_timeout_seconds, time.monotonic())
                thread.join(until - time.monotonic())
            self._end(TrialEnded(one.trial.number, stopped=True))  # unless it has
        self._closed.set()
        self._forward.close()
        self._backend.close()
        if not self._writer.close(_LAST_WORDS_SECONDS):
            tidying = threading.Thread(target=self._remove_unused, daemon=True, name="tidying")
            tidying.start()
            tidying.join(_TIDYING_SECONDS)

    def _remove_unused(self) -> None:
        """Delete MLflow runs that were created in advance and are not used."""
        self._poller.join()
        wait(list(self._ahead.values()))
        try:
            for run_id, kind in trial_runs.unsettled(self._parent).items():
                if kind == trial_runs.KIND and run_id not in self._used:
                    tracking.delete_run(run_id)
        except Exception as error:  # noqa: BLE001 (the edge of a thread; nothing depends on it)
            self._context.logger.warning("MLflow runs without a trial are left: %s", error)

    def _end(self, finished: TrialEnded) -> None:
        """Emit the end of a trial, unless that was done."""
        with self._lock:
            ended = self._running.pop(finished.number, None)
        if ended:
            self._emit(finished)

    def _run(self, running: _InlineTrial) -> None:
        number, run_dir = running.trial.number, running.run_dir
        finished = TrialEnded(number, _failed("Its thread was ended.", _RETRY))
        try:
            finished = TrialEnded(number, stopped=self._try(running))
        except Exception as problem:  # noqa: BLE001 (the edge of a thread: emitted as its end)
            finished = TrialEnded(number, self._error(problem, run_dir))
        finally:
            with contextlib.suppress(OSError):
                if running.reports:
                    running.reports.close()
                run_dir.clear()
            self._end(finished)

    def _error(self, problem: Exception, run_dir: RunDirectory) -> ModelyardError:
        """Convert an exception to the error of its trial."""
        if isinstance(problem, ModelyardError):
            return problem
        if isinstance(problem, OSError) and storage.is_disk_full(problem):
            return DiskFullError(f"The disk of {run_dir.root} is full.", "Make room, and retry.")
        if isinstance(problem, MlflowException):
            return _failed(f"MLflow failed: {problem}", _RETRY, "MlflowFailed")
        self._context.logger.error("The trial in %s failed.", run_dir.root, exc_info=problem)
        return _failed(f"{type(problem).__name__}: {problem}", "The tuning's log has more.")

    def _try(self, running: _InlineTrial) -> bool:
        """Run a trial's script and publish its model; whether it was stopped.

        Raises:
            ModelyardError: If the trial fails.
            Exception: On an internal error.
        """
        context, trial, run_dir = self._context, running.trial, running.run_dir
        if running.stop.is_set():
            return True
        request = of_trial(context.training, trial, f"trial-{trial.number}")
        retried = run_dir.root.exists() or bool(trial.mlflow_run_id)  # perhaps on another machine
        run_dir.root.mkdir(parents=True, exist_ok=True)
        on_report = partial(self._on_report, trial.number)
        running.reports = Reports(run_dir.root / _REPORTS, context.metrics, on_report)
        self._open(running, running.reports)
        self._writer.log_params(running.run_id, self._hyperparameters(trial))
        try:
            if retried and run_dir.finished_marker.exists():
                ended = self._ended_before(request, running, running.reports)
            else:
                ended = self._execute(request, running, running.reports, retried=retried)
            return self._conclude(ended, request, running, running.reports)
        finally:
            if not context.settings.home_lasts:
                warn = context.logger.warning
                tensorboard_logs.keep(running.run_id, run_dir.tensorboard, warn)
            name = f"{self._context.tuning}-{run_dir.root.name}"
            logs.publish(run_dir.log, request.logs, name, self._context.logger.warning)

    def _on_report(self, number: int, metric: str, value: float) -> None:
        self._emit(MetricReported(number, metric, value))

    def _open(self, running: _InlineTrial, reports: Reports) -> None:
        """Open the trial's MLflow run: that of an earlier attempt, or a new one.

        Raises:
            MlflowException: If MLflow cannot create one.
        """
        trial = running.trial
        found = trial.mlflow_run_id or self._known.get(trial.number)
        if found:
            try:
                self._resume(found, reports)
            except MlflowException as error:
                if not is_deleted(error):
                    raise
                found = ""
        running.run_id = found or self._made_ahead(trial.number)
        self._used.add(running.run_id)
        for report in reports.earlier:
            self._record_again(running.run_id, report)

    def _made_ahead(self, number: int) -> str:
        """MLflow run that was created in advance for a trial, otherwise a new one."""
        ahead = self._ahead.pop(number, None)
        if ahead and ahead.exception() is None:
            return ahead.result()
        return trial_runs.open_trial(self._parent, number)

    def _resume(self, found: str, reports: Reports) -> None:
        """Reopen the MLflow run of an earlier attempt."""
        steps = self._writer.reopen(found)
        if not reports.earlier:
            for metric in self._context.metrics & steps.keys():
                reports.keep(metric, trial_runs.history(found, metric), steps[metric])

    def _record_again(self, run_id: str, report: Report) -> None:
        """Log a report to MLflow again, which may have missed it; MLflow stores it once."""
        if report.printed:
            self._writer.log_metric(run_id, report.metric, report.value, report.step, report.at)

    def _execute(
        self, request: Training, running: _InlineTrial, reports: Reports, *, retried: bool
    ) -> ExitStatus:
        """Run the script; STOPPED also if it is stopped before it starts."""
        context, trial, run_dir = self._context, running.trial, running.run_dir
        minutes = request.max_minutes
        deadline = time.monotonic() + minutes * 60 if minutes else None
        try:
            prepared = training_steps.prepare(
                request, run_dir, context.home, context.settings, retried=retried,
                log=context.logger.info, deadline=deadline, stop_requested=running.stop.is_set,
            )  # fmt: skip
        except InstallCancelledError:
            return ExitStatus(0, cause=ExitCause.STOPPED)
        cores = share_of_cores(context.parallel, request.resources.processes)
        prepared = replace(prepared, env={**cores, **prepared.env})
        if running.stop.is_set():
            return ExitStatus(0, cause=ExitCause.STOPPED)
        script_context = script_execution.ScriptContext(
            home=context.home,
            settings=context.settings,
            flow_run_id=context.tuning,
            mlflow_run_id=running.run_id,
            experiment_id=self._parent.experiment_id,
            holder=f"trial {trial.number} of {context.name} ({context.tuning})",
            logger=context.logger,
            deadline=deadline,
            stop_requested=running.stop.is_set,
            backend=self._backend,
            observer=context.observe(partial(run_monitor.write, self._writer, running.run_id, "")),
        )
        recording = partial(self._recording, request, running, reports)
        return script_execution.run(request, prepared, run_dir, script_context, recording)

    @contextlib.contextmanager
    def _recording(
        self, request: Training, running: _InlineTrial, reports: Reports, names: Sequence[str]
    ) -> Iterator[Callable[[int, str], None]]:
        """Record the output and metrics of a trial's script while it runs."""
        number = running.trial.number
        self._emit(TrialStarted(number, running.run_id))
        reports.start_reporting()
        with following(
            request.metrics,
            running.run_dir.tensorboard,
            names=[f"trial {number}{name and ' '}{name}" for name in names],
            show=self._forward if request.logs.stream else lambda _: None,
            record=partial(self._record, running.run_id, reports),
            warn=self._context.logger.warning,
        ) as on_line:
            yield on_line

    def _record(self, run_id: str, reports: Reports, found: Observation) -> None:
        taken = reports.take(found)
        if taken:
            self._writer.log_metric(run_id, taken.name, taken.value, taken.step, taken.at)

    def _ended_before(
        self, request: Training, running: _InlineTrial, reports: Reports
    ) -> ExitStatus:
        """Resume a trial whose script succeeded before its tuning was killed."""
        trial, run_dir = running.trial, running.run_dir
        self._context.logger.info("The script of trial %d succeeded before.", trial.number)
        self._emit(TrialStarted(trial.number, running.run_id, attempts=trial.attempts))
        reports.start_reporting()
        known = Counter(one.metric for one in reports.earlier if one.source is Source.EVENTS)
        others = {one.metric for one in reports.earlier} - known.keys()
        for found in EventFileReader(run_dir.tensorboard, self._context.logger.warning).poll():
            if known[found.name]:
                known[found.name] -= 1
            elif found.name not in others:
                self._record(running.run_id, reports, found)
        if not run_dir.is_published:
            checkpoints.copy(run_dir.checkpoints, training_steps.mirror_uri(request))
        return ExitStatus(0)

    def _conclude(
        self, ended: ExitStatus, request: Training, running: _InlineTrial, reports: Reports
    ) -> bool:
        run_dir = running.run_dir
        if ended.cause is ExitCause.STOPPED:
            return True
        if ended.cause is ExitCause.TIMED_OUT:
            raise training_steps.timeout_error(request, "ran")
        lasts = self._context.settings.home_lasts
        failure = training_steps.script_error(
            ended, training_steps.log_location(run_dir, lasts=lasts)
        )
        if failure:
            raise failure
        self._look_for_pushed(running.run_id, reports)
        if not run_dir.is_published:
            debug = self._context.logger.debug
            model_publishing.publish(request, run_dir, running.run_id, debug)
            run_dir.mark_published()
        return False

    def _poll(self) -> None:
        """Poll for metrics that scripts log to MLflow themselves."""
        while not self._closed.wait(_POLL_SECONDS):
            with self._lock:
                begun = [(one.run_id, one.reports) for one in self._running.values()]
            for run_id, reports in begun:
                try:
                    if reports and not self._closed.is_set():
                        self._look_for_pushed(run_id, reports)
                except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
                    self._context.logger.debug("MLflow's metrics could not be read: %s", error)

    @staticmethod
    def _look_for_pushed(run_id: str, reports: Reports) -> None:
        for metric, known in reports.awaiting_push().items():
            values = trial_runs.history(run_id, metric, known)
            if values:
                reports.push(metric, known, values)


def share_of_cores(parallel: int, processes: int) -> dict[str, str]:
    """Variable that limits each process to its share of the cores if several trials run at once.

    Otherwise libraries start a thread per core in each process. A value in the tuning's own
    environment is respected.
    """
    if parallel == 1 or _THREADS in os.environ:
        return {}
    return {_THREADS: str(max(1, (os.cpu_count() or 1) // (parallel * processes)))}


def _failed(message: str, hint: str, code: str | None = None) -> RunFailedError:
    return RunFailedError(message, hint, state="FAIL TRAIN", code=code)
