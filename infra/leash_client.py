"""Start commands on a leash: the owner's side of ``leash.py``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from infra import process_usage

LEASH = Path(__file__).with_name("leash.py")
PID_BYTES = 4
_STATUS_BYTES = 4
_PATIENCE_SECONDS = 10.0
_KILLED = -int(signal.SIGKILL)


def leash_command(
    command: Sequence[str],
    *,
    grace: float,
    stop_signal: signal.Signals = signal.SIGTERM,
    main_first: bool = False,
    output: int | None = None,
) -> list[str]:
    """Build the command line that runs ``command`` on a leash; its standard input is a pipe."""
    first = "main" if main_first else "tree"
    options = ["--signal", str(int(stop_signal)), "--grace", str(grace), "--first", first]
    options += [] if output is None else ["--output", str(output)]
    return [sys.executable, "-I", "-S", str(LEASH), *options, "--", *command]


def request(
    server: socket.socket,
    streams: Sequence[int],
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    grace: float,
    keep: Sequence[int],
    preload: Sequence[str] = (),
    output: int | None = None,
) -> None:
    """Ask a server of leashes for one; what it is and what ``streams`` are: ``leash.receive``.

    Raises:
        OSError: If the server is gone.
    """
    wanted = {"command": list(command), "env": dict(env), "cwd": str(cwd), "grace": grace}
    wanted |= {"keep": list(keep), "preload": list(preload), "output": output}
    data = json.dumps(wanted).encode()
    socket.send_fds(server, [len(data).to_bytes(4, "big")], [*streams, *keep])
    server.sendall(data)


class Leash(Protocol):
    """A command whose whole process tree ends with its owner, which is this process."""

    @property
    def output(self) -> IO[bytes]:
        """Reading end of the tree's merged output, unbuffered; it ends with the last writer.

        Where the output is a file, it ends with the leash.
        """

    @property
    def pid(self) -> int:
        """Process id of the leash itself, the parent of the tree; 0 if it never started."""

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the whole tree, known after :meth:`wait`; 0 where it is not."""

    def stop(self) -> None:
        """Request the end of the tree: SIGTERM now, SIGKILL after the grace. Returns at once."""

    def wait(self) -> int:
        """Wait for the end; the exit status, or minus the signal that ended the command."""


class LeashStarter(Protocol):
    """Callable that starts a command on a leash."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
        output: int | None = None,
    ) -> Leash:
        """Start ``command``; on a stop it has ``grace`` seconds between SIGTERM and SIGKILL.

        The tree inherits the open files ``keep``, with their numbers. Its output goes to
        :attr:`Leash.output`, or to the open file ``output``, which is one of ``keep``.
        """


class SpawnedLeash:
    """Leash in an interpreter of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
        output: int | None = None,
    ) -> None:
        """Start ``command``, as :class:`LeashStarter` says."""
        self._process = subprocess.Popen(
            leash_command(command, grace=grace, output=output),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
            pass_fds=keep,
        )
        self.pid = self._process.pid
        self.cpu_seconds = 0.0

    @property
    def output(self) -> IO[bytes]:
        """Reading end of the tree's merged output; it ends with the last writer."""
        assert self._process.stdout is not None
        return self._process.stdout

    def stop(self) -> None:
        """Request the end of the tree: SIGTERM now, SIGKILL after the grace. Returns at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def runs(self) -> bool:
        """Whether the command has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end; the exit status, or minus the signal that ended the command."""
        if self._process.returncode is None:
            with contextlib.suppress(ChildProcessError):  # another thread has seen its end
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                self.cpu_seconds = process_usage.reaped_seconds(self.pid)
        code = self._process.wait()
        self.stop()
        return code


class _ForkedLeash:
    """Leash forked by a :class:`LeashServer`."""

    def __init__(self, output: IO[bytes], owner: int, status_read: int) -> None:
        self.output = output
        self._owner: int | None = owner
        self._status: int | None = status_read
        self._code = _KILLED  # if the leash could not report
        self._pid: int | None = None
        self._lock = threading.Lock()
        self.cpu_seconds = 0.0

    @property
    def pid(self) -> int:
        """Process id of the leash, which it reports as soon as it is forked; 0 if it never was."""
        with self._lock:
            if self._pid is None and self._status is not None:
                self._pid = int.from_bytes(os.read(self._status, PID_BYTES), "big")
        return self._pid or 0

    def stop(self) -> None:
        """Request the end of the tree."""
        with self._lock:
            owner, self._owner = self._owner, None
        if owner is not None:
            os.close(owner)

    def wait(self) -> int:
        """Wait for the end."""
        if self._status is not None:
            with os.fdopen(self._status, "rb") as status_read:
                # To its end, when the leash holds nothing any more either.
                told = status_read.read()
            self._status = None
            told = told if self._pid is not None else told[PID_BYTES:]
            if status := told[:_STATUS_BYTES]:
                self._code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
                self.cpu_seconds = int.from_bytes(told[_STATUS_BYTES:], "big") / 1e6
        self.stop()
        return self._code


class LeashServer:
    """Server that forks leashes, in a millisecond or two each.

    The leashes outlive this server and end with this process, like a :class:`SpawnedLeash`.
    """

    def __init__(
        self, command: Sequence[str] = (), *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the server's process.

        Args:
            command: Command that serves instead of ``leash.py --serve``: it calls its ``serve``
                with a ``become`` of its own, after writing a byte to its standard input.
            env: The server's environment.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                list(command) or [sys.executable, "-I", "-S", str(LEASH), "--serve"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if command else None,
                start_new_session=True,
                env=dict(env or {}),
            )

    def ready(self, patience: float) -> bool:
        """Wait until a server with a command of its own is ready; False if it never is."""
        self._socket.settimeout(patience)
        try:
            return self._socket.recv(1) != b""
        except OSError:
            return False
        finally:
            self._socket.settimeout(None)

    def runs(self) -> bool:
        """Whether the server has not ended."""
        return self._process.poll() is None

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
        output: int | None = None,
    ) -> Leash:
        """Start ``command``; in an interpreter of its own if the server is gone."""
        owner_read, owner = os.pipe()
        output_read, output_write = os.pipe()
        status_read, status_write = os.pipe()
        theirs = (owner_read, output_write, status_write)
        try:
            with self._lock:
                request(
                    self._socket, theirs, command,
                    env=env, cwd=cwd, grace=grace, keep=keep, output=output,
                )  # fmt: skip
        except OSError:
            for descriptor in (owner, output_read, status_read):
                os.close(descriptor)
            return SpawnedLeash(command, env=env, cwd=cwd, grace=grace, keep=keep, output=output)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return _ForkedLeash(os.fdopen(output_read, "rb", buffering=0), owner, status_read)

    def close(self) -> None:
        """End the server; its leashes stay."""
        self._socket.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # it does not serve yet
            self._process.kill()
            self._process.wait()
