"""Flows that the tests of a run's pod execute, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prefect import flow

FOLDER = "POD_FLOWS_FOLDER"


def folder() -> Path:
    return Path(os.environ[FOLDER])


@flow(retries=0)
def quick() -> None:
    """Leaves a file with its process id."""
    (folder() / "pid").write_text(str(os.getpid()))


@flow(retries=0)
def slow() -> None:
    """Has a script run, and ends it in the end."""
    script = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    (folder() / "script").write_text(str(script.pid))
    try:
        script.wait()
    finally:
        script.kill()
        script.wait()
        (folder() / "tidied").touch()
