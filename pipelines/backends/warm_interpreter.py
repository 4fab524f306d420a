"""Python interpreter with KFP's executor imported, which forks for each component.

``python -P warm_interpreter.py LEASH`` with standard input a Unix socket, in the components'
environment. Importing KFP takes most of the time of a small component, and a fork takes
milliseconds. Each component is a process of its own on a leash of its own, with its own folder,
environment, arguments and output, as if ``python -m MODULE`` had been started for it.

It ends when the socket's other end is closed. It refuses to serve where an import has started a
thread: a fork would copy whatever lock that one held, locked for ever. Only the standard library
is imported, and KFP: nothing of ours is in the components' environment.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import io
import logging
import os
import runpy
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import NoReturn

_EXECUTOR = str(Path("kfp", "dsl", "executor"))
_IMPORTED = ("kfp", "kfp.dsl", "kfp.dsl.executor", "kfp.dsl.executor_main")


def _module(path: str) -> ModuleType:
    """Load the leash by path: its folder must not be on a component's import path."""
    spec = importlib.util.spec_from_file_location("_modelyard_leash", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def _stream(descriptor: int) -> io.TextIOWrapper:
    """Open a standard stream as an unbuffered interpreter does."""
    raw = io.FileIO(descriptor, "w", closefd=False)
    errors = "strict" if descriptor == 1 else "backslashreplace"
    return io.TextIOWrapper(raw, "utf-8", errors, write_through=True)


def _dress(command: list[str]) -> str:
    """Set ``sys.argv`` as for ``PYTHON -m MODULE ARGUMENT...``; return the module's name."""
    python, _, module, *arguments = command
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]
    sys.argv = [module, *arguments]
    logging.getLogger().addFilter(_is_relevant)
    sys.executable = python
    sys.prefix = sys.exec_prefix = str(Path(python).parents[1])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path[:0] = [str(Path.cwd()), f"{sys.prefix}/lib/{version}/site-packages"]
    return module


def _is_relevant(record: logging.LogRecord) -> bool:
    """Whether a record is the component's own or an error: KFP's executor logs a page."""
    return record.levelno > logging.INFO or _EXECUTOR not in record.pathname


def _status(module: str) -> int:
    """Run the module as ``__main__``; return its exit status."""
    code: object = 0
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        code = exit_.code
    except BaseException:  # noqa: BLE001 (the edge of a process: shown, and reported as a status)
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    return int(code or 0) & 0xFF


def become(command: list[str]) -> NoReturn:
    """Run the component in this process, to its end."""
    status = 1
    try:
        status = _status(_dress(command))
        # An interpreter's finalization without the destruction of modules.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(status)


def main(leash: str) -> None:
    """Import the executor, report readiness, and serve."""
    gc.disable()
    for name in _IMPORTED:
        importlib.import_module(name)
    serving = _module(leash)
    if threading.active_count() > 1 or len(list(Path("/proc/self/task").glob("*"))) > 1:
        sys.exit("an import has started a thread")
    gc.enable()
    gc.collect()
    gc.freeze()  # a forked process's collector would touch, and so copy, every page of them
    with socket.socket(fileno=os.dup(0)) as listener:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        listener.sendall(b"1")
        serving.serve(listener, become)


if __name__ == "__main__":
    main(sys.argv[1])
