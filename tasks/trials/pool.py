"""Launcher of trials in a work pool: runs of ``train``, which outlive a killed tuning."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx

from infra import run_lock
from infra.controllers import EventNotifier
from infra.errors import ModelyardError, RunFailedError
from infra.http_status import is_retryable
from infra.mlflow import MlflowException
from infra.prefect_events import RUNS, EventSubscription
from registry.flow_kinds import TRAIN
from registry.mlflow_writer import MlflowWriter, is_permanent
from registry.runs import run_requests, statuses
from registry.tunings import trial_flows, trial_runs
from registry.tunings.trial_flows import TrialFlow
from tasks.trials.base import (
    Launcher,
    MetricReported,
    TrialContext,
    TrialEnded,
    TrialEvent,
    TrialStarted,
)
from tasks.tuning.tuning_request import of_trial
from tuning.trials import ACTIVE, Trial

_RESYNC_SECONDS = 30.0
_POLL_SECONDS = 1.0  # without events, and for facts that have none
_STOP_SECONDS = 20.0  # beside a script's own grace: a worker has to notice first
_POLLER_SECONDS = 2.0
_LAST_WORDS_SECONDS = 30.0


@dataclass
class _PooledTrial:
    """A trial with an active run.

    Attributes:
        trial: The trial.
        again: Whether an earlier attempt of the tuning may have stopped its run.
        flow_run_id: Its run; "" until it is created.
        mlflow_run_id: MLflow run of the trial; "" until it has started.
        attempts: Number of the run's attempts that were reported.
        seen: Number of values of each metric that were reported.
        lost: Whether its run was lost before, in this attempt of the tuning.
        stop: Whether its end was requested.
        stopped_at: ``time.monotonic()`` of that request.
    """

    trial: Trial
    again: bool
    flow_run_id: str
    mlflow_run_id: str = ""
    attempts: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    lost: bool = False
    stop: bool = False
    stopped_at: float = 0.0

    def ask_to_stop(self) -> None:
        """Request its end."""
        if not self.stop:
            self.stopped_at = time.monotonic()
            self.stop = True


class PoolLauncher(Launcher):
    """Runs trials as runs of ``train``, and follows them in Prefect and MLflow.

    It reads from Prefect when an event says that a run has changed. Facts without an event of
    Prefect are polled: the MLflow run of a started run, and metrics, which come from MLflow. A
    failed read is repeated; a trial ends only once its run and its metrics were read.
    """

    def __init__(self, context: TrialContext, emit: Callable[[TrialEvent], object]) -> None:
        """Run trials in ``context``, and call ``emit`` with their events."""
        self.stop_timeout_seconds = context.settings.stop_grace_seconds + _STOP_SECONDS
        self._context = context
        self._emit = emit
        self._running: dict[int, _PooledTrial] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._woken = threading.Event()
        self._unreachable = False
        self._polls = False
        self._unsettled = trial_runs.unsettled(trial_runs.parent(context.parent.run_id))
        self._writer = MlflowWriter(context.logger.warning)
        self._poller = threading.Thread(target=self._poll, daemon=True, name="trials in the pool")
        self._poller.start()
        self._notifier = EventNotifier(
            "trials", self._woken.set, [EventSubscription(RUNS)],
            resync_seconds=_RESYNC_SECONDS, poll_seconds=_POLL_SECONDS,
        )  # fmt: skip

    def launch(self, trial: Trial, *, again: bool = False) -> None:
        """Create the run of ``trial``, or find the one that an earlier attempt has created."""
        with self._lock:
            self._running[trial.number] = _PooledTrial(trial, again, trial.flow_run_id or "")
        self._woken.set()

    def stop(self, number: int) -> None:
        """Request the end of a trial."""
        with self._lock:
            running = self._running.get(number)
            if running:
                running.ask_to_stop()
        self._woken.set()

    def conclude(self, trial: Trial) -> None:
        """Tag the MLflow run with the trial's state; the run itself has logged the rest."""
        if trial.mlflow_run_id:
            self._writer.set_tags(
                trial.mlflow_run_id, trial_runs.state_tags(trial.state, trial.reason)
            )

    def settle(self, trials: Iterable[Trial]) -> None:
        """Conclude ended trials of earlier attempts whose end MLflow does not have."""
        for trial in trials:
            if trial.state not in ACTIVE and trial.mlflow_run_id in self._unsettled:
                self.conclude(trial)

    def close(self) -> None:
        """Stop the running trials, and write pending records."""
        if self._closed.is_set():
            return
        with self._lock:
            left = list(self._running.values())
            for one in left:
                one.ask_to_stop()
        self._woken.set()
        until = max((one.stopped_at + self.stop_timeout_seconds for one in left), default=0.0)
        while self._running and time.monotonic() < until:
            time.sleep(_POLL_SECONDS / 10)
        self._closed.set()
        self._notifier.close()
        self._woken.set()
        for one in left:
            self._finish(TrialEnded(one.trial.number, stopped=True))  # unless it has
        self._poller.join(_POLLER_SECONDS)
        self._writer.close(_LAST_WORDS_SECONDS)

    def _poll(self) -> None:
        while not self._closed.is_set():
            polls = self._polls or any(one.mlflow_run_id for one in self._current())
            changed = self._woken.wait(_POLL_SECONDS if polls else None)
            self._woken.clear()
            try:
                if changed or self._polls:
                    self._look(self._current())
                else:
                    self._each([one for one in self._current() if one.mlflow_run_id], self._tell)
            except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
                if not self._unreachable:
                    self._context.logger.warning("The trials' runs could not be read: %s", error)
                self._polls = self._unreachable = True
                self._closed.wait(_POLL_SECONDS)
            else:
                self._unreachable = False

    def _current(self) -> list[_PooledTrial]:
        with self._lock:
            return list(self._running.values())

    def _look(self, running: list[_PooledTrial]) -> None:
        """Create, stop and follow the runs of the trials."""
        self._polls = any(one.stop for one in running)
        there: dict[str, TrialFlow] = {}

        def follow(one: _PooledTrial) -> None:
            self._follow(one, there.get(one.flow_run_id))

        try:
            self._each(running, self._ensure)
        finally:
            created = [one for one in running if one.flow_run_id]
            there |= trial_flows.read([one.flow_run_id for one in created])
            self._each(created, follow)

    def _each(self, running: list[_PooledTrial], do: Callable[[_PooledTrial], None]) -> None:
        """Call ``do`` for each trial; an error of one does not affect the others.

        Raises:
            Exception: The first temporary error.
        """
        problems: list[Exception] = []
        for one in running:
            try:
                do(one)
            except ModelyardError as error:
                self._finish(TrialEnded(one.trial.number, error))
            except httpx.HTTPStatusError as error:
                if is_retryable(error.response.status_code):
                    problems.append(error)
                else:
                    refused = _failed(
                        f"Prefect refuses its run: {error}",
                        "Fix the tuning's parameters as the reason says.",
                        "RunRefused",
                    )
                    self._finish(TrialEnded(one.trial.number, refused))
            except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
                problems.append(error)
        if problems:
            raise problems[0]

    def _ensure(self, one: _PooledTrial) -> None:
        """Create the run of a trial, and request the end of one that is to stop."""
        if not one.flow_run_id:
            one.flow_run_id = self._submit(one.trial)
        if one.stop:
            run_requests.request_stop(one.flow_run_id)

    def _submit(self, trial: Trial) -> str:
        context = self._context
        request = of_trial(context.training, trial, f"trial-{trial.number}")
        return trial_flows.submit(
            request.model_dump(mode="json"),
            f"{context.name} trial {trial.number}",
            tuning=context.tuning,
            parent=context.parent.run_id,
            number=trial.number,
        )

    def _follow(self, one: _PooledTrial, run: TrialFlow | None) -> None:
        """Emit the events of a trial since the last look."""
        number = one.trial.number
        if run is None:
            if run_lock.is_held(self._context.home, one.flow_run_id):
                self._polls = True
                return  # its process has yet to notice, and its script is still running
            gone = _failed(
                "Its run was deleted.", "Leave the runs of trials to their tuning.", "RunDeleted"
            )
            self._finish(TrialEnded(number, gone))
            return
        if self._goes_on(one, run):
            return
        if run.begun and run.mlflow_run_id and run.attempts != one.attempts:
            one.mlflow_run_id, one.attempts = run.mlflow_run_id, run.attempts
            self._emit(TrialStarted(number, run.mlflow_run_id, one.flow_run_id, run.attempts))
        self._polls |= run.begun and not run.mlflow_run_id and not run.final
        if one.mlflow_run_id:
            self._tell(one)
        if run.final:
            stopped = run.word == statuses.STOPPED or (run.crashed and one.stop)
            self._finish(
                TrialEnded(number, stopped=True)
                if stopped
                else _finished(number, one.flow_run_id, run)
            )

    def _goes_on(self, one: _PooledTrial, run: TrialFlow) -> bool:
        """Resume a run that was lost, or that an earlier attempt of the tuning has stopped."""
        lost = run.crashed and not one.lost
        stopped = one.again and run.word == statuses.STOPPED
        goes_on = not one.stop and (lost or stopped)
        if goes_on:
            self._context.logger.info("The run of trial %d is resumed.", one.trial.number)
            run_requests.resume(one.flow_run_id)
            one.lost = one.lost or lost
        if run.word != statuses.STOP_IN_PROGRESS:
            one.again = False  # a later stop is a user's
        return goes_on

    def _tell(self, one: _PooledTrial) -> None:
        """Emit the new reports of a trial; none if its MLflow run was deleted."""
        for metric in self._context.metrics:
            try:
                known = one.seen.get(metric, 0)
                values = trial_runs.history(one.mlflow_run_id, metric, known)
            except MlflowException as error:
                if not is_permanent(error):
                    raise
                self._context.logger.debug("%s of trial %d: %s", metric, one.trial.number, error)
                continue
            one.seen[metric] = known + len(values)
            for value in values:
                self._emit(MetricReported(one.trial.number, metric, value))

    def _finish(self, finished: TrialEnded) -> None:
        with self._lock:
            there = self._running.pop(finished.number, None)
        if there:
            self._emit(finished)


def _finished(number: int, flow_run_id: str, run: TrialFlow) -> TrialEnded:
    """End of a trial that was not stopped."""
    if run.word == statuses.COMPLETE:
        return TrialEnded(number)
    code = run.error_code or run.detail or "TrialFailed"
    message = run.message.removeprefix(f"{code}: ") or run.word
    hint = f"Its log has more: modelyard runs logs {flow_run_id}."
    return TrialEnded(number, _failed(message, hint, code, run.word))


def _failed(message: str, hint: str, code: str, state: str = TRAIN.failure) -> RunFailedError:
    return RunFailedError(message, hint, state=state, code=code)
