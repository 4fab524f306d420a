"""Standard input and output of a predictor, with a time limit."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from typing import IO, Any, cast

_CHUNK = 64 * 1024
_TICK_SECONDS = 0.5


class PipeTimeoutError(Exception):
    """The other side did not read or write in time."""


class PredictorPipes:
    """A binary file that writes to a process, and reads what it writes. For one thread.

    The end of the process is the end of its output, also if a child of its own holds the pipe.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Use the pipes of ``process``."""
        self._process = process
        self._input, self._output = (
            cast("IO[bytes]", process.stdin),
            cast("IO[bytes]", process.stdout),
        )
        for stream in (self._input, self._output):
            os.set_blocking(stream.fileno(), False)
        self._writable, self._readable = select.poll(), select.poll()
        self._writable.register(self._input, select.POLLOUT)
        self._readable.register(self._output, select.POLLIN)
        self._unsent = bytearray()
        self._received = memoryview(b"")
        self._until = 0.0

    def limit(self, seconds: float) -> None:
        """Have what follows raise ``PipeTimeoutError`` once so many seconds have passed."""
        self._until = time.monotonic() + seconds

    def write(self, data: Any) -> None:
        """Write bytes, or an array of them.

        Raises:
            BrokenPipeError: If the process has ended.
            PipeTimeoutError: If it does not read them in time.
        """
        view = memoryview(data)
        if len(self._unsent) + len(view) <= _CHUNK:  # small columns go together
            self._unsent += view
            return
        self.flush()
        self._send(view)

    def flush(self) -> None:
        """Send what is still held back; see :meth:`write`."""
        unsent, self._unsent = self._unsent, bytearray()
        self._send(memoryview(unsent))

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or fewer where the output ends.

        Raises:
            PipeTimeoutError: If they do not come in time.
        """
        found = bytearray(size)
        at = 0
        while at < size and (count := self.readinto(memoryview(found)[at:])):
            at += count
        return bytes(found[:at])

    def readinto(self, buffer: memoryview) -> int:
        """Read some bytes, and return how many; 0 at the end. See :meth:`read`."""
        if not self._received:
            if len(buffer) >= _CHUNK:
                return self._receive(buffer)
            some = bytearray(_CHUNK)
            self._received = memoryview(some)[: self._receive(memoryview(some))]
        count = min(len(buffer), len(self._received))
        buffer[:count] = self._received[:count]
        self._received = self._received[count:]
        return count

    def close(self) -> None:
        """Close both pipes."""
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError, ValueError):
                stream.close()

    def _send(self, view: memoryview) -> None:
        while view:
            try:
                view = view[os.write(self._input.fileno(), view) :]
            except BlockingIOError:
                if not self._wait(self._writable):
                    raise BrokenPipeError from None

    def _receive(self, buffer: memoryview) -> int:
        while True:
            with contextlib.suppress(BlockingIOError):
                return os.readv(self._output.fileno(), [buffer])
            if not self._wait(self._readable):
                return 0

    def _wait(self, for_pipe: select.poll) -> bool:
        """Wait until the pipe can be used; False if the process has ended, and it cannot."""
        while True:
            left = self._until - time.monotonic()
            if left <= 0:
                raise PipeTimeoutError
            if for_pipe.poll(1000 * min(left, _TICK_SECONDS)):
                return True
            if self._process.poll() is not None:
                return bool(for_pipe.poll(0))
