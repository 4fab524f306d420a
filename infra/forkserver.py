"""A process that has everything imported and forks on request.

``python -m infra.forkserver SOCKET MODULE...`` imports the modules once and then answers
``forkclient.py``: each request becomes a forked process that runs a module as ``__main__``.
Importing Prefect and MLflow takes seconds and a fork takes milliseconds, which is most of the
time between a trigger and its run.

The server has one thread, always: a fork copies the calling thread only, and whatever lock
another one held would stay locked for ever.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import prefect.context

_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """What a forked process is to run, and the connection to whom it answers."""

    module: str
    arguments: list[str]
    env: dict[str, str]
    cwd: str
    streams: tuple[int, ...]
    connection: socket.socket


def _receive(connection: socket.socket) -> Job | None:
    """The job that the client sends; None if it only looked whether we answer."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    if not header:
        return None
    with connection.makefile("rb") as reader:
        header += reader.read(4 - len(header))
        job = json.loads(reader.read(int.from_bytes(header, "big")))
    return Job(**job, streams=tuple(streams), connection=connection)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        yield listener


def serve(path: Path) -> Job:
    """Fork for every request at ``path``; returns in the forked processes only.

    Raises:
        RuntimeError: If an import has started a thread.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f"an import started threads: {threading.enumerate()}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps; clients wait by connection
    signal.signal(signal.SIGTERM, _end_after_children)
    with _listening(path) as listener:
        while True:
            connection, _ = listener.accept()
            connection.settimeout(5)
            try:
                job = _receive(connection)
            except (OSError, ValueError, TypeError) as error:
                print(f"request dropped: {error}", file=sys.stderr, flush=True)
                job = None
            if job is not None:
                if os.fork() == 0:
                    return job
                for stream in job.streams:
                    os.close(stream)
            connection.close()


def _end_after_children(*_: object) -> None:
    """End when the last forked process has; its client ends it, and the leash is patient."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    os._exit(0)


def _obey(connection: socket.socket) -> None:
    """Turn the client's bytes into signals, and its end into ours."""
    received = b" "
    while received:
        try:
            received = connection.recv(64)
        except OSError:
            received = b""
        for signum in received:
            os.kill(os.getpid(), signum)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _become(job: Job) -> None:
    """Make this forked process look like one that was started by the client."""
    os.setsid()
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, stream in enumerate(job.streams):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(job.env)
    os.chdir(job.cwd)
    sys.argv = [job.module, *job.arguments]
    prefect.context.refresh_global_settings_context()
    job.connection.settimeout(None)
    threading.Thread(target=_obey, args=(job.connection,), daemon=True).start()


def run(job: Job) -> NoReturn:
    """Run the job's module as ``__main__``, tell the client its status, and end."""
    _become(job)
    code: object = 0
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    try:
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:  # noqa: BLE001 (the edge of a process: shown, and told as a status)
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    status = int(code or 0) & 0xFF
    _finish()
    with contextlib.suppress(OSError):
        job.connection.sendall(str(status).encode())
    os._exit(status)


def _finish() -> None:
    """What an interpreter does at its end, but for taking all modules apart, which takes long."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()


def main(path: str, modules: list[str]) -> NoReturn:
    """Import ``modules``, then serve at ``path``."""
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a forked process's collector would touch, and so copy, every page of them
    run(serve(Path(path)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
