"""Store of files of this machine, or of a file system mounted on it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from infra.errors import BadInputError, NotFoundError
from infra.storage import copying, disk
from infra.storage.base import (
    ALL_ENTRIES,
    EntryFilter,
    FileVersion,
    Progress,
    Store,
    StoreEntry,
    check_name,
)
from infra.storage.tree import check_mergeable, entries_of, files, versions


class FileStore(Store):
    """``/a/path`` and ``file:///a/path``."""

    def __init__(self, uri: str, path: Path) -> None:
        super().__init__(uri)
        self._given = path

    @property
    def _path(self) -> Path:
        return self._given

    def exists(self) -> bool:  # noqa: D102
        with disk.translating_errors(self.uri, self._path):
            return self._path.exists()

    def is_directory(self) -> bool:  # noqa: D102
        with disk.translating_errors(self.uri, self._path):
            return self._path.is_dir()

    def in_place(self) -> Path | None:  # noqa: D102
        return self._path

    def check_writable(self, names: Iterable[str] = ()) -> None:  # noqa: D102
        with disk.translating_errors(self.uri):
            check_mergeable(entries_of(names), self._path)
            Path(tempfile.mkdtemp(prefix=".modelyard-", dir=self._check_place())).rmdir()

    def _check_place(self) -> Path:
        """Refuse a path that cannot be a folder; return the nearest existing folder."""
        # A link that leads nowhere is there, and no folder can have its name.
        found = next(path for path in (self._path, *self._path.parents) if os.path.lexists(path))
        if self._path == Path("/") or not found.is_dir():
            raise BadInputError(
                f"{self.uri} is not a folder for data: it is, or is below, {found}.",
                "Give a folder, which may be new.",
                code="NotADirectory",
            )
        return found

    def entries(self, only: EntryFilter = ALL_ENTRIES) -> Iterator[StoreEntry]:  # noqa: D102
        with disk.translating_errors(self.uri, self._path):
            if not self._path.exists():
                raise self._nothing()
            found = (
                files(self._path, only)
                if self._path.is_dir()
                else [(self._path.name, self._path)] * only.chooses(self._path.name)
            )
            return iter([StoreEntry(name, path.stat().st_size) for name, path in found])

    def versions(self, names: Iterable[str]) -> dict[str, FileVersion]:  # noqa: D102
        with disk.translating_errors(self.uri, self._path):
            return versions(self._path, names)

    def read(  # noqa: D102
        self, name: str = "", *, offset: int = 0, length: int | None = None
    ) -> bytes:
        with disk.translating_errors(self.uri, self._path):
            path = self._file(name)
            if not path.is_file():
                raise self._nothing(name)
            with path.open("rb") as file:
                file.seek(offset)
                return file.read() if length is None else file.read(length)

    def _file(self, name: str) -> Path:
        """Return the path of the file ``name``."""
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
        with disk.translating_errors(str(destination), self._path):
            if not self._path.exists():
                raise self._nothing()
            copying.fetch(self._path, destination)
        _tell(progress, destination)

    def publish(  # noqa: D102
        self,
        source: Path,
        progress: Progress | None = None,
        *,
        whole_entries: bool = False,
        last: str = "",
        stale: Collection[str] = (),
        replaceable: Mapping[str, FileVersion] | None = None,
    ) -> None:
        with disk.translating_errors(self.uri, source):
            self._check_place()
            copying.publish(
                source, self._path, whole_entries=whole_entries, last=last, stale=stale,
                replaceable=replaceable,
            )  # fmt: skip
        _tell(progress, source)

    def remove(self) -> None:  # noqa: D102
        with disk.translating_errors(self.uri):
            if self._path == Path("/"):
                self._check_place()
            if self._path.is_dir() and not self._path.is_symlink():
                shutil.rmtree(self._path)
            else:
                self._path.unlink(missing_ok=True)


def _tell(progress: Progress | None, copied: Path) -> None:
    """Report the progress of a copy, which is one step."""
    if progress is not None:
        paths = [path for _, path in files(copied)] if copied.is_dir() else [copied]
        size = sum(path.stat().st_size for path in paths)
        progress(size, size)
