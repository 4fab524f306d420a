"""Start parts as forks of ``preloader.py``: the supervisor's side."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from infra.forkclient import own_python
from infra.leash_client import PID_BYTES, request

_KILLED = 137


class Forked:
    """A command on a leash, with what :class:`asyncio.subprocess.Process` has.

    Attributes:
        pid: The leash's.
        stdin: Its pipe, at whose end it ends the command.
        returncode: How it ended; None while it runs.
    """

    def __init__(self, pid: int, stdin: IO[bytes], told: asyncio.StreamReader) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None
        self._ending = asyncio.create_task(self._end(told))

    async def _end(self, told: asyncio.StreamReader) -> int:
        status = await told.read()
        killed = len(status) < PID_BYTES
        self.returncode = (
            _KILLED if killed else os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
        )
        self.stdin.close()
        return self.returncode

    async def wait(self) -> int:
        """Wait for the end."""
        return await asyncio.shield(self._ending)


class Preloader:
    """Has modules imported once, and starts commands that run them as forks."""

    def __init__(self, modules: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> None:
        """Start the process that imports."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [*own_python("infra.stack.preloader"), *modules],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=dict(env),
            )

    async def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        grace: float,
        log: int,
        keep: Sequence[int],
        preload: Sequence[str],
    ) -> Forked | None:
        """Start ``command``, whose output goes to ``log``; None if the process is gone."""
        owner_read, owner = os.pipe()
        told, told_write = os.pipe()
        stdin = os.fdopen(owner, "wb", buffering=0)
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(told, "rb")
        )
        try:
            try:
                request(
                    self._socket, (owner_read, log, told_write), command,
                    env=env, cwd=cwd, grace=grace, keep=keep, preload=preload,
                )  # fmt: skip
            finally:
                os.close(owner_read)
                os.close(told_write)
            pid = await reader.readexactly(PID_BYTES)
        except BaseException as error:
            stdin.close()
            transport.close()
            if isinstance(error, OSError | asyncio.IncompleteReadError):
                return None
            raise
        return Forked(int.from_bytes(pid, "big"), stdin, reader)

    async def close(self) -> None:
        """End the process; what it has started goes on."""
        self._socket.close()
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
