"""Trials beside their tuning: threads of it, each with the process groups of one training."""

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
from registry.runs import publish_targets, tensorboard_logs
from registry.tunings import trial_runs
from tasks import logs, outputs
from tasks.parameters import Scalar
from tasks.training import checkpoints, script_execution, training_steps
from tasks.training.metrics_collector import following
from tasks.training.training_request import Training
from tasks.trials import reports as kept
from tasks.trials.base import Began, Event, Finished, Launcher, Observed, Setting
from tasks.trials.reports import Report, Reports, Source
from tasks.tuning.tuning_request import of_trial
from tasks.workplace import Workplace
from tuning.event_files import EventFileReader
from tuning.metrics import Observation
from tuning.trials import ACTIVE, Trial, TrialState

_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0  # beside a script's own grace
_LAST_WORDS_SECONDS = 60.0
_TIDYING_SECONDS = 10.0
_THREADS = "OMP_NUM_THREADS"
_REPORTS = "reports"


@dataclass
class _Running:
    """A trial that runs.

    Attributes:
        trial: The trial.
        place: Its folders.
        stop: Set when it is to be ended.
        stopped_at: ``time.monotonic()`` of that.
        run_id: Its MLflow run, once it has one.
        reports: What it has reported, once it may report something.
    """

    trial: Trial
    place: Workplace
    stop: threading.Event = field(default_factory=threading.Event)
    stopped_at: float = 0.0
    run_id: str = ""
    reports: Reports | None = None

    def ask_to_stop(self) -> None:
        """Have it ended."""
        if not self.stop.is_set():
            self.stopped_at = time.monotonic()
            self.stop.set()


