"""Run a command whose whole process tree ends when its owner does.

Used as ``python -I -S leash.py [--signal N] [--grace SECONDS] [--first tree|main] [--main PID]
[--told FD] [--output FD] -- COMMAND...``
with standard input a pipe from the owner. The tree is ended as soon as the owner closes that pipe
(on purpose or by dying), or when the leash is signalled itself: ``--signal`` goes to the whole
tree, or to the command alone if that ends its own children in good order, and after the grace
SIGKILL goes to all. When the command ends by itself, whatever it left running is killed at once.
The leash ends as the command ended: with the same status, or by the same signal. The command
has the leash's own output, or the open file ``--output``.

``python -I -S leash.py --serve`` with standard input a Unix socket makes a leash for each request
that it receives, by a fork: a millisecond instead of the start of an interpreter.

On Linux the leash is a subreaper, so that a process which detaches itself is still its
descendant, and the command is killed by the kernel should the leash itself be killed. This
file is run by path and imports nothing but the standard library, because it starts once per
script and must cost milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def descendants(root: int) -> list[int]:
    """Process ids below ``root``, nearest first, from ``/proc`` or else from ``ps``."""
    children: dict[int, list[int]] = {}
    for pid, parent in _process_table():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def _process_table() -> list[tuple[int, int]]:
    if not os.path.isdir("/proc/self"):  # noqa: PTH112 (pathlib is slow to import)
        out = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True).stdout
        return [(int(pid), int(parent)) for pid, parent in map(str.split, out.splitlines())]
    table = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # The command name may hold spaces and brackets: fields count from its end.
                table.append((int(name), int(file.read().rpartition(b")")[2].split()[1])))
    return table


def _kill_tree(signum: int) -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _reap(main: int) -> int | None:
    """Reap whatever has ended; the main command's wait status if it was among it."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, raw = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == main:
                status = raw
    return status


def _execute(command: list[str]) -> NoReturn:
    os.execvp(command[0], command)  # noqa: S606


