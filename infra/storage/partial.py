"""Resumable state of a fetch: its bytes and a journal.

``.NAME.DIGEST.partial`` beside the destination holds the data, a journal of the parts that are
complete, and a lock. The next fetch of the same URI to the same destination resumes a killed
one; the digest identifies the URI. The journal is trusted only where the bytes on the disk have
the recorded checksum, or where the whole is verified in the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from infra.storage.base import parents

_LOCK = "lock"
_DIGITS = 16  # fewer than in the name of a copy of files, which nothing goes on from
_NAME = re.compile(rf"\..+\.[0-9a-f]{{1,{_DIGITS}}}\.partial", re.DOTALL)
_HIDDEN = re.compile(rf"\..+\.([0-9a-f]{{{_DIGITS}}}|copy)\.partial", re.DOTALL)


class PartialFetch:
    """Folder of one fetch, while its lock is held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = (folder / "journal").open("a+b", buffering=0)
        self._parts: dict[tuple[str, str, int], dict[int, str]] = {}
        self._writing = threading.Lock()
        self._load()

    @property
    def data(self) -> Path:
        """Path that will be renamed to the destination: a folder or a file."""
        return self._folder / "data"

    def path(self, name: str) -> Path:
        """Where the file ``name`` is written; ``data`` itself if the name is empty."""
        return self.data / name if name else self.data

    def _load(self) -> None:
        self._journal.seek(0)
        lines = self._journal.read().split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):  # a kill may leave half a line
                name, etag, step, number, md5 = json.loads(line)
                self._parts.setdefault((name, etag, step), {})[number] = md5
        if lines[-1]:
            self._journal.write(b"\n")

    def complete(self, name: str, etag: str, step: int) -> dict[int, str]:
        """Return the MD5s, by number, of an object's written parts; "" if unknown."""
        return dict(self._parts.get((name, etag, step), {}))

    def record(self, name: str, etag: str, step: int, number: int, md5: str) -> None:
        """Record that a part is written. ``step`` is the size of the parts."""
        line = json.dumps([name, etag, step, number, md5]).encode() + b"\n"
        with self._writing:
            self._parts.setdefault((name, etag, step), {})[number] = md5
            self._journal.write(line)

    def forget(self, name: str, etag: str, step: int) -> None:
        """Discard the records of an object's parts."""
        for number in self.complete(name, etag, step):
            self.record(name, etag, step, number, "wrong")
        self._parts.pop((name, etag, step), None)

    def kept(self) -> int:
        """Bytes on the disk that the data occupy."""
        return sum(
            Path(folder, name).stat().st_blocks * 512
            for folder, _, names in os.walk(self._folder)
            for name in names
        )

    def prepare(self, names: Collection[str] | None) -> None:
        """Create the folders for files of these names, and remove other files.

        Args:
            names: None for one file alone.
        """
        if names is None:
            if self.data.is_dir():
                shutil.rmtree(self.data)
            return
        if self.data.is_file():
            self.data.unlink()
        self.data.mkdir(exist_ok=True)
        folders = {parent for name in names for parent in parents(name)}
        wanted = set(names)
        for found, inner, files in os.walk(self.data, topdown=False):
            for entries, kept, discard in (
                (files, wanted, Path.unlink), (inner, folders, Path.rmdir)
            ):  # fmt: skip
                for path in (Path(found, name) for name in entries):
                    if str(path.relative_to(self.data)) not in kept:
                        discard(path)
        for folder in sorted(folders):
            (self.data / folder).mkdir(exist_ok=True)

    def move(self, destination: Path) -> None:
        """Rename the data to the destination, and remove everything else."""
        self.data.rename(destination)
        self.remove()

    def remove(self) -> None:
        """Remove everything."""
        remove(self._folder)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def folder_of(destination: Path, uri: str) -> Path:
    """Return the folder for a fetch of ``uri`` to ``destination``."""
    digest = hashlib.sha256(uri.encode()).hexdigest()[:_DIGITS]
    return destination.with_name(f".{destination.name}.{digest}.partial")


def is_partial(path: Path) -> bool:
    """Whether ``path`` is the state of an interrupted fetch."""
    return _NAME.fullmatch(path.name) is not None


def is_hidden(name: str) -> bool:
    """Whether a name is that of an incomplete fetch or copy."""
    return _HIDDEN.fullmatch(name) is not None


@contextlib.contextmanager
def opened(destination: Path, uri: str) -> Iterator[PartialFetch | None]:
    """Open the state of a fetch of ``uri``, once no other process uses it.

    None if another process has completed the same fetch, so that the destination exists.
    """
    folder = folder_of(destination, uri)
    with locked(folder):
        if destination.exists():
            remove(folder)
            yield None
            return
        partial = PartialFetch(folder)
        try:
            yield partial
        finally:
            partial.close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock ``folder`` exclusively; create it if needed."""
    while True:
        # Not `exist_ok`: it looks once more, and the owner may have removed the folder by then.
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
        try:
            lock = (folder / _LOCK).open("w")
        except FileNotFoundError:  # its owner has ended and removed it just now
            continue
        with lock:
            _hold(lock)
            if _is_still(folder / _LOCK, lock.fileno()):
                yield
                return


def _hold(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        # A mount may not support locks: then concurrent fetches are not excluded.
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}:
            raise


def clear(folder: Path) -> None:
    """Remove everything in a locked folder except its lock."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()


def remove(folder: Path) -> None:
    """Remove a locked folder: the lock last, so that no process starts before all is gone."""
    clear(folder)
    (folder / _LOCK).unlink()
    with contextlib.suppress(OSError):  # another process uses it already
        folder.rmdir()


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the name still belongs to the file that was opened by it."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
