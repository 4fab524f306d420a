"""Execute a training's script: on GPUs of its own, with its checkpoints copied meanwhile."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from infra import gpus, script
from infra.home import Home
from infra.leashed import Leashed, Start
from infra.script import Ended, Ending
from infra.settings import Settings
from tasks import checkpoints, nodes, resources, training
from tasks.other_nodes import OtherNodes
from tasks.training import Prepared
from tasks.training_request import Training
from tasks.workplace import Workplace

# Given the names of the script's processes, what records while it runs and takes its lines.
Recording = Callable[[Sequence[str]], AbstractContextManager[Callable[[int, str], None]]]


@dataclass(frozen=True)
class Conditions:
    """What a script runs under, beside what was asked for.

    Attributes:
        home: Where the machine's locks are.
        settings: The settings.
        flow_run_id: The flow run that it belongs to.
        mlflow_run_id: Its MLflow run.
        holder: What others that wait for its GPUs are told.
        logger: Where it says what it waits for.
        deadline: ``time.monotonic()`` at which it is ended; None for never.
        stop_requested: Asked a few times a second whether it is to be ended.
        start: What starts its processes.
        experiment_id: The experiment of that run, for runs nested in it; "" if it is not known.
        others: The other machines that the run is spread over; None if all its nodes are here.
    """

    home: Home
    settings: Settings
    flow_run_id: str
    mlflow_run_id: str
    holder: str
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
    deadline: float | None
    stop_requested: Callable[[], bool]
    start: Start = Leashed
    others: OtherNodes | None = None
    experiment_id: str = ""

    def over(self) -> bool:
        """Whether the script is to be ended, because somebody asked or its time is over."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        return late or self.stop_requested()


def run(
    request: Training,
    prepared: Prepared,
    place: Workplace,
    under: Conditions,
    recording: Recording,
) -> Ended:
    """Run a prepared script to its end; one that is stopped while it waits has ended as well.

    Raises:
        RunFailedError: If its GPUs are not free before the deadline, or another node of it never
            joins, is lost or cannot do its part.
    """
    with prepared.held, _gpus(request, under) as lease:
        meeting = None if lease is None else _meet(request, under)
        if lease is None or meeting is None:
            return Ended(Ending.STOPPED, 0, ())
        processes = nodes.processes(
            prepared.command,
            training.script_environment(
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
                training.mirror_uri(request),
                seconds=under.settings.checkpoint_seconds,
                warn=under.logger.warning,
            ),
        ):
            ended = script.run(
                processes,
                cwd=place.source,
                log=place.log,
                on_line=on_line,
                deadline=under.deadline,
                stop_requested=lambda: under.stop_requested() or _in_trouble(under),
                grace=under.settings.stop_grace_seconds,
                keep=[*prepared.keep, *(lock.fileno() for lock in lease.locks)],
                start=under.start,
            )
            if under.others:
                ended = under.others.conclude(ended, under.over)
            if ended.ending is Ending.EXITED and ended.code == 0:
                place.finished.touch()
    return ended


def _meet(request: Training, under: Conditions) -> nodes.Meeting | None:
    """Where the processes of all nodes meet; None if the run is stopped before they do.

    Raises:
        RunFailedError: If another node never joins, or the time is over before.
    """
    if under.others is None:
        return nodes.on_this_machine(request.resources)
    meeting = under.others.meet(request.resources, under.over)
    if meeting is None and not under.stop_requested() and not _in_trouble(under):
        raise training.timed_out(request, "waited for its other nodes")
    return meeting


def _in_trouble(under: Conditions) -> bool:
    return under.others is not None and under.others.trouble() is not None


@contextlib.contextmanager
def _gpus(request: Training, under: Conditions) -> Iterator[gpus.Lease | None]:
    """The GPUs that the script is pinned to; None if it is stopped before it has them.

    Raises:
        RunFailedError: If they are not free before the deadline.
    """
    available = gpus.devices(under.settings)
    here = request.resources.model_copy(update={"nodes": 1} if under.others else {})
    wanted = resources.gpu_count(here, under.settings)
    if wanted > len(available):
        under.logger.warning(
            "It runs on the CPU: it asks for %d GPUs, and there are %d.", wanted, len(available)
        )
        wanted = 0

    holding: list[str] = []

    def waiting(holders: list[str]) -> None:
        holding[:] = holders
        under.logger.info("Waiting for a GPU: %s", "; ".join(holders))

    def give_up() -> bool:
        if under.deadline is not None and time.monotonic() >= under.deadline:
            raise training.timed_out(request, f"waited for a GPU ({'; '.join(holding)})")
        return under.stop_requested()

    with gpus.lease(
        available,
        wanted,
        holder=under.holder,
        shared=request.resources.share_gpus,
        waiting=waiting,
        give_up=give_up,
    ) as lease:
        if lease and lease.names:
            under.logger.info("Its GPUs are %s.", ", ".join(lease.names))
        yield lease