def spawn(
    command: list[str], become: Callable[[list[str]], NoReturn], output: int | None = None
) -> int:
    """Fork the command's process, which ends with this one; its id.

    It writes to the open file ``output``, or where this one does.
    """
    owner = os.getpid()
    # Until the child has its own handlers a signal waits; ours would swallow it there.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return pid
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != owner:  # the leash died between the fork and the line above
                os._exit(137)
        for signum in (*_SIGNALS, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(signum, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if output is not None:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
        become(command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _childless() -> bool:
    """Whether no descendant is left: a subreaper without children has none."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def _end_like(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        signum = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL takes no handler and needs none
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(os.waitstatus_to_exitcode(status))


def run(
    command: list[str],
    stop_signal: int,
    grace: float,
    *,
    main_first: bool,
    become: Callable[[list[str]], NoReturn] = _execute,
    main: int = 0,
    output: int | None = None,
) -> int:
    """Run ``command`` to its end or its owner's; its wait status when nothing is left of it.

    ``become`` is called in the process that is to be the command, and does not return. If the
    command runs already, as our child, ``main`` is its process id. ``output`` is as in
    :func:`spawn`.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked: list[int] = []
    for signum in _SIGNALS:
        signal.signal(signum, lambda number, _frame: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    main = main or spawn(command, become, output)

    status = _reap(main)
    deadline: float | None = None
    watched = [0, wake_read]
    while status is None:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(watched, [], [], timeout)
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready and not os.read(0, 4096):
            watched.remove(0)
            asked.append(stop_signal)
        status = _reap(main)
        if status is None and asked and deadline is None:
            if main_first:
                os.kill(main, stop_signal)
            else:
                _kill_tree(stop_signal)
            deadline = time.monotonic() + grace
        elif status is None and deadline is not None and time.monotonic() >= deadline:
            _kill_tree(signal.SIGKILL)
            deadline = time.monotonic() + 0.2  # again, for what was forked meanwhile
    while not _childless():
        _kill_tree(signal.SIGKILL)
        time.sleep(0.005)
    return status


def _keep_numbers(streams: list[int], numbers: list[int]) -> None:
    """Give open files the numbers that they have in the owner, as ``pass_fds`` does."""
    above = max(numbers, default=2) + 1
    moved = [fcntl.fcntl(stream, fcntl.F_DUPFD, above) for stream in streams]
    for stream in streams:
        os.close(stream)
    for stream, number in zip(moved, numbers, strict=True):
        os.dup2(stream, number)
        os.close(stream)


def take_over(request: dict[str, Any], streams: list[int]) -> int:
    """Take what came with a request, and tell our process id; where its end is to be told."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    owner, output, told, *kept = streams
    for target, stream in ((0, owner), (1, output), (2, output)):
        os.dup2(stream, target)
    for stream in (owner, output):
        os.close(stream)
    numbers = request["keep"]
    moved = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, max(numbers, default=2) + 1)
    os.close(told)
    _keep_numbers(kept, numbers)
    os.write(moved, os.getpid().to_bytes(4, "big"))
    os.environ.clear()
    os.environ.update(request["env"])
    return moved


def _serve_one(
    request: dict[str, Any], streams: list[int], become: Callable[[list[str]], NoReturn]
) -> NoReturn:
    """Become the leash of a request."""
    told = take_over(request, streams)
    status = 127 << 8
    try:
        os.chdir(request["cwd"])
        status = run(
            request["command"], signal.SIGTERM, request["grace"],
            main_first=False, become=become, output=request.get("output"),
        )  # fmt: skip
    except OSError as error:
        os.write(2, f"cannot run it: {error}\n".encode())
    # The kernel closes what is open at an exit in an order of its own, and whoever sees the status
    # may lock at once what was kept.
    for number in request["keep"]:
        os.close(number)
    _tell(told, status, _microseconds())
    os._exit(0)


def _microseconds() -> bytes:
    """Processor time of all that this leash has reaped, which was its whole tree."""
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((reaped.ru_utime + reaped.ru_stime) * 1e6).to_bytes(8, "big")


def _tell(told: int, status: int, more: bytes = b"") -> None:
    with contextlib.suppress(OSError):  # nobody waits for it any more
        os.write(told, status.to_bytes(4, "big") + more)


def receive(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request and its open files; None when the other end is closed.

    A request is its length in four bytes and a JSON object with ``command``, ``env``, ``cwd``,
    ``grace`` and ``keep``. With it come the owner's pipe, the output, where the leash tells its
    process id and then the wait status, four bytes each, and in eight the tree's processor time in
    microseconds, and the open files that the command inherits, whose numbers are ``keep``. If the
    command is to write to one of those, ``output`` is its number.
    """
    header, streams, _, _ = socket.recv_fds(listener, 4, 64)
    if not header:
        return None
    size = int.from_bytes(header, "big")
    data = b""
    while len(data) < size:
        data += listener.recv(size - len(data))
    return json.loads(data), list(streams)


def serve(listener: socket.socket, become: Callable[[list[str]], NoReturn] = _execute) -> None:
    """Make leashes until the other end of ``listener`` is closed.

    They outlive this process. ``become`` is as in :func:`run`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they are reaped by the kernel
    while (received := receive(listener)) is not None:
        request, streams = received
        if os.fork() == 0:
            listener.close()
            _serve_one(request, streams, become)
        for stream in reversed(streams):  # the status pipe after what is kept
            os.close(stream)


def _main(arguments: list[str]) -> None:
    if arguments == ["--serve"]:
        with socket.socket(fileno=os.dup(0)) as listener:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            serve(listener)
        return
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    status = run(
        arguments[split + 1 :],
        int(options.get("--signal", signal.SIGTERM)),
        float(options.get("--grace", "3")),
        main_first=options.get("--first") == "main",
        main=int(options.get("--main", "0")),
        output=int(options["--output"]) if "--output" in options else None,
    )
    if "--told" in options:
        _tell(int(options["--told"]), status)
    _end_like(status)


if __name__ == "__main__":
    _main(sys.argv[1:])
