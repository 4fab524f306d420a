"""Checkpoints of a script, kept at a URI that is no folder of this machine.

The script writes to a folder. What is new in it is copied now and then, so that the loss of the
machine costs no more than that while, and once more at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.errors import ModelyardError
from infra.storage import store

# Of each file below an entry: its name, size and time of change, in nanoseconds.
_State = frozenset[tuple[str, int, int]]


@contextlib.contextmanager
def mirrored(
    folder: Path, uri: str, *, seconds: float, warn: Callable[[str], object]
) -> Iterator[None]:
    """Keep ``uri`` up to date with ``folder`` for the while.

    Names that begin with a dot are left out: a checkpoint that is half written may have one.

    Args:
        folder: Where the script writes.
        uri: Where the copies go; "" for nowhere.
        seconds: How often what is new is copied.
        warn: Told of a copy that failed and will be tried again.

    Raises:
        ModelyardError: If the last copy fails, and nothing else has gone wrong before.
    """
    if not uri:
        yield
        return
    mirror = _Mirror(folder, uri)
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(seconds):
            try:
                mirror.copy()
            except (ModelyardError, OSError) as error:
                warn(f"Checkpoints are not copied to {uri} this time: {error}")

    thread = threading.Thread(target=repeat, daemon=True, name="checkpoints")
    thread.start()
    try:
        yield
    except BaseException:
        done.set()
        thread.join()
        try:
            mirror.copy()
        except (ModelyardError, OSError) as error:
            warn(f"The last checkpoints are not copied to {uri}: {error}")
        raise
    done.set()
    thread.join()
    mirror.copy()


def copy(folder: Path, uri: str) -> None:
    """Copy all of ``folder`` to ``uri``; to "" nothing.

    Raises:
        ModelyardError: If it fails.
    """
    if uri and folder.is_dir():
        _Mirror(folder, uri).copy()


class _Mirror:
    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self._uri = uri
        self._copied: dict[str, _State] = {}

    def copy(self) -> None:
        """Copy the folder's entries that changed since the last time, each whole."""
        found = {
            entry.name: _state(entry)
            for entry in self._folder.iterdir()
            if not entry.name.startswith(".")
        }
        changed = {name for name, state in found.items() if self._copied.get(name) != state}
        changed = {name for name in changed if found[name]}  # an empty folder has nothing to copy
        if not changed:
            return
        # Publishing takes a folder: one of hard links, which costs no room and no reading.
        staging = self._folder.with_name(f".{self._folder.name}.changed")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            for name in changed:
                _link(self._folder / name, staging / name)
            store(self._uri).publish(staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._copied |= {name: found[name] for name in changed}


def _files(entry: Path) -> Iterator[Path]:
    if entry.is_dir() and not entry.is_symlink():
        for child in entry.iterdir():
            yield from _files(child)
    else:
        yield entry


def _state(entry: Path) -> _State:
    state = set()
    for file in _files(entry):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            found = file.lstat()
            state.add((str(file.relative_to(entry)), found.st_size, found.st_mtime_ns))
    return frozenset(state)


def _link(entry: Path, target: Path) -> None:
    for file in _files(entry):
        link = target / file.relative_to(entry) if file != entry else target
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.link(file, link, follow_symlinks=False)
