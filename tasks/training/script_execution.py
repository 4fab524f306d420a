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
from tasks import resources
from tasks.training import checkpoints, nodes, training_steps
from tasks.training.remote_nodes import OtherNodes
from tasks.training.training_request import Training
from tasks.training.training_steps import Prepared
from tasks.workplace import Workplace

# Records a script's output, given the names of its processes; yields what receives its lines.
Recording = Callable[[Sequence[str]], AbstractContextManager[Callable[[int, str], None]]]


@dataclass(frozen=True)
class Conditions:
    """Context that a script runs in, beside its request.

    Attributes:
        home: The home.
        settings: The settings.
        flow_run_id: The flow run that it belongs to.
        mlflow_run_id: Its MLflow run.
        holder: Its name, for those that wait for its GPUs.
        logger: Logger of the run.
        deadline: ``time.monotonic()`` of its time limit; None for none.
        stop_requested: Polled a few times a second; true ends it.
        backend: Runs its processes; one of its own if None.
        experiment_id: The experiment of that run, for runs nested in it; "" if it is not known.
        others: Nodes of the run on other machines; None if all are on this one.
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
    others: OtherNodes | None = None
    experiment_id: str = ""

    def over(self) -> bool:
        """Whether a stop was requested, or its time limit has passed."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.stop_requested()


def run(
    request: Training,
    prepared: Prepared,
    place: Workplace,
    under: Conditions,
    recording: Recording,
) -> ExitStatus:
    """Run a prepared script to its end; STOPPED as well if it is stopped while it waits.

    Raises:
        RunFailedError: If its GPUs are not free before the deadline, or another node of it never
            joins, is lost or cannot do its part.
    """
    with prepared.held, _backend(under) as backend, _gpus(request, under, backend) as lease:
        meeting = None if lease is None else _meet(request, under)
        if lease is None or meeting is None:
            return ExitStatus(0, cause=ExitCause.STOPPED)
        processes = nodes.processes(
            prepared.command,
            training_steps.script_environment(
                prepared,
                home=under.home,
                flow_run_id=under.flow_run_id,
                mlflow_run_id=under.mlflow_run_id,
                experiment_id=under.experiment_id,
            ),
            request.resources,
            meeting,
            gpus=lease.names,
            join_seconds=under.settings.join_seconds,
        )
        with (
            recording([process.name for process in processes]) as on_line,
            checkpoints.mirrored(
                prepared.checkpoints,
                training_steps.mirror_uri(request),
                seconds=under.settings.checkpoint_seconds,
                warn=under.logger.warning,
            ),
        ):
            ended = backend.execute(
                processes,
                folder=place.source,
                log_file=place.log,
                on_line=on_line,
                deadline=under.deadline,
                stop_requested=lambda: under.stop_requested() or _in_trouble(under),
                keep=[*prepared.keep, *(lock.fileno() for lock in lease.locks)],
            )
            if under.others:
                ended = under.others.conclude(ended, under.over)
            if ended.cause is ExitCause.EXITED and ended.code == 0:
                place.finished.touch()
    return ended


def _meet(request: Training, under: Conditions) -> nodes.Meeting | None:
    """Rendezvous of all nodes; None if the run is stopped before.

    Raises:
        RunFailedError: If another node never joins, or the time is over before.
    """
    if under.others is None:
        return nodes.on_this_machine(request.resources)
    meeting = under.others.meet(request.resources, under.over)
    if meeting is None and not under.stop_requested() and not _in_trouble(under):
        raise training_steps.timed_out(request, "waited for its other nodes")
    return meeting


def _in_trouble(under: Conditions) -> bool:
    return under.others is not None and under.others.trouble() is not None


@contextlib.contextmanager
def _backend(under: Conditions) -> Iterator[ProcessBackend]:
    """What runs the processes of a training."""
    if under.backend is not None:
        yield under.backend
        return
    environments = EnvironmentCache(under.home.overlays)
    with contextlib.closing(ProcessBackend(environments, under.settings, single=True)) as own:
        yield own


@contextlib.contextmanager
def _gpus(
    request: Training, under: Conditions, backend: ProcessBackend
) -> Iterator[gpus.GpuLease | None]:
    """Hold the script's GPUs; None if it is stopped before it has them.

    Raises:
        RunFailedError: If they are not free before the deadline.
    """
    available = len(gpus.devices(under.settings))
    here = request.resources.model_copy(update={"nodes": 1} if under.others else {})
    wanted = resources.gpu_count(here, under.settings)
    if wanted > available:
        under.logger.warning(
            "It runs on the CPU: it asks for %d GPUs, and there are %d.", wanted, available
        )
        wanted = 0

    holding: list[str] = []

    def waiting(holders: list[str]) -> None:
        holding[:] = holders
        under.logger.info("Waiting for a GPU: %s", "; ".join(holders))

    def give_up() -> bool:
        if under.deadline is not None and time.monotonic() >= under.deadline:
            raise training_steps.timed_out(request, f"waited for a GPU ({'; '.join(holding)})")
        return under.stop_requested()

    with backend.hold_gpus(
        wanted,
        holder=under.holder,
        on_wait=waiting,
        is_over=give_up,
        shared=request.resources.share_gpus,
    ) as lease:
        if lease and lease.names:
            under.logger.info("Its GPUs are %s.", ", ".join(lease.names))
        yield lease
