"""Neighbours as a person starts them by hand: default settings, a home of their own, loopback.

Every process here is on a leash (``infra/leash.py``): its whole tree ends with the context it
was started in, and with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import tcp_ports
from infra.connection import clean_environment
from infra.leash_client import leash_command

QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
BIN = Path(sys.executable).parent
_START_SECONDS = 180.0
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Server:
    """A server that is up.

    Attributes:
        url: Its address.
        seconds: From the start of its process to its first healthy answer.
    """

    url: str
    seconds: float


@contextlib.contextmanager
def temporary_home() -> Iterator[Path]:
    """A new folder, short enough for sockets, that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="b-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def environment(home: Path) -> dict[str, str]:
    """What a neighbour has in its environment: nothing of ours, and its state below ``home``."""
    inherited = {
        name: value
        for name, value in clean_environment().items()
        if not name.startswith("MODELYARD_")
    }
    path = os.pathsep.join([str(BIN), inherited.get("PATH", os.defpath)])
    places = {"PREFECT_HOME": str(home / "prefect"), "TMPDIR": str(home), "PATH": path}
    return {**inherited, **QUIET, **places}


@contextlib.contextmanager
def running(
    command: list[str], home: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` in ``home`` for the while; its output goes to ``home/output.log``."""
    with (home / "output.log").open("ab") as log:
        process = subprocess.Popen(
            leash_command(command, grace=_GRACE_SECONDS),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**environment(home), **(env or {})},
            cwd=home,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], home: Path) -> None:
    """Ask ``url`` until it answers 200.

    Raises:
        RuntimeError: If ``process`` ends before, or it takes too long.
    """
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(url, timeout=5) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(_POLL_SECONDS)
    tail = (home / "output.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{url} did not become healthy. The end of the output:\n{tail}")


@contextlib.contextmanager
def _server(command: list[str], home: Path, port: int, health: str) -> Iterator[Server]:
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], home) as process:
        wait_until_healthy(url + health, process, home)
        yield Server(url, time.monotonic() - began)


@contextlib.contextmanager
def prefect_server(home: Path) -> Iterator[Server]:
    """``prefect server start`` on SQLite, its default."""
    (port,) = tcp_ports.free_ports(1)
    with _server([str(BIN / "prefect"), "server", "start"], home, port, "/api/health") as s:
        yield s


@contextlib.contextmanager
def mlflow_server(home: Path) -> Iterator[Server]:
    """``mlflow server --workers 1`` on SQLite, its default."""
    command = [str(BIN / "mlflow"), "server", "--workers", "1"]
    (port,) = tcp_ports.free_ports(1)
    with _server(command, home, port, "/health") as server:
        yield server


@contextlib.contextmanager
def prefect_worker(home: Path, server: Server, pool: str) -> Iterator[None]:
    """``prefect worker start --type process``, returned once it has polled its pool."""
    (port,) = tcp_ports.free_ports(1)
    command = [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--type", "process"]
    env = {"PREFECT_API_URL": f"{server.url}/api", "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
    with running([*command, "--with-healthcheck"], home, env) as process:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, home)
        yield
