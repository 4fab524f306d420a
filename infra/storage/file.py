"""Files and folders of this machine, or of a file system mounted on it."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from infra.errors import BadInputError, DiskFullError, NotFoundError
from infra.storage.base import Entry, Progress, Store, check_name
from infra.storage.tree import check_tree, files


class FileStore(Store):
    """``/a/path`` and ``file:///a/path``."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri)
        self._given = path

    @property
    def _path(self) -> Path:
        return self._given

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

    def entries(self) -> Iterator[Entry]:  # noqa: D102
        if not self._path.exists():
            raise self._nothing()
        if not self._path.is_dir():
            return iter([Entry(self._path.name, self._path.stat().st_size)])
        return iter([Entry(name, path.stat().st_size) for name, path in files(self._path)])

    def read(  # noqa: D102
        self, name: str = "", *, offset: int = 0, length: int | None = None
    ) -> bytes:
        path = self._file(name)
        if not path.is_file():
            raise self._nothing(name)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def _file(self, name: str) -> Path:
        """Where the file ``name`` is, or would be."""
        if name:
            check_name(name)
        if not name or (name == self._path.name and self._path.is_file()):
            return self._path
        path = self._path / name
        if not path.resolve().is_relative_to(self._path.resolve()):
            raise BadInputError(
                f"The link {name} in {self.uri} points outside it.",
                "Replace the link by what it points to.",
                code="LinkPointsOutside",
            )
        return path

    def _nothing(self, name: str = "") -> NotFoundError:
        what = f"no file {name} below" if name else "nothing at"
        return NotFoundError(f"There is {what} {self.uri}.", "Check the path.")

    def fetch(self, destination: Path, progress: Progress | None = None) -> None:  # noqa: D102
        if not self._path.exists():
            raise self._nothing()
        with _staged(destination) as staging:
            if self._path.is_dir():
                check_tree(self._path)
                shutil.copytree(self._path, staging, symlinks=True)
            else:
                shutil.copy2(self._path, staging)
            staging.replace(destination)
        _tell(progress, destination)

    def publish(self, source: Path, progress: Progress | None = None) -> None:  # noqa: D102
        # Inside a folder that is there: the one above it may be closed to this user.
        merged = self._path.is_dir()
        self._publish(source, merged=merged)
        _tell(progress, source)

    def _publish(self, source: Path, *, merged: bool) -> None:
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


def _tell(progress: Progress | None, copied: Path) -> None:
    """Tell the progress of a copy, which is one step: it is done."""
    if progress is not None:
        paths = [path for _, path in files(copied)] if copied.is_dir() else [copied]
        size = sum(path.stat().st_size for path in paths)
        progress(size, size)


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
