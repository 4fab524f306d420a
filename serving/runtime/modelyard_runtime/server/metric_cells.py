"""Numbers that the processes of a server share: a file of cells for each process.

A process writes only its own file, through memory that it maps, so that an update is one store
and needs neither a lock nor a system call. Whoever is asked for the metrics reads the files of
all. The file of a process that has ended keeps its numbers until another takes it over and counts
on, so a worker's replacement resets no counter, and there are no more files than there were
processes at a time.

A file has the length of what is used in its first 8 bytes, then entries: the length of a key and
the number of its cells (4 bytes each), the key, padded to 8 bytes with blanks, and its cells.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_BYTES = 16 * 2**20  # of a file; what is not used of it takes no space
_HEAD, _WORD = struct.Struct("=Q"), 8
_ENTRY = struct.Struct("=II")
_SPILL = 64  # cells for what has no space any more; nobody reads them

Values = Mapping[str, tuple[float, ...]]


class CellFile:
    """The cells of this process. Each has one writer at a time, and needs no lock.

    Attributes:
        cells: All cells. A key's begin at the index that :meth:`reserve` returns.
    """

    def __init__(self, folder: Path | None = None, size: int = _BYTES) -> None:
        """Open a file that no process uses.

        Args:
            folder: The folder of the server's files, for its processes alone; None for a server
                of one process, which needs no file.
            size: Most bytes of it.

        Raises:
            OSError: If there can be no such file.
        """
        self._folder = folder
        self._name = ""
        self._descriptor = -1
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._name, self._descriptor = _take(folder)
            os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        self.cells = memoryview(self._memory).cast("d")
        self._lock = threading.Lock()
        self._spill = len(self.cells) - _SPILL
        self._used = max(_WORD, *_HEAD.unpack_from(self._memory))
        self._at = {key: at // _WORD for key, at, _ in _entries(self._memory, self._used)}

    @property
    def keys(self) -> Mapping[str, int]:
        """The keys, and where the cells of each begin."""
        return self._at

    def reserve(self, key: str, count: int) -> int:
        """Where the ``count`` cells of a key begin; 0 at first, else as they were left.

        Keys that no longer fit share cells that are not read.
        """
        with self._lock:
            return self._at[key] if key in self._at else self._append(key, count)

    def _append(self, key: str, count: int) -> int:
        encoded = key.encode()
        encoded += b" " * (-len(encoded) % _WORD)
        begin = self._used + _ENTRY.size + len(encoded)
        if begin + count * _WORD > self._spill * _WORD:
            return self._spill
        _ENTRY.pack_into(self._memory, self._used, len(encoded), count)
        self._memory[self._used + _ENTRY.size : begin] = encoded
        self._used = begin + count * _WORD
        _HEAD.pack_into(self._memory, 0, self._used)  # from here on others read it
        self._at[key] = begin // _WORD
        return self._at[key]

    def read_all(self) -> Iterator[tuple[Values, bool]]:
        """The values of each process of the server by keys, and whether it is running."""
        yield _values(self._memory, self._used), True
        if self._folder is None:
            return
        for path in sorted(self._folder.iterdir()):
            if path.name != self._name:
                with path.open("rb") as file:
                    is_running = not _lock(file.fileno(), fcntl.LOCK_SH)
                    head = file.read(_WORD)
                    used = _HEAD.unpack(head)[0] if len(head) == _WORD else 0
                    yield _values(head + file.read(max(0, used - _WORD)), used), is_running

    def close(self) -> None:
        """Leave the file to another process."""
        self.cells.release()
        self._memory.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _take(folder: Path) -> tuple[str, int]:
    """The first file that no process holds, locked, and open; a new one if there is none."""
    for number in itertools.count():
        name = f"cells-{number}"
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _lock(descriptor, fcntl.LOCK_EX):
            return name, descriptor
        os.close(descriptor)
    raise AssertionError


def _lock(descriptor: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False


def _values(memory: mmap.mmap | bytes, used: int) -> dict[str, tuple[float, ...]]:
    return {
        key: struct.unpack_from(f"={count}d", memory, at)
        for key, at, count in _entries(memory, used)
    }


def _entries(memory: mmap.mmap | bytes, used: int) -> Iterator[tuple[str, int, int]]:
    """Each key, the place of its cells in bytes, and their number."""
    at = _WORD
    while at < used:
        length, count = _ENTRY.unpack_from(memory, at)
        at += _ENTRY.size
        key = memory[at : at + length].decode().rstrip()
        at += length
        yield key, at, count
        at += count * _WORD
