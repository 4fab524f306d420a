"""A process that imports what several parts of the stack run, and forks them.

``python -m infra.stack.preloader MODULE...`` with standard input a socket of the supervisor, which
asks there for parts on leashes (``leash.receive``). Each is forked as soon as the modules that it
names as ``preload`` are imported, and shares their pages with the others. Its leash is a process
of its own, which outlives this one: if one of the parts ends, the others go on.

This process has one thread, always: a fork copies the calling thread only, and whatever lock
another one held would stay locked for ever.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from infra import leash, main_module

Request = dict[str, Any]


def _import(module: str) -> None:
    # What cannot be imported fails again in the server itself, whose log says so.
    with contextlib.suppress(Exception):
        importlib.import_module(module)


def _is_asked(listener: socket.socket) -> bool:
    return bool(select.select([listener], [], [], 0)[0])


def _become(told: int, command: list[str]) -> NoReturn:
    """Become ``python OPTIONS -m MODULE ARGUMENT...``."""
    os.close(told)
    gc.enable()
    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()  # of this environment
    module, *arguments = command[3:]
    os._exit(main_module.run(module, arguments))


def _fork(request: Request, streams: list[int]) -> NoReturn:
    """Fork the part, and become its leash, which keeps none of our pages."""
    told = leash.take_over(request, streams)
    os.chdir(request["cwd"])
    command = request["command"]
    main = leash.spawn(command, functools.partial(_become, told))
    os.set_inheritable(told, True)
    options = ["--grace", str(request["grace"]), "--main", str(main), "--told", str(told)]
    python = [sys.executable, "-I", "-S", leash.__file__]
    os.execv(sys.executable, [*python, *options, "--first", "main", "--", *command])  # noqa: S606


def serve(listener: socket.socket, modules: list[str]) -> None:
    """Import ``modules``, and fork what is asked for, until the other end is closed.

    Raises:
        RuntimeError: If an import has started a thread.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leashes are reaped by the kernel
    waiting: list[tuple[Request, list[int]]] = []
    while True:
        if modules and not _is_asked(listener):
            _import(modules.pop(0))
        elif received := leash.receive(listener):
            waiting.append(received)
        else:
            return
        for request, streams in list(waiting):
            if not set(request["preload"]).isdisjoint(modules):
                continue
            if threading.active_count() > 1:
                raise RuntimeError(f"an import started threads: {threading.enumerate()}")
            waiting.remove((request, streams))
            gc.freeze()  # a forked process's collector would touch, and so copy, every page
            if os.fork() == 0:
                for other in [listener.detach(), *(one for _, held in waiting for one in held)]:
                    os.close(other)
                _fork(request, streams)
            for stream in streams:
                os.close(stream)


def main(modules: list[str]) -> None:
    """Serve the owner of standard input."""
    gc.disable()  # looks through all that is imported again and again, and finds nothing
    with socket.socket(fileno=os.dup(0)) as listener:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        serve(listener, modules)


if __name__ == "__main__":
    main(sys.argv[1:])
