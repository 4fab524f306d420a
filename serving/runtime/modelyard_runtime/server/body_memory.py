"""The memory that the bodies of a server's requests have together."""

from __future__ import annotations

import threading
from types import TracebackType

from modelyard_runtime.server.refusals import RequestRefused


class BodyMemory:
    """Bounds the bytes of all bodies that are kept at once."""

    def __init__(self, most: int) -> None:
        """Keep no more than ``most`` bytes."""
        self._most = most
        self._held = 0
        self._lock = threading.Lock()  # bodies are decompressed in threads

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return self._held

    def hold(self) -> HeldBytes:
        """Begin a body."""
        return HeldBytes(self)

    def take(self, size: int) -> None:
        """Keep ``size`` bytes more; see :meth:`HeldBytes.add`."""
        with self._lock:
            if self._held + size > self._most:
                raise RequestRefused(
                    503, "The server has as many bytes of requests as it keeps: try again later.",
                    {"retry-after": "1"},
                )  # fmt: skip
            self._held += size

    def give(self, size: int) -> None:
        """Keep ``size`` bytes less."""
        with self._lock:
            self._held -= size


class HeldBytes:
    """The bytes of one body; a context that gives them back."""

    __slots__ = ("_is_released", "_memory", "_size")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._size = 0
        self._is_released = False

    def add(self, size: int) -> None:
        """Keep ``size`` bytes more.

        Raises:
            RequestRefused: 503 if the server has no room for them, or they are of a request that
                is over.
        """
        self._memory.take(size)
        self._size += size
        if self._is_released:  # by who gave it up while a thread reads it
            self.release()
            raise RequestRefused(503, "The request is over.")

    def release(self) -> None:
        """Give all of them back."""
        self._is_released = True
        size, self._size = self._size, 0
        self._memory.give(size)

    def __enter__(self) -> HeldBytes:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Give all of them back."""
        self.release()
