"""Files and folders of this machine, or of a file system mounted on it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from infra.errors import BadInputError, DiskFullError, NotFoundError
from infra.storage.base import Store


class FileStore(Store):
    """``/a/path`` and ``file:///a/path``."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri)
        self._path = path

    def exists(self) -> bool:  # noqa: D102
        return self._path.exists()

    def is_directory(self) -> bool:  # noqa: D102
        return self._path.is_dir()

    def in_place(self) -> Path | None:  # noqa: D102
        return self._path

    def check_writable(self) -> None:  # noqa: D102
        if self._path == Path("/") or (self._path.exists() and not self._path.is_dir()):
            raise BadInputError(
                f"{self.uri} is no folder of yours.",
                "Give a folder, which may be new.",
                code="NotADirectory",
            )
        ancestor = next(parent for parent in (self._path, *self._path.parents) if parent.exists())
        if not ancestor.is_dir():
            raise BadInputError(
                f"{self.uri} lies below {ancestor}, which is a file.",
                "Give a folder, which may be new.",
                code="NotADirectory",
            )
        try:
            Path(tempfile.mkdtemp(prefix=".modelyard-", dir=ancestor)).rmdir()
        except OSError as error:
            raise BadInputError(
                f"{self.uri} cannot be written: {ancestor}: {error.strerror}.",
                "Give a folder that you may write to.",
                code="NotWritable",
            ) from error

    def fetch(self, destination: Path) -> None:  # noqa: D102
        if not self._path.exists():
            raise NotFoundError(f"There is nothing at {self.uri}.", "Check the path.")
        with _staged(destination) as staging:
            if self._path.is_dir():
                check_tree(self._path)
                shutil.copytree(self._path, staging, symlinks=True)
            else:
                shutil.copy2(self._path, staging)
            staging.replace(destination)

    def publish(self, source: Path) -> None:  # noqa: D102
        # Inside a folder that is there: the one above it may be closed to this user.
        merged = self._path.is_dir()
        with _staged(self._path / "model" if merged else self._path) as staging:
            shutil.copytree(source, staging, symlinks=True)
            if not merged:
                staging.replace(self._path)
                return
            for entry in staging.iterdir():
                target = self._path / entry.name
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                elif entry.is_dir():
                    target.unlink(missing_ok=True)
                entry.replace(target)


@contextlib.contextmanager
def _staged(destination: Path) -> Iterator[Path]:
    """A new name beside ``destination``, on the same file system; gone afterwards."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}.partial")
    try:
        yield staging
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"The disk of {destination} is full.", "Make room, and retry."
            ) from error
        raise
    finally:
        if staging.is_dir():
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that a disk or a quota is full; ``shutil.Error`` wraps many."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return any("No space left" in str(reason) for _, _, reason in error.args[0])
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def check_tree(root: Path, *, links_resolve: bool = False) -> None:
    """Refuse what cannot be copied as it is: links that lead out, sockets, pipes.

    Args:
        root: The directory.
        links_resolve: Whether links that lead nowhere are refused as well.

    Raises:
        BadInputError: With the code ``LinkPointsOutside`` or ``NotAFile``.
    """
    inside = root.resolve()
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise BadInputError(
                    f"The link {path.relative_to(root)} in {root} points outside it.",
                    "Replace the link by what it points to.",
                    code="LinkPointsOutside",
                )
            dangling = path.is_symlink() and not path.exists()
            special = not (dangling or path.is_dir() or path.is_file())
            if special or (dangling and links_resolve):
                raise BadInputError(
                    f"{path.relative_to(root)} in {root} is neither a file nor a folder.",
                    "Remove it.",
                    code="NotAFile",
                )
