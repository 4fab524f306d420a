"""A node of a training that is not its first: ``python -m tasks.node``, one machine each.

It reads the run from Prefect, prepares what the first node prepares, runs the script's processes
of its own and tells the first node how they ended. What it is told by the environment is in
:mod:`tasks.training.remote_nodes`; the run's id is in ``PREFECT__FLOW_RUN_ID``.

It ends with status 0 whatever the script did, as soon as the first node knows of that: how the run
ends is decided there. Checkpoints and the model are the first node's, as everywhere: what another
one leaves in its folders goes with it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import APILogHandler
from prefect.logging.loggers import flow_run_logger

from infra import home as homes
from infra import prefect_outage
from infra import settings as settings_module
from infra.errors import ModelyardError
from infra.settings import Settings
from infra.workloads.exit_status import ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.process_group import RateLimitedLog
from registry import tracking
from tasks import parameters
from tasks.training import remote_nodes, script_execution, training_request, training_steps
from tasks.training.remote_nodes import Joined
from tasks.training.script_execution import Conditions
from tasks.training.training_request import Training
from tasks.workplace import Workplace

_Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


def _read(flow_run_id: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(flow_run_id))


@contextlib.contextmanager
def _recording(
    request: Training,
    mlflow_run_id: str,
    settings: Settings,
    logger: _Logger,
    names: Sequence[str],
) -> Iterator[Callable[[int, str], None]]:
    """Show the script's lines, and record this machine's load beside that of the others."""
    forward = RateLimitedLog(logger.info, settings.log_lines_per_second)

    def on_line(number: int, line: str) -> None:
        text = f"[{names[number]}] {line}"
        print(text, flush=True)
        if request.logs.stream:
            forward(text)

    node = names[0].removesuffix(" process 0").replace(" ", "-")
    try:
        with tracking.system_metrics(tracking.reopen_run(mlflow_run_id), node):
            yield on_line
    finally:
        forward.close()


def take_part(flow_run_id: str, others: Joined, stopped: threading.Event) -> ExitStatus | None:
    """Do this node's part of the run; how the script ended here, None if it did not begin.

    Args:
        flow_run_id: The run.
        others: The other nodes, of which the first tells what is to be done.
        stopped: Set when this machine is to end.

    Raises:
        ModelyardError: If the part cannot be done.
    """
    told = functools.partial(others.told, give_up=stopped.is_set)
    retried = told("retried")
    if retried is None:
        return None
    settings, home = settings_module.load(), homes.current()
    # By now with what it takes from a template.
    run = prefect_outage.retry_during_outage(lambda: _read(flow_run_id), print)
    logger: _Logger = flow_run_logger(run)
    request = training_request.resolved(parameters.read(Training, run.parameters or {}))
    place = Workplace(home.runs / flow_run_id)
    try:
        prepared = training_steps.prepare(
            request, place, home, settings,
            retried=retried, say=logger.info, stop_requested=stopped.is_set,
        )  # fmt: skip
    except InstallCancelledError:
        return None
    mlflow_run_id = told("mlflow_run_id")
    if mlflow_run_id is None:
        return None
    under = Conditions(
        home=home,
        settings=settings,
        flow_run_id=flow_run_id,
        mlflow_run_id=mlflow_run_id,
        holder=f"run {run.name} ({flow_run_id})",
        logger=logger,
        deadline=None,  # the first node keeps the time
        stop_requested=stopped.is_set,
        others=others,
    )
    recording = functools.partial(_recording, request, mlflow_run_id, settings, logger)
    return script_execution.run(request, prepared, place, under, recording)


def _keep_log(flow_run_id: str, others: Joined) -> None:
    """Put the script's output here among the run's artifacts, beside that of the first node."""
    first = others.first()
    log = Workplace(homes.current().runs / flow_run_id).log
    if first is not None and "mlflow_run_id" in first.told and log.exists():
        own = log.rename(log.with_name(f"train-node-{others.seat.number}.log"))
        tracking.log_file(first.told["mlflow_run_id"], own, "logs")


def main() -> int:
    """Take part in the run that the environment names; 0 if the first node knows how it ended."""
    flow_run_id = os.environ["PREFECT__FLOW_RUN_ID"]
    setup_logging()  # as the engine does, so that lines reach the run's log
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    seat = remote_nodes.own_seat(flow_run_id)
    if not seat.take(remote_nodes.own_holder(), remote_nodes.own_address(), {}):
        print(f"Another machine is node {seat.number} of the run {flow_run_id}.", flush=True)
        return 0
    others = Joined(seat)
    others.begin()
    try:
        others.close(take_part(flow_run_id, others, stopped))
    except ModelyardError as error:
        print(error, file=sys.stderr, flush=True)
        others.close(error=error)
    finally:
        APILogHandler().flush()
    _keep_log(flow_run_id, others)
    return 0


if __name__ == "__main__":
    sys.exit(main())
