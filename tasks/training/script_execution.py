"""Execution of a training's script, with its GPUs and its checkpoints."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from infra import gpus
from infra.home import Home
from infra.settings import Settings
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.process import ProcessBackend
from infra.workloads.process_group import UNOBSERVED, ProcessObserver
from tasks import resources
from tasks.run_directory import RunDirectory
from tasks.training import checkpoints, nodes, training_steps
from tasks.training.remote_nodes import TrainingNode
from tasks.training.training_request import Training
from tasks.training.training_steps import PreparedScript

# Records a script's output, given the names of its processes; yields the callback for a line.
OutputRecorder = Callable[[Sequence[str]], AbstractContextManager[Callable[[int, str], None]]]


@dataclass(frozen=True)
class ScriptContext:
    """Context in which a script runs, beside its request.

    Attributes:
        home: Modelyard's home.
        settings: Modelyard's settings.
        flow_run_id: Flow run that the script belongs to.
        mlflow_run_id: MLflow run that it logs to.
        holder: Name of the script, shown to others that wait for its GPUs.
        logger: Logger of the run.
        deadline: ``time.monotonic()`` of the time limit; None without a limit.
        stop_requested: Polled a few times a second; true stops the script.
        backend: Runs the processes; None for a backend that lives as long as the script.
        experiment_id: Experiment of the MLflow run, for nested runs; "" if unknown.
        observer: Observes the script's processes.
        node: This machine's node of a distributed run; None if all nodes run on this machine.
    """

    home: Home
    settings: Settings
    flow_run_id: str
    mlflow_run_id: str
    holder: str
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    deadline: float | None
    stop_requested: Callable[[], bool]
    backend: ProcessBackend | None = None
    node: TrainingNode | None = None
    experiment_id: str = ""
    observer: ProcessObserver = UNOBSERVED

    def is_over(self) -> bool:
        """Whether a stop was requested, or the time limit has passed."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.stop_requested()


def run(
    request: Training,
    prepared: PreparedScript,
    run_dir: RunDirectory,
    context: ScriptContext,
    recording: OutputRecorder,
) -> ExitStatus:
    """Run a prepared script; STOPPED also if it is stopped before its processes start.

    Raises:
        RunFailedError: If its GPUs are not free before the deadline, or another node never joins,
            is lost, or fails before its script runs.
    """
    with prepared.held, _backend(context) as backend, _gpus(request, context, backend) as lease:
        rendezvous = None if lease is None else _rendezvous(request, context)
        if lease is None or rendezvous is None:
            return ExitStatus(0, cause=ExitCause.STOPPED)
        processes = nodes.plan_processes(
            prepared.command,
            training_steps.script_environment(
                prepared,
                home=context.home,
                flow_run_id=context.flow_run_id,
                mlflow_run_id=context.mlflow_run_id,
                experiment_id=context.experiment_id,
            ),
            request.resources,
            rendezvous,
            gpus=lease.names,
            join_seconds=context.settings.join_seconds,
        )
        with (
            recording([process.name for process in processes]) as on_line,
            checkpoints.mirrored(
                prepared.checkpoints,
                training_steps.mirror_uri(request),
                seconds=context.settings.checkpoint_seconds,
                warn=context.logger.warning,
            ),
        ):
            ended = backend.execute(
                processes,
                folder=run_dir.source,
                log_file=run_dir.log,
                on_line=on_line,
                deadline=context.deadline,
                stop_requested=lambda: context.stop_requested() or _must_abort(context),
                keep=[*prepared.keep, *(lock.fileno() for lock in lease.locks)],
                observer=context.observer,
            )
            if context.node:
                ended = context.node.resolve_end(ended, context.is_over)
            if ended.cause is ExitCause.EXITED and ended.code == 0:
                run_dir.finished_marker.touch()
    return ended


def _rendezvous(request: Training, context: ScriptContext) -> nodes.Rendezvous | None:
    """Wait for the rendezvous of all nodes; None if the run is stopped before.

    Raises:
        RunFailedError: If another node never joins, or the time limit passes before.
    """
    if context.node is None:
        return nodes.local_rendezvous(request.resources)
    rendezvous = context.node.rendezvous(request.resources, context.is_over)
    if rendezvous is None and not context.stop_requested() and not _must_abort(context):
        raise training_steps.timeout_error(request, "waited for its other nodes")
    return rendezvous


def _must_abort(context: ScriptContext) -> bool:
    return context.node is not None and context.node.abort_reason() is not None


@contextlib.contextmanager
def _backend(context: ScriptContext) -> Iterator[ProcessBackend]:
    """Use the backend of the context, or one that is closed with the script."""
    if context.backend is not None:
        yield context.backend
        return
    environments = EnvironmentCache(context.home.overlays)
    with contextlib.closing(ProcessBackend(environments, context.settings, single=True)) as own:
        yield own


@contextlib.contextmanager
def _gpus(
    request: Training, context: ScriptContext, backend: ProcessBackend
) -> Iterator[gpus.GpuLease | None]:
    """Hold the script's GPUs; yields None if it is stopped before they are free.

    Raises:
        RunFailedError: If they are not free before the deadline.
    """
    available = len(gpus.devices(context.settings))
    local = request.resources.model_copy(update={"nodes": 1} if context.node else {})
    wanted = resources.gpu_count(local, context.settings)
    if wanted > available:
        context.logger.warning(
            "The script runs on the CPU: it requests %d GPUs, and this machine has %d.",
            wanted,
            available,
        )
        wanted = 0

    holders_: list[str] = []

    def waiting(holders: list[str]) -> None:
        holders_[:] = holders
        context.logger.info("Waiting for a GPU: %s", "; ".join(holders))

    def give_up() -> bool:
        if context.deadline is not None and time.monotonic() >= context.deadline:
            raise training_steps.timeout_error(
                request, f"waited for a GPU ({'; '.join(holders_)})"
            )
        return context.stop_requested()

    with backend.hold_gpus(
        wanted,
        holder=context.holder,
        on_wait=waiting,
        is_over=give_up,
        shared=request.resources.share_gpus,
    ) as lease:
        if lease and lease.names:
            context.logger.info("The script's GPUs are %s.", ", ".join(lease.names))
        yield lease
