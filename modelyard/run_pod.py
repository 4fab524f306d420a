"""What a run's pod starts: ``python -P -m modelyard.run_pod``.

It sees whether this pod is the one that is to execute the run now, and then becomes Prefect's
engine for it, in this process; on a node that is not the first of several it becomes
``tasks.node``. What it is told by the environment is in ``infra/kubernetes/manifests.py``.

Prefect asks for the run and its flow alone: all that takes long to import is imported by the
engine in any case.
"""

from __future__ import annotations

# ruff: noqa: E402 (the handler of signals comes before the imports that take long)
import gc
import os
import runpy
import signal
import sys
import threading
import time
import warnings
from typing import NoReturn
from uuid import UUID

from infra import undumpable

_TERMINATED = 128 + int(signal.SIGTERM)


def _end(*_: object) -> NoReturn:
    # An exception would be raised in the middle of an import, where it may become another.
    os._exit(_TERMINATED)


if __name__ == "__main__":
    # Importing makes objects that stay: a fifth of its time would be looking for garbage.
    gc.set_threshold(50_000)
    # The first process of a container is deaf to signals that it has no handler for, and the
    # imports below take seconds.
    signal.signal(signal.SIGTERM, _end)
    undumpable.protect()

from prefect._internal import control_listener
from prefect.client.schemas.objects import FlowRun, StateType
from sqlalchemy.exc import SQLAlchemyError

from infra import prefect_outage
from infra.kubernetes.attempts import REFUSED, AttemptRecord
from infra.prefect_client import prefect_client
from registry.runs import run_attempts

_FIRST = "0"
_ENGINE = "prefect.engine"
_NODE = "tasks.node"
_LOOK_SECONDS = 2.0
_EXPOSED = (
    "ImageExposesCredentials: the image's entry point shows its environment, and with it the "
    "platform's credentials, to scripts. Build the image on a current one of Modelyard's, and "
    "leave its ENTRYPOINT as it is."
)


def refusal(run: FlowRun, newest: int, attempt: int, *, first: bool) -> str:
    """Why this pod is not to execute the run; empty if it may claim it.

    Args:
        run: The run as Prefect has it.
        newest: The number of its newest attempt.
        attempt: The attempt that the pod was made for.
        first: Whether the pod is the run's first node. Others may come when the run has begun.
    """
    expected = {StateType.PENDING} if first else {StateType.PENDING, StateType.RUNNING}
    if newest != attempt:
        return f"The run's attempt is number {newest}, and this is of number {attempt}."
    if run.state is None or run.state.type not in expected:
        return f"The run does not wait for a pod: it is {run.state.name if run.state else 'new'}."
    return ""


def _read(run_id: str) -> FlowRun:
    with prefect_client() as client:
        return client.read_flow_run(UUID(run_id))


def main() -> int:
    """Execute the run that the environment names, or leave it alone; the exit status."""
    if undumpable.is_init_exposed("MODELYARD_POD_UID"):
        print(_EXPOSED, flush=True)
        return REFUSED
    run_id = os.environ["PREFECT__FLOW_RUN_ID"]
    attempt = int(os.environ["MODELYARD_ATTEMPT"])
    first = os.environ.get("MODELYARD_NODE", _FIRST) == _FIRST
    run = prefect_outage.retry_during_outage(
        lambda: _read(run_id), lambda line: print(line, flush=True)
    )
    newest = run_attempts.newest([run_id]).get(run_id, AttemptRecord()).number
    refused = refusal(run, newest, attempt, first=first)
    holder = os.environ["MODELYARD_POD_UID"]
    if not refused and first and not run_attempts.claim(run_id, attempt, holder):
        refused = f"Another pod executes attempt {attempt} of the run, or a newer one."
    if refused:
        print(f"Nothing is run. {refused}", flush=True)
        return 0
    threading.Thread(target=_end_when_given_up, args=(run_id, attempt), daemon=True).start()
    return _become_engine(run_id) if first else _become(_NODE, [])


def _end_when_given_up(run_id: str, attempt: int) -> None:
    """End this pod's processes outright once the run has a newer attempt.

    A node that was thought lost may go on with what it has. Whatever it wrote now, to a folder or
    a bucket that both attempts know, would be between the newer attempt and its own files.
    """
    while True:
        time.sleep(_LOOK_SECONDS)
        try:
            given_up = run_attempts.is_given_up(run_id, attempt)
        except SQLAlchemyError:
            continue  # nobody can begin one now either
        if given_up:
            print("The run has a newer attempt: this one ends.", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def _become_engine(run_id: str) -> int:
    """Be Prefect's engine until the run ends or the pod is deleted.

    A deleted pod gets SIGTERM, on which the engine would call the run Crashed. What becomes of
    the run is the reconciler's to say, which knows why the pod was deleted. So the engine is told
    what Prefect's own supervisor of a pod tells it: to give the run up without a word.
    """
    control_listener._set_intent("relinquish")
    status = _become(_ENGINE, [run_id])
    # The engine takes the intent back when it has acted on it, and ends with status 0.
    return status if control_listener.get_intent() else _TERMINATED


def _become(module: str, arguments: list[str]) -> int:
    sys.argv = [module, *arguments]
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
