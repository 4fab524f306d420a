"""Worker node of a distributed training: ``python -m tasks.node``, on a machine of its own.

It reads the run from Prefect, makes the same preparations as the first node, runs its share of the
script's processes, and reports their end to the first node. The id of the run is in
``PREFECT__FLOW_RUN_ID``; :mod:`tasks.training.remote_nodes` reads the other variables.

It exits with status 0 once its end is reported, whatever the script's status: the first node
decides how the run ends. Only the first node's checkpoints and model are kept.
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
from dataclasses import replace
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.logging.configuration import setup_logging
from prefect.logging.handlers import APILogHandler
from prefect.logging.loggers import flow_run_logger

from infra import home as homes
from infra import prefect_outage
from infra import settings as settings_module
from infra.errors import ModelyardError
from infra.prefect_client import prefect_client
from infra.settings import Settings
from infra.workloads.exit_status import ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.process_group import RateLimitedLog
from registry import tracking
from registry.runs import run_monitor, run_nodes
from tasks import parameters
from tasks.run_directory import RunDirectory
from tasks.training import remote_nodes, script_execution, training_request, training_steps
from tasks.training.remote_nodes import WorkerNode
from tasks.training.script_execution import ScriptContext
from tasks.training.training_request import Training

_Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


def _read(flow_run_id: str) -> FlowRun:
    with prefect_client() as client:
        return client.read_flow_run(UUID(flow_run_id))


@contextlib.contextmanager
def _recording(
    request: Training, settings: Settings, logger: _Logger, names: Sequence[str]
) -> Iterator[Callable[[int, str], None]]:
    """Log the script's lines under the names of its processes."""
    forward = RateLimitedLog(logger.info, settings.log_lines_per_second)

    def on_line(number: int, line: str) -> None:
        text = f"[{names[number]}] {line}"
        print(text, flush=True)
        if request.logs.stream:
            forward(text)

    try:
        yield on_line
    finally:
        forward.close()


def run_node(flow_run_id: str, node: WorkerNode, stopped: threading.Event) -> ExitStatus | None:
    """Run this node's processes; how the script ended, None if it did not start.

    Args:
        flow_run_id: The run.
        node: This machine's node.
        stopped: Set when this process receives SIGTERM.

    Raises:
        ModelyardError: If the script cannot be prepared or started.
    """
    wait_announced = functools.partial(node.wait_announced, is_over=stopped.is_set)
    retried = wait_announced("retried")
    if retried is None:
        return None
    settings, home = settings_module.load(), homes.current()
    # The first node has completed the parameters from their template before it announces.
    run = prefect_outage.retry_during_outage(lambda: _read(flow_run_id), print)
    logger: _Logger = flow_run_logger(run)
    request = training_request.resolved(parameters.read(Training, run.parameters or {}))
    run_dir = RunDirectory(home.runs / flow_run_id)
    try:
        prepared = training_steps.prepare(
            request, run_dir, home, settings,
            retried=retried, log=logger.info, stop_requested=stopped.is_set,
        )  # fmt: skip
    except InstallCancelledError:
        return None
    mlflow_run_id = wait_announced("mlflow_run_id")
    if mlflow_run_id is None:
        return None
    context = ScriptContext(
        home=home,
        settings=settings,
        flow_run_id=flow_run_id,
        mlflow_run_id=mlflow_run_id,
        holder=f"run {run.name} ({flow_run_id})",
        logger=logger,
        deadline=None,  # the first node enforces the time limit
        stop_requested=stopped.is_set,
        node=node,
    )
    recording = functools.partial(_recording, request, settings, logger)
    tracked = tracking.reopen_run(mlflow_run_id)
    with run_monitor.monitored(tracked, node.slot, logger.warning) as monitor:
        observed = replace(context, observer=monitor.nodes(1))
        return script_execution.run(request, prepared, run_dir, observed, recording)


def _upload_log(flow_run_id: str, node: WorkerNode) -> None:
    """Upload this node's log to the run's artifacts, beside that of the first node."""
    head = node.head()
    log = RunDirectory(homes.current().runs / flow_run_id).log
    if head is not None and "mlflow_run_id" in head.told and log.exists():
        own = log.rename(log.with_name(f"train-node-{node.slot.number}.log"))
        tracking.log_file(head.told["mlflow_run_id"], own, "logs")


def main() -> int:
    """Run this node of the run that the environment names; 0 once its end is reported."""
    flow_run_id = os.environ["PREFECT__FLOW_RUN_ID"]
    setup_logging()  # as the engine does, so that lines reach the run's log
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    slot = run_nodes.own_slot(flow_run_id)
    if not slot.take(run_nodes.own_holder(), remote_nodes.own_address(), {}):
        print(
            f"Node {slot.number} of the run {flow_run_id} is another machine already.", flush=True
        )
        return 0
    node = WorkerNode(slot)
    node.start()
    try:
        node.close(run_node(flow_run_id, node, stopped))
    except ModelyardError as error:
        print(error, file=sys.stderr, flush=True)
        node.close(error=error)
    finally:
        APILogHandler().flush()
    _upload_log(flow_run_id, node)
    return 0


if __name__ == "__main__":
    sys.exit(main())
