"""``azmlinfsrv`` where the runtime is installed by itself: a scoring script, and its workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from modelyard_runtime.server import azmlinfsrv_options
from modelyard_runtime.server.azmlinfsrv_options import AzmlinfsrvOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a scoring script until a signal ends the server."""
    given = azmlinfsrv_options.parse(arguments)
    if given.origins is not None:
        os.environ["AML_CORS_ORIGINS"] = given.origins
    if not given.entry_script.is_file():
        sys.exit(f"azmlinfsrv: there is no script {given.entry_script}.")
    try:
        from modelyard_runtime.server import __main__ as server  # noqa: PLC0415 (needs an extra)
        from modelyard_runtime.server import serving  # noqa: PLC0415
    except ImportError as error:
        sys.exit(f"azmlinfsrv: {error}. Install modelyard-runtime[server].")
    try:
        listener = serving.listen(given.host, given.port)
    except OSError as error:
        sys.exit(f"azmlinfsrv: port {given.port} cannot be used: {error.strerror or error}.")
    made = _server_arguments(given, listener.fileno())
    if given.workers == 1:
        server.main(made)
    sys.exit(_run_workers(made, given.workers, listener))


def _server_arguments(given: AzmlinfsrvOptions, listener: int) -> list[str]:
    made = ["--entry-script", str(given.entry_script), "--fd", str(listener), "--guarded"]
    return made + (["--model-dir", str(given.model_dir)] if given.model_dir else [])


def _run_workers(arguments: Sequence[str], count: int, listener: socket.socket) -> int:
    """Run processes that accept from one socket until a signal, or until one of them ends.

    Returns:
        The exit status: that of the one that ended by itself.
    """
    command = [sys.executable, "-P", "-m", "modelyard_runtime.server", *arguments]
    workers = [subprocess.Popen(command, pass_fds=[listener.fileno()]) for _ in range(count)]

    def end(*_: object) -> None:
        for worker in workers:
            if worker.returncode is None:
                worker.terminate()

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)
    pid, status = os.wait()
    end()
    for worker in workers:
        if worker.pid != pid:
            worker.wait()
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
