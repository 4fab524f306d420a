"""Checkpoints of a script, mirrored to a URI that is not a folder of this machine.

The script writes to a folder. Changes are copied at an interval and once more at the end, so the
loss of the machine costs at most one interval.
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
    """Mirror ``folder`` to ``uri`` while the context is open.

    Names that begin with a dot are left out: scripts use them for checkpoints in progress.

    Args:
        folder: Folder that the script writes to.
        uri: Destination of the copies; "" for none.
        seconds: Interval between copies.
        warn: Called with the message of a copy that failed; it is tried again.

    Raises:
        ModelyardError: If the last copy fails, unless the context ends by another error.
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
                warn(f"Checkpoints were not copied to {uri}, and will be retried: {error}")

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
            warn(f"The last checkpoints were not copied to {uri}: {error}")
        raise
    done.set()
    thread.join()
    mirror.copy()


def copy(folder: Path, uri: str) -> None:
    """Copy all of ``folder`` to ``uri``; do nothing if that is "".

    Raises:
        ModelyardError: If the copy fails.
    """
    if uri and folder.is_dir():
        _Mirror(folder, uri).copy()


class _Mirror:
    def __init__(self, folder: Path, uri: str) -> None:
        self._folder = folder
        self._uri = uri
        self._copied: dict[str, _State] = {}

    def copy(self) -> None:
        """Copy the entries that changed since the last copy, each as a whole."""
        found = {
            entry.name: _state(entry)
            for entry in self._folder.iterdir()
            if not entry.name.startswith(".")
        }
        changed = {name for name, state in found.items() if self._copied.get(name) != state}
        changed = {name for name in changed if found[name]}  # an empty folder has nothing to copy
        if not changed:
            return
        # Publishing takes a folder: hard links make one without copying the files.
        staging = self._folder.with_name(f".{self._folder.name}.changed")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            for name in changed:
                _link(self._folder / name, staging / name)
            store(self._uri).publish(staging, whole_entries=True)
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
        with contextlib.suppress(FileNotFoundError):  # removed by the script
            found = file.lstat()
            state.add((str(file.relative_to(entry)), found.st_size, found.st_mtime_ns))
    return frozenset(state)


def _link(entry: Path, target: Path) -> None:
    for file in _files(entry):
        link = target / file.relative_to(entry) if file != entry else target
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.link(file, link, follow_symlinks=False)
