"""Atomic copies of files and folders, and recovery after a kill.

A copy is made in ``.NAME.copy.partial`` beside its destination; one that is merged into a folder,
in ``.entries.copy.partial`` inside it, because the folder above may be closed to this user:

- ``lock`` is held during a copy to the same place: others wait;
- ``new`` is the copy, and ``last`` the file of it that gets its name last;
- ``old`` has the entries that were moved aside for new ones, if these replace them whole.

The next copy to the same place first recovers from a kill: an old entry whose name is free gets it
back, everything else is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from infra.storage import disk, partial, tree
from infra.storage.base import check_name


def fetch(source: Path, destination: Path) -> None:
    """Copy a file or a folder to ``destination``.

    Raises:
        ConflictError: If the destination exists.
        BadInputError: If a link points outside.
    """
    if source.is_dir():
        tree.check_tree(source)
    with _staged(_beside(destination)) as staging:
        disk.check_absent(destination)
        _copy(source, staging / "new")
        (staging / "new").rename(destination)


def publish(
    source: Path,
    folder: Path,
    *,
    whole_entries: bool = False,
    last: str = "",
    stale: Collection[str] = (),
) -> None:
    """Copy the entries of ``source`` into ``folder``, which may be new.

    Args:
        source: A folder.
        folder: The folder.
        whole_entries: Replace folders of the same name as wholes, instead of merging into them.
        last: See :meth:`infra.storage.base.Store.publish`.
        stale: Likewise.

    Raises:
        BadInputError: If a link points outside, what is there is in the way, or a name in
            ``stale`` climbs out.
    """
    for name in stale:
        check_name(name)
    tree.check_tree(source)
    if not whole_entries:
        tree.check_mergeable(tree.entries(source), folder)
    beside = _beside(folder)
    # Where the folder is there, this is what was killed after it had given the folder its name.
    if beside.exists() or not folder.is_dir():
        with _staged(beside) as staging:
            if not folder.is_dir():
                _copy(source, staging / "new")
                (staging / "new").rename(folder)
                return
    with _staged(folder / ".entries.copy.partial") as staging:
        _copy(source, staging / "new")
        if last:
            (staging / "new" / last).rename(staging / "last")
            (folder / last).unlink(missing_ok=True)
        if whole_entries:
            _replace_entries(staging, folder)
        else:
            _merge(staging / "new", folder)
        tree.remove_files(folder, stale)
        if last:
            (staging / "last").rename(folder / last)


def _merge(entry: Path, target: Path) -> None:
    """Move an entry to its name; of a folder that is there, what it has in it."""
    if tree.is_folder(entry) and tree.is_folder(target):
        for inner in list(entry.iterdir()):
            _merge(inner, target / inner.name)
    else:
        entry.replace(target)


def _replace_entries(staging: Path, folder: Path) -> None:
    (staging / "old").mkdir()
    for entry in list((staging / "new").iterdir()):
        _replace(entry, folder / entry.name, staging / "old" / entry.name)


def _replace(entry: Path, target: Path, old: Path) -> None:
    """Give ``entry`` its name. Only of two files does the one replace the other in one step."""
    if os.path.lexists(target) and (tree.is_folder(entry) or tree.is_folder(target)):
        target.rename(old)
    entry.replace(target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        tree.copy(source, target)
    else:
        shutil.copy2(source, target)


def _beside(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.copy.partial")


@contextlib.contextmanager
def _staged(staging: Path) -> Iterator[Path]:
    """Lock a temporary folder for a copy, and remove it afterwards."""
    with partial.locked(staging):
        _restore(staging)
        partial.clear(staging)
        try:
            yield staging
        finally:
            _restore(staging)
            partial.remove(staging)


def _restore(staging: Path) -> None:
    """Give old entries their names back where nothing new has them."""
    old = staging / "old"
    if old.is_dir():
        for entry in old.iterdir():
            if not os.path.lexists(staging.parent / entry.name):
                entry.rename(staging.parent / entry.name)
        # The rest is deleted under another name: half an entry must never be taken for a whole.
        shutil.rmtree(staging / "gone", ignore_errors=True)
        old.rename(staging / "gone")
