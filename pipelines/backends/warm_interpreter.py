"""Python interpreter with KFP's executor imported, which forks for each component.

``python -P warm_interpreter.py LEASH MAIN_MODULE`` with standard input a Unix socket, in the
components' environment. Importing KFP takes most of the time of a small component, and a fork
takes milliseconds. Each component is a process of its own on a leash of its own, with its own
folder, environment, arguments and output, as if ``python -m MODULE`` had been started for it.

It ends when the socket's other end is closed. It refuses to serve where an import has started a
thread: a fork would copy whatever lock that one held, locked for ever. Only the standard library
is imported, and KFP: nothing of ours is in the components' environment, and so ``infra.leash`` and
``infra.main_module`` are loaded by their paths.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import io
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

_EXECUTOR = str(Path("kfp", "dsl", "executor"))
_IMPORTED = ("kfp", "kfp.dsl", "kfp.dsl.executor", "kfp.dsl.executor_main")


def _module(path: str) -> ModuleType:
    """Load a module by path: its folder must not be on a component's import path."""
    spec = importlib.util.spec_from_file_location(f"_modelyard_{Path(path).stem}", path)
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


def _dress(python: str) -> None:
    """Give this process the streams, the path and the prefix of the interpreter ``python``."""
    sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]
    logging.getLogger().addFilter(_is_relevant)
    sys.executable = python
    sys.prefix = sys.exec_prefix = str(Path(python).parents[1])
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path[:0] = [str(Path.cwd()), f"{sys.prefix}/lib/{version}/site-packages"]


def _is_relevant(record: logging.LogRecord) -> bool:
    """Whether a record is the component's own or an error: KFP's executor logs a page."""
    return record.levelno > logging.INFO or _EXECUTOR not in record.pathname


def _become(run: Callable[[str, list[str]], int], command: list[str]) -> NoReturn:
    """Run the component ``PYTHON -m MODULE ARGUMENT...`` in this process, to its end."""
    status = 1
    try:
        python, _, module, *arguments = command
        _dress(python)
        status = run(module, arguments)
    finally:
        os._exit(status)


def main(leash: str, main_module: str) -> None:
    """Import the executor, report readiness, and serve."""
    gc.disable()
    for name in _IMPORTED:
        importlib.import_module(name)
    serving = _module(leash)
    become = functools.partial(_become, _module(main_module).run)
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
    main(*sys.argv[1:])
