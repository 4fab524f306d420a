"""Start commands on a leash: the owner's side of ``leash.py``."""

from __future__ import annotations

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

LEASH = Path(__file__).with_name("leash.py")
PID_BYTES = 4
_PATIENCE_SECONDS = 10.0
_KILLED = -int(signal.SIGKILL)


def leash_command(
    command: Sequence[str],
    *,
    grace: float,
    stop_signal: signal.Signals = signal.SIGTERM,
    main_first: bool = False,
) -> list[str]:
    """The command line that runs ``command`` on a leash; its standard input must be a pipe."""
    first = "main" if main_first else "tree"
    options = ["--signal", str(int(stop_signal)), "--grace", str(grace), "--first", first]
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
) -> None:
    """Ask a server of leashes for one; what it is and what ``streams`` are: ``leash.receive``.

    Raises:
        OSError: If the server is gone.
    """
    wanted = {"command": list(command), "env": dict(env), "cwd": str(cwd), "grace": grace}
    data = json.dumps({**wanted, "keep": list(keep), "preload": list(preload)}).encode()
    socket.send_fds(server, [len(data).to_bytes(4, "big")], [*streams, *keep])
    server.sendall(data)


class Leash(Protocol):
    """A command whose whole process tree ends with its owner, which is this process."""

    @property
    def output(self) -> IO[bytes]:
        """The reading end of the tree's merged output, unbuffered; at its end nobody writes."""

    def stop(self) -> None:
        """Ask for the end of the tree: SIGTERM now, SIGKILL after the grace. Returns at once."""

    def wait(self) -> int:
        """Wait for the end: the exit status, or minus the signal that ended the command."""


class Start(Protocol):
    """What starts a command on a leash."""

    def __call__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
    ) -> Leash:
        """Start ``command``; on a stop it has ``grace`` seconds between SIGTERM and SIGKILL.

        The tree inherits the open files ``keep``, with their numbers.
        """


class Leashed:
    """A command on a leash of its own, which is an interpreter that starts first."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        keep: Sequence[int] = (),
    ) -> None:
        """Start ``command``, as :class:`Start` says."""
        self._process = subprocess.Popen(
            leash_command(command, grace=grace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
            start_new_session=True,
            pass_fds=keep,
        )

    @property
    def output(self) -> IO[bytes]:
        """The reading end of the tree's merged output; at its end every writer is gone."""
        assert self._process.stdout is not None
        return self._process.stdout

    def stop(self) -> None:
        """Ask for the end of the tree: SIGTERM now, SIGKILL after the grace. Returns at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end: the exit status, or minus the signal that ended the command."""
        code = self._process.wait()
        self.stop()
        return code


class _Served:
    """A command on a leash that a :class:`LeashServer` has made."""

    def __init__(self, output: IO[bytes], owner: int, told: int) -> None:
        self.output = output
        self._owner: int | None = owner
        self._told: int | None = told
        self._code = _KILLED  # so it stays if the leash could not tell
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Ask for the end of the tree."""
        with self._lock:
            owner, self._owner = self._owner, None
        if owner is not None:
            os.close(owner)

    def wait(self) -> int:
        """Wait for the end."""
        if self._told is not None:
            with os.fdopen(self._told, "rb") as told:
                # To its end, when the leash holds nothing any more either.
                status = told.read()[PID_BYTES:]
            self._told = None
            if status:
                self._code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
        self.stop()
        return self._code


class LeashServer:
    """Starts commands on leashes in a millisecond or two each; for who starts many.

    The leashes are those of :class:`Leashed`, and as independent: they outlive this server, and
    end with this process.
    """

    def __init__(
        self, command: Sequence[str] = (), *, env: Mapping[str, str] | None = None
    ) -> None:
        """Start the server's process.

        Args:
            command: What serves in the place of ``leash.py --serve``: it calls its ``serve`` with
                a ``become`` of its own, and writes a byte to its standard input beforehand.
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
        """Wait until a server with a command of its own serves; False if it never does."""
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
    ) -> Leash:
        """Start ``command``, as :class:`Start` says; by an interpreter if the server is gone."""
        owner_read, owner = os.pipe()
        output, output_write = os.pipe()
        told, told_write = os.pipe()
        theirs = (owner_read, output_write, told_write)
        try:
            with self._lock:
                request(self._socket, theirs, command, env=env, cwd=cwd, grace=grace, keep=keep)
        except OSError:
            for descriptor in (owner, output, told):
                os.close(descriptor)
            return Leashed(command, env=env, cwd=cwd, grace=grace, keep=keep)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return _Served(os.fdopen(output, "rb", buffering=0), owner, told)

    def close(self) -> None:
        """End the server; the leashes that it has made go on."""
        self._socket.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:  # it has not come to serving
            self._process.kill()
            self._process.wait()
