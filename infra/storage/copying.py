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
import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from infra.storage import disk, partial, tree
from infra.storage.base import FilesExistError, FileVersion, check_name

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


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
    replaceable: Mapping[str, FileVersion] | None = None,
) -> None:
    """Copy the entries of ``source`` into ``folder``, which may be new.

    Args:
        source: A folder.
        folder: The folder.
        whole_entries: Replace folders of the same name as wholes, instead of merging into them.
        last: See :meth:`infra.storage.base.Store.publish`.
        stale: Likewise.
        replaceable: Likewise.

    Raises:
        BadInputError: If a link points outside, what is there is in the way, or a name in
            ``stale`` climbs out.
        FilesExistError: If a file is there that is not replaceable.
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
                if last:
                    _touch(staging / "new" / last)
                if _has_become(staging / "new", folder):
                    return
    with _staged(folder / ".entries.copy.partial") as staging:
        _copy(source, staging / "new")
        names = [*tree.entries(staging / "new"), *stale]
        over = None if replaceable is None else _replaceable_paths(folder, names, replaceable)
        if last:
            (staging / "new" / last).rename(staging / "last")
            if over is None or folder / last in over:
                (folder / last).unlink(missing_ok=True)
        if whole_entries:
            _replace_entries(staging, folder)
        else:
            for entry in list((staging / "new").iterdir()):  # the folder itself may be a link
                _merge(entry, folder / entry.name, over)
        tree.remove_files(folder, stale)
        if last:
            _merge(staging / "last", folder / last, None if over is None else ())


def _replaceable_paths(
    folder: Path, names: Iterable[str], replaceable: Mapping[str, FileVersion]
) -> set[Path]:
    """The paths of the files that may be replaced; no others are there of these names."""
    there = tree.versions(folder, names)
    if others := [name for name, found in there.items() if replaceable.get(name) != found]:
        raise FilesExistError(str(folder), others)
    return {folder / name for name in there}


def _merge(entry: Path, target: Path, over: Collection[Path] | None) -> None:
    """Move an entry to its name; of a folder that is there, what it has in it.

    Raises:
        FilesExistError: If a file is there that is not in ``over``; None if all may be replaced.
    """
    if tree.is_folder(entry):
        if tree.is_folder(target) or not _has_become(entry, target):
            for inner in list(entry.iterdir()):
                _merge(inner, target / inner.name, over)
    elif over is None or target in over:
        entry.replace(target)
    else:
        _add(entry, target)


def _add(file: Path, target: Path) -> None:
    """Give a file its name, which no other one has."""
    try:
        target.hardlink_to(file)  # a rename would replace what came just now
    except OSError as error:
        if os.path.lexists(target):
            raise FilesExistError(str(target.parent), [target.name]) from error
        if error.errno not in _NO_LINKS:
            raise
        file.rename(target)
    else:
        file.unlink()


def _has_become(folder: Path, target: Path) -> bool:
    """Give a folder its name; False if a folder with files has that by now."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        return False
    return True


def _touch(file: Path) -> None:
    """Have a file be changed later than all others, as one that gets its name last."""
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


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
