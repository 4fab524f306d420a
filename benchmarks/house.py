"""Our own stack in a temporary home, driven by the command that people use."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import peers
from infra.connection import Endpoints, client_environment
from infra.home import Home
from infra.stack import client

_COMMAND_SECONDS = 300.0
_END_SECONDS = 20.0

# The whole script of a trivial training: it says when its first line ran.
SCRIPT = """\
import sys, time
began = time.time()
open(sys.argv[sys.argv.index("--out") + 1], "w").write(str(began))
"""


@dataclass(frozen=True)
class House:
    """A home of ours, in which the stack may or may not be up."""

    root: Path

    def modelyard(self, *arguments: str) -> Any:
        """Run ``modelyard ARGUMENTS --json``; what it prints.

        Raises:
            RuntimeError: If it fails.
        """
        done = subprocess.run(
            [str(peers.BIN / "modelyard"), *arguments, "--json"],
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            cwd=self.root,
            env={
                **peers.environment(self.root),
                "MODELYARD_HOME": str(self.root),
                "MODELYARD_PREFECT_PORT": "0",
                "MODELYARD_MLFLOW_PORT": "0",
                "MODELYARD_WEB_PORT": "0",
            },
        )
        if done.returncode != 0:
            raise RuntimeError(f"modelyard {arguments[0]}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def up(self) -> float:
        """Start the stack and keep it; the seconds that took."""
        began = time.monotonic()
        self.modelyard("up", "--detach")
        return time.monotonic() - began

    def down(self) -> None:
        """End the stack."""
        self.modelyard("down")

    @property
    def endpoints(self) -> Endpoints:
        """Where the running stack is."""
        found = client.endpoints(Home(self.root))
        assert found is not None
        return found

    def client_environment(self) -> dict[str, str]:
        """What Prefect's own client needs."""
        return client_environment(self.endpoints, Home(self.root))

    def training(self, out: Path) -> dict[str, Any]:
        """Parameters of a ``train`` whose script writes the time of its first line to ``out``."""
        folder = self.root / "algorithm"
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(SCRIPT)
        return {
            "algorithm": {"uri": str(folder), "entry_point": "train.py"},
            "hyperparameters": {"out": str(out)},
        }


@contextlib.contextmanager
def temporary() -> Iterator[House]:
    """A new home; whatever runs in it is ended afterwards."""
    with peers.temporary_home() as root:
        try:
            yield House(root)
        finally:
            with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
                House(root).down()
            _end_what_is_left(root)


def _end_what_is_left(root: Path) -> None:
    """End every process of this home: a supervisor that was only just being started, say."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("MODELYARD_HOME") == str(root):
                left.append(process)
                process.terminate()
    for process in psutil.wait_procs(left, timeout=_END_SECONDS)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
