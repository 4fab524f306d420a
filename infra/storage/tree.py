"""Folders of files: what is in them, and what cannot be copied."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from infra.errors import BadInputError
from infra.storage.base import ALL_ENTRIES, EntryFilter, FileVersion, parents
from infra.storage.partial import is_hidden


def check_tree(root: Path, *, links_resolve: bool = False) -> None:
    """Refuse what cannot be copied as it is: links that lead out, sockets, pipes.

    Args:
        root: The directory.
        links_resolve: Whether links that lead nowhere are refused as well.

    Raises:
        BadInputError: With the code ``LinkPointsOutside`` or ``NotAFile``.
    """
    inside = _real(root)
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in (*folders, *files):
            path = Path(folder, name)
            _check_inside(path, root, inside)
            _check_kind(path, root)
            if links_resolve and path.is_symlink() and not path.exists():
                raise BadInputError(
                    f"The link {path.relative_to(root)} in {root} leads to no file.",
                    "Remove the link, or create what it names.",
                    code="NotAFile",
                )


def _check_inside(path: Path, root: Path, inside: Path) -> None:
    if path.is_symlink() and not _real(path).is_relative_to(inside):
        raise BadInputError(
            f"The link {path.relative_to(root)} in {root} points outside it.",
            "Replace the link by what it points to.",
            code="LinkPointsOutside",
        )


def _check_kind(path: Path, root: Path) -> None:
    if not (path.is_dir() or path.is_file()) and (path.exists() or not path.is_symlink()):
        raise BadInputError(
            f"{path.relative_to(root)} in {root} is neither a file nor a folder.",
            "Remove it.",
            code="NotAFile",
        )


def copy(source: Path, target: Path, *, dirs_exist_ok: bool = False) -> None:
    """Copy a folder, hidden names aside, so that no link of the copy leads back into ``source``.

    Links that stay inside stay links, made relative where they are not. Those that lead outside
    are copied as they are: ``check_tree`` refuses them.
    """
    shutil.copytree(source, target, symlinks=True, ignore=_hidden, dirs_exist_ok=dirs_exist_ok)
    inside, copied = _real(source), _real(target)
    for folder, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in (*folders, *names):
            link = Path(folder, name)
            if not link.is_symlink() or is_hidden(name):
                continue
            own = copied / link.relative_to(source)
            wanted, found = _real(link), _real(own)
            if wanted.is_relative_to(inside) and found != copied / wanted.relative_to(inside):
                place = own.parent.relative_to(copied)
                own.unlink()
                own.symlink_to(os.path.relpath(wanted.relative_to(inside), place))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises where a link leads to itself


def _hidden(_: object, names: list[str]) -> set[str]:
    return {name for name in names if is_hidden(name)}


def entries(root: Path) -> dict[str, bool]:
    """Every entry below ``root``, hidden names aside, and whether it is a folder.

    A link is none, and nothing below it is an entry. A folder comes before what is in it.
    """
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in (*folders, *(name for name in names if not is_hidden(name))):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = is_folder(path)
    return found


def entries_of(names: Iterable[str]) -> dict[str, bool]:
    """The files of these names and the folders that they lie in, as :func:`entries` has them."""
    found: dict[str, bool] = {}
    for name in names:
        found |= dict.fromkeys(parents(name), True)
        found.setdefault(name, False)
    return found


def is_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def check_mergeable(wanted: Mapping[str, bool], folder: Path) -> None:
    """Refuse entries that cannot be merged into a folder.

    Args:
        wanted: The entries, and whether each is a folder; see :func:`entries`.
        folder: The folder, which need not exist.

    Raises:
        BadInputError: With the code ``NamesClash``.
        PermissionError: If a folder in it may not be written.
    """
    for name, wants_folder in wanted.items():
        path = folder / name
        if not os.path.lexists(path):
            continue
        if is_folder(path) is not wants_folder:
            kind = "a link" if path.is_symlink() else "a folder" if is_folder(path) else "a file"
            raise names_clash(str(path), kind, wants_folder=wants_folder)
        if wants_folder and not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files below a folder, and the folders that are empty then.

    Args:
        folder: The folder.
        names: Their names. What is not there, is a folder, or lies behind a link is left out.
    """
    for name in names:
        path, above = folder / name, [folder / each for each in parents(name)]
        if is_folder(path) or not all(map(is_folder, above)):
            continue
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the first that is not empty
            for each in reversed(above):
                each.rmdir()


def versions(folder: Path, names: Iterable[str]) -> dict[str, FileVersion]:
    """Versions of the files that are there; see :meth:`infra.storage.base.Store.versions`."""
    found = {}
    for name in names:
        path = folder / name
        if not all(is_folder(folder / each) for each in parents(name)):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                found[name] = FileVersion(
                    status.st_size, status.st_mtime_ns, str(status.st_ino), status.st_ctime_ns
                )
    return found


def names_clash(there: str, kind: str, *, wants_folder: bool) -> BadInputError:
    """The error of what stands in the way of a file or a folder that is published."""
    return BadInputError(
        f"{there} is {kind}, where a {'folder' if wants_folder else 'file'} is published.",
        "Rename or remove it, or publish to another folder.",
        code="NamesClash",
    )


def files(root: Path, only: EntryFilter = ALL_ENTRIES) -> list[tuple[str, Path]]:
    """The files below ``root`` with their names, sorted; a link counts as what it points to.

    Fetches and copies that have not ended are left out, and links that lead nowhere.

    Args:
        root: The directory.
        only: Chooses files.

    Raises:
        BadInputError: As ``check_tree`` does, for chosen files and folders that may have some; and
            with the code ``LinkLoops`` where a link leads to a folder that it lies in.
    """
    return sorted(_Listing(root, only).files("", (_real(root),)))


class _Listing:
    def __init__(self, root: Path, only: EntryFilter) -> None:
        self._root, self._only = root, only
        self._inside = _real(root)

    def files(self, folder: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
        """The files below a folder.

        Args:
            folder: Its name; "" for the root, else with ``/`` at its end.
            above: The real paths of the folder and of those that it lies in.
        """
        for entry in os.scandir(self._root / folder):
            path, name = Path(entry.path), folder + entry.name
            if is_hidden(entry.name):
                continue
            # An entry raises for a link that leads to itself; a path is not there then.
            followed = path if entry.is_symlink() else entry
            if followed.is_dir():
                if self._only.enters(name):
                    yield from self.files(f"{name}/", (*above, self._entered(path, above)))
            elif self._only.chooses(name):
                _check_inside(path, self._root, self._inside)
                _check_kind(path, self._root)
                if followed.is_file():
                    yield name, path

    def _entered(self, path: Path, above: tuple[Path, ...]) -> Path:
        """The real path of a folder in the last one above."""
        _check_inside(path, self._root, self._inside)
        real = _real(path) if path.is_symlink() else above[-1] / path.name
        if real in above:
            raise BadInputError(
                f"The link {path} leads to a folder that it lies in.",
                "Remove it.",
                code="LinkLoops",
            )
        return real
