"""Process that executes a run on this machine: ``python -m infra.run_process``.

It holds the run's lock before Prefect's engine can report Running, and until it ends. So a run
that is Running and whose lock is free has lost its process, whatever the time is. A process that
was started for an attempt which another one has executed, or which is over, runs nothing.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from pathlib import Path
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType

from infra import home as homes
from infra import run_lock
from infra.home import Home
from infra.prefect_client import prefect_client

ATTEMPT_VARIABLE = "MODELYARD_PENDING_STATE"
_ENGINE = "prefect.engine"


def error_path(home: Home, flow_run_id: str) -> Path:
    """Path at which a process saves the error that ended it."""
    return home.runs / flow_run_id / "engine-error.txt"


def refusal(run: FlowRun, attempt: str) -> str:
    """Describe why this process must not execute the run; empty if it may.

    Args:
        run: The run as Prefect has it.
        attempt: The id of the Pending state with which a worker has claimed the attempt.
    """
    state = run.state
    if state is None or state.type != StateType.PENDING:
        return f"The run is not waiting for a process: it is {state.name if state else 'new'}."
    if attempt and str(state.id) != attempt:
        return "The run has been claimed again since this process was started."
    return ""


def main() -> int:
    """Execute the run that the environment names, if allowed; return the exit status."""
    run_id = os.environ["PREFECT__FLOW_RUN_ID"]
    home = homes.current()
    try:
        run_lock.inherit(home, run_id)
    except run_lock.AlreadyExecutedError:
        print("Nothing is run: another process executes this run.", flush=True)
        return 0
    error_path(home, run_id).unlink(missing_ok=True)
    try:
        with prefect_client() as client:
            refused = refusal(
                client.read_flow_run(UUID(run_id)), os.environ.pop(ATTEMPT_VARIABLE, "")
            )
        if refused:
            print(f"Nothing is run. {refused}", flush=True)
            return 0
        runpy.run_module(_ENGINE, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code and ended.__context__:
            _keep(home, run_id, ended.__context__)
        raise
    except Exception as error:
        _keep(home, run_id, error)
        raise
    return 0


def _keep(home: Home, run_id: str, error: BaseException) -> None:
    text = "".join(traceback.format_exception_only(error)).strip()
    error_path(home, run_id).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