class InlineLauncher(Launcher):
    """Runs trials as threads of this process.

    A file in a trial's folder says that its script has ended well. It is there until the trial's
    row is, so that a kill between costs no second run of the script.
    """

    def __init__(self, setting: Setting, emit: Callable[[Event], object]) -> None:
        """Run trials as ``setting`` says, and tell ``emit`` what happens."""
        self.patience = setting.settings.stop_grace_seconds + _PATIENCE_SECONDS
        self._setting = setting
        self._emit = emit
        self._running: dict[int, _Running] = {}
        self._threads: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()
        self._parent = trial_runs.parent(setting.parent.run_id)
        self._known = trial_runs.children(self._parent)
        self._unsettled = trial_runs.unsettled(self._parent)
        self._used: set[str] = set()
        self._ahead: dict[int, Future[str]] = {}
        self._closed = threading.Event()
        self._backend = ProcessBackend(EnvironmentCache(setting.home.overlays), setting.settings)
        self._writer = MlflowWriter(setting.logger.warning)
        self._forward = RateLimitedLog(setting.logger.info, setting.settings.log_lines_per_second)
        self._poller = threading.Thread(target=self._poll, daemon=True, name="pushed metrics")
        self._poller.start()

    def launch(self, trial: Trial, *, again: bool = False) -> None:
        """Begin ``trial`` in a thread of its own."""
        running_ = _Running(trial, self._setting.place(trial.number))
        with self._lock:
            self._running[trial.number] = running_
        thread = threading.Thread(
            target=self._run, args=(running_,), daemon=True, name=f"trial {trial.number}"
        )
        self._threads = {n: one for n, one in self._threads.items() if one.is_alive()}
        try:
            thread.start()
        except RuntimeError as error:  # there are too many
            self._end(Finished(trial.number, _failed(str(error))))
        else:
            self._threads[trial.number] = thread

    def expect(self, number: int) -> None:
        """Make the MLflow run of a trial before it begins, while others run."""
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
        """Ask for the end of a trial."""
        with self._lock:
            running_ = self._running.get(number)
        if running_:
            running_.ask_to_stop()

    def conclude(self, trial: Trial) -> None:
        """Write down what became of a trial."""
        place = self._setting.place(trial.number)
        if trial.state != TrialState.KILLED:  # one that was may be gone on with
            with contextlib.suppress(OSError):
                place.finished.unlink(missing_ok=True)
                place.clear()
        if trial.mlflow_run_id:
            self._writer.end_run(
                trial.mlflow_run_id,
                trial_runs.status(trial.state),
                trial_runs.state_tags(trial.state, trial.reason),
                place.log,
            )

    def settle(self, trials: Iterable[Trial]) -> None:
        """Conclude the trials of earlier attempts that MLflow does not know the end of."""
        for trial in trials:
            if trial.mlflow_run_id:
                self._used.add(trial.mlflow_run_id)
                if trial.state not in ACTIVE and trial.mlflow_run_id in self._unsettled:
                    self._settle(trial, trial.mlflow_run_id)

    def _hyperparameters(self, trial: Trial) -> dict[str, Scalar]:
        """What the trial's script is given: what is fixed, and its point."""
        return {**self._setting.training.hyperparameters, **trial.parameters}

    def _settle(self, trial: Trial, run_id: str) -> None:
        """Conclude a trial of which MLflow may have nothing but its run."""
        self._writer.log_params(run_id, self._hyperparameters(trial))
        for report in kept.read(self._setting.place(trial.number).root / _REPORTS):
            self._record_again(run_id, report)
        self.conclude(trial)

    def close(self) -> None:
        """Stop what runs, and write down what is left."""
        if self._closed.is_set():
            return
        with self._lock:
            left = list(self._running.values())
        for one in left:
            one.ask_to_stop()
        for one in left:
            thread = self._threads.get(one.trial.number)
            if thread:
                until = max(one.stopped_at + self.patience, time.monotonic())
                thread.join(until - time.monotonic())
            self._end(Finished(one.trial.number, stopped=True))  # unless it has
        self._closed.set()
        self._forward.close()
        self._backend.close()
        if not self._writer.close(_LAST_WORDS_SECONDS):
            tidying = threading.Thread(target=self._remove_unused, daemon=True, name="tidying")
            tidying.start()
            tidying.join(_TIDYING_SECONDS)

    def _remove_unused(self) -> None:
        """Delete the MLflow runs that were made for trials, and that no trial has used."""
        self._poller.join()
        wait(list(self._ahead.values()))
        try:
            for run_id, kind in trial_runs.unsettled(self._parent).items():
                if kind == trial_runs.KIND and run_id not in self._used:
                    tracking.delete_run(run_id)
        except Exception as error:  # noqa: BLE001 (the edge of a thread; nothing depends on it)
            self._setting.logger.warning("MLflow runs without a trial are left: %s", error)

    def _end(self, finished: Finished) -> None:
        """Tell the end of a trial, if that was not done."""
        with self._lock:
            ended = self._running.pop(finished.number, None)
        if ended:
            self._emit(finished)

    def _run(self, running_: _Running) -> None:
        number, place = running_.trial.number, running_.place
        finished = Finished(number, _failed("Its thread was ended."))
        try:
            finished = Finished(number, stopped=self._try(running_))
        except Exception as problem:  # noqa: BLE001 (the edge of a thread: told as its end)
            finished = Finished(number, self._error(problem, place))
        finally:
            with contextlib.suppress(OSError):
                if running_.reports:
                    running_.reports.close()
                place.clear()
            self._end(finished)

    def _error(self, problem: Exception, place: Workplace) -> ModelyardError:
        """A problem as the error that its trial fails with."""
        if isinstance(problem, ModelyardError):
            return problem
        if isinstance(problem, OSError) and storage.is_disk_full(problem):
            return DiskFullError(f"The disk of {place.root} is full.", "Make room, and retry.")
        if isinstance(problem, MlflowException):
            return _failed(f"MLflow did not do its part: {problem}", "MlflowFailed")
        self._setting.logger.error("The trial in %s failed.", place.root, exc_info=problem)
        return _failed(f"{type(problem).__name__}: {problem}")

    def _try(self, running_: _Running) -> bool:
        """Run a trial's script and keep what it leaves; whether it was stopped.

        Raises:
            ModelyardError: If it fails, or another exception where something is broken.
        """
        setting, trial, place = self._setting, running_.trial, running_.place
        if running_.stop.is_set():
            return True
        request = of_trial(setting.training, trial, f"trial-{trial.number}")
        retried = place.root.exists() or bool(trial.mlflow_run_id)  # perhaps on another machine
        place.root.mkdir(parents=True, exist_ok=True)
        tell = partial(self._tell, trial.number)
        running_.reports = Reports(place.root / _REPORTS, setting.metrics, tell)
        self._open(running_, running_.reports)
        self._writer.log_params(running_.run_id, self._hyperparameters(trial))
        try:
            if retried and place.finished.exists():
                ended = self._ended_before(request, running_, running_.reports)
            else:
                ended = self._execute(request, running_, running_.reports, retried=retried)
            return self._conclude(ended, request, running_, running_.reports)
        finally:
            if not setting.settings.home_lasts:
                warn = setting.logger.warning
                tensorboard_logs.keep(running_.run_id, place.tensorboard, warn)
            name = f"{self._setting.tuning}-{place.root.name}"
            logs.publish(place.log, request.logs, name, self._setting.logger.warning)

    def _tell(self, number: int, metric: str, value: float) -> None:
        self._emit(Observed(number, metric, value))

    def _open(self, running_: _Running, reports: Reports) -> None:
        """Give the trial its MLflow run: that of an earlier attempt, or a new one.

        Raises:
            MlflowException: If MLflow does not make one.
        """
        trial = running_.trial
        found = trial.mlflow_run_id or self._known.get(trial.number)
        if found:
            try:
                self._resume(found, reports)
            except MlflowException as error:
                if not is_deleted(error):
                    raise
                found = ""
        running_.run_id = found or self._made_ahead(trial.number)
        self._used.add(running_.run_id)
        for report in reports.earlier:
            self._record_again(running_.run_id, report)

    def _made_ahead(self, number: int) -> str:
        """The MLflow run that was made ahead for a trial, or else a new one."""
        ahead = self._ahead.pop(number, None)
        if ahead and ahead.exception() is None:
            return ahead.result()
        return trial_runs.open_trial(self._parent, number)

    def _resume(self, found: str, reports: Reports) -> None:
        """Go on with the MLflow run of an earlier attempt."""
        steps = self._writer.reopen(found)
        if not reports.earlier:
            for metric in self._setting.metrics & steps.keys():
                reports.keep(metric, trial_runs.history(found, metric), steps[metric])

    def _record_again(self, run_id: str, report: Report) -> None:
        """Tell MLflow once more, since it may have missed the last ones: it has each once."""
        if report.printed:
            self._writer.log_metric(run_id, report.metric, report.value, report.step, report.at)

    def _execute(
        self, request: Training, running_: _Running, reports: Reports, *, retried: bool
    ) -> ExitStatus:
        """Run the script to its end; one that is stopped before it begins has ended as well."""
        setting, trial, place = self._setting, running_.trial, running_.place
        minutes = request.max_minutes
        deadline = time.monotonic() + minutes * 60 if minutes else None
        try:
            prepared = training_steps.prepare(
                request, place, setting.home, setting.settings, retried=retried,
                say=setting.logger.info, deadline=deadline, stop_requested=running_.stop.is_set,
            )  # fmt: skip
        except InstallCancelledError:
            return ExitStatus(0, cause=ExitCause.STOPPED)
        cores = share_of_cores(setting.parallel, request.resources.processes)
        prepared = replace(prepared, env={**cores, **prepared.env})
        if running_.stop.is_set():
            return ExitStatus(0, cause=ExitCause.STOPPED)
        under = script_execution.Conditions(
            home=setting.home,
            settings=setting.settings,
            flow_run_id=setting.tuning,
            mlflow_run_id=running_.run_id,
            experiment_id=self._parent.experiment_id,
            holder=f"trial {trial.number} of {setting.name} ({setting.tuning})",
            logger=setting.logger,
            deadline=deadline,
            stop_requested=running_.stop.is_set,
            backend=self._backend,
        )
        recording = partial(self._recording, request, running_, reports)
        return script_execution.run(request, prepared, place, under, recording)

    @contextlib.contextmanager
    def _recording(
        self, request: Training, running_: _Running, reports: Reports, names: Sequence[str]
    ) -> Iterator[Callable[[int, str], None]]:
        """Record what a trial's script prints and writes while it runs."""
        number = running_.trial.number
        self._emit(Began(number, running_.run_id))
        reports.let()
        with following(
            request.metrics,
            running_.place.tensorboard,
            names=[f"trial {number}{name and ' '}{name}" for name in names],
            show=self._forward if request.logs.stream else lambda _: None,
            record=partial(self._record, running_.run_id, reports),
            warn=self._setting.logger.warning,
        ) as on_line:
            yield on_line

    def _record(self, run_id: str, reports: Reports, found: Observation) -> None:
        told = reports.take(found)
        if told:
            self._writer.log_metric(run_id, told.name, told.value, told.step, told.at)

    def _ended_before(self, request: Training, running_: _Running, reports: Reports) -> ExitStatus:
        """Take up a trial whose script has ended well, before its tuning was killed."""
        trial, place = running_.trial, running_.place
        self._setting.logger.info("The script of trial %d has ended well before.", trial.number)
        self._emit(Began(trial.number, running_.run_id, attempts=trial.attempts))
        reports.let()
        known = Counter(one.metric for one in reports.earlier if one.source is Source.EVENTS)
        others = {one.metric for one in reports.earlier} - known.keys()
        for found in EventFileReader(place.tensorboard, self._setting.logger.warning).poll():
            if known[found.name]:
                known[found.name] -= 1
            elif found.name not in others:
                self._record(running_.run_id, reports, found)
        if not place.published:
            checkpoints.copy(place.checkpoints, training_steps.mirror_uri(request))
        return ExitStatus(0)

    def _conclude(
        self, ended: ExitStatus, request: Training, running_: _Running, reports: Reports
    ) -> bool:
        place = running_.place
        if ended.cause is ExitCause.STOPPED:
            return True
        if ended.cause is ExitCause.TIMED_OUT:
            raise training_steps.timed_out(request, "ran")
        lasts = self._setting.settings.home_lasts
        failure = training_steps.failure(ended, training_steps.log_for_people(place, lasts=lasts))
        if failure:
            raise failure
        self._look_for_pushed(running_.run_id, reports)
        if not place.published:
            if training_steps.has_model(place):
                training_steps.check_model(place)
                tracking.log_files(running_.run_id, place.model, "model")
                if request.output_uri:
                    publish_targets.record(running_.run_id, outputs.place(request.output_uri))
                training_steps.publish_output(request, place)
            place.mark_published()
        return False

    def _poll(self) -> None:
        """Look every now and then for metrics that scripts push to MLflow themselves."""
        while not self._closed.wait(_POLL_SECONDS):
            with self._lock:
                begun = [(one.run_id, one.reports) for one in self._running.values()]
            for run_id, reports in begun:
                try:
                    if reports and not self._closed.is_set():
                        self._look_for_pushed(run_id, reports)
                except Exception as error:  # noqa: BLE001 (the edge of the loop; asked again)
                    self._setting.logger.debug("MLflow's metrics could not be read: %s", error)

    @staticmethod
    def _look_for_pushed(run_id: str, reports: Reports) -> None:
        for metric, known in reports.awaited().items():
            values = trial_runs.history(run_id, metric, known)
            if values:
                reports.push(metric, known, values)


def share_of_cores(parallel: int, processes: int) -> dict[str, str]:
    """What tells each process of a trial its part of the cores, where several trials run at once.

    Libraries would else start a thread for each core in each of them. What the tuning's own
    environment says is left alone.
    """
    if parallel == 1 or _THREADS in os.environ:
        return {}
    return {_THREADS: str(max(1, (os.cpu_count() or 1) // (parallel * processes)))}


def _failed(message: str, code: str | None = None) -> RunFailedError:
    return RunFailedError(message, state="FAIL TRAIN", code=code)
