"""Interface of all stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import BadInputError, ConflictError

# Called with the bytes that are done and the bytes that there are, in the caller's thread.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StoreEntry:
    """One file below a URI.

    Attributes:
        name: Its path below the URI, with ``/``; the file's own name where the URI is a file.
        size: In bytes.
    """

    name: str
    size: int


@dataclass(frozen=True)
class FileVersion:
    """A file as it was found; what is found later is equal unless it was written since.

    Attributes:
        size: In bytes.
        written_ns: When it was written, in nanoseconds.
        tag: What else differs between versions: an inode, an ETag.
        changed_ns: Of a file on a disk, when it or its links were changed, which no program can
            set; else as ``written_ns``.
    """

    size: int
    written_ns: int
    tag: str
    changed_ns: int = field(compare=False)

    def is_older_than(self, other: FileVersion) -> bool:
        """Whether it was not written after another file of the same store."""
        return self.written_ns <= other.written_ns and self.changed_ns <= other.changed_ns


class FilesExistError(ConflictError):
    """Files are where others are published that may not replace them.

    Attributes:
        names: Their names below the URI.
    """

    code = "FilesExist"

    def __init__(self, uri: str, names: Collection[str]) -> None:
        self.names = sorted(names)
        super().__init__(
            f"{uri} has files that may not be replaced: {', '.join(self.names[:5])}.",
            "Move them, or publish to another folder.",
        )


class EntryFilter:
    """Chooses files below a URI by their names: all of them."""

    def chooses(self, name: str) -> bool:
        """Whether the file with this name counts; it is neither listed nor checked otherwise."""
        del name
        return True

    def enters(self, folder: str) -> bool:
        """Whether any file below a folder may count; the folder is not looked into otherwise."""
        del folder
        return True


ALL_ENTRIES = EntryFilter()


class Store(ABC):
    """Bytes under a URI: one file, or a directory of files.

    The contract, which ``tests/infra/storage/contract.py`` checks of every implementation:

    - ``fetch``, and ``publish`` to a new folder, are atomic: until they return, nothing is
      visible under the destination's name; when they raise, nothing new is visible anywhere.
      Each file that is published to a folder that is there is old or new, never mixed, and each
      folder that is new there appears as a whole. A kill leaves some files old and some new,
      until a repeat. Files of other names stay. What was transferred may stay hidden
      (``.NAME.….partial``, incomplete uploads in a bucket) only after a kill, or where a repeat
      resumes it; the repeat removes it. It is neither listed nor fetched nor published.
      Object storage can make one object appear at once, but not many: how far this holds there
      is said in ``infra/storage/publishing.py``.
    - What stands in the way is refused before anything is replaced: a destination that exists, a
      file or an object where a folder is to be, or above it, and a folder where a file is to be.
    - Links inside a fetched directory that point outside it are refused, and so are names that
      climb out of it.
    - A store is made for one URI and keeps no state, so it may be used from any thread.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def exists(self) -> bool:
        """Whether a file or a directory exists under the URI."""

    @abstractmethod
    def is_directory(self) -> bool:
        """Whether the URI is a directory."""

    @abstractmethod
    def in_place(self) -> Path | None:
        """Return the local path for reading without a copy; None if there is none."""

    @abstractmethod
    def check_writable(self, names: Iterable[str] = ()) -> None:
        """Check early whether ``publish`` may write here.

        Args:
            names: Names of files that are to be published, as ``entries`` gives them.

        Raises:
            BadInputError: If it may not; with the code ``NamesClash``, if a file or a link is
                where one of the names needs a folder, or a folder where it needs a file.
        """

    @abstractmethod
    def entries(self, only: EntryFilter = ALL_ENTRIES) -> Iterator[StoreEntry]:
        """List the files below the URI, sorted by name; for a single file, that file.

        Args:
            only: Chooses files.

        Raises:
            NotFoundError: If there is nothing under the URI.
            BadInputError: If a chosen file, or a folder that may have one, is a link that points
                outside; if a chosen file is a socket or a pipe.
        """

    @abstractmethod
    def versions(self, names: Iterable[str]) -> dict[str, FileVersion]:
        """Versions of the files that are there of these names below the URI.

        What is a folder, or lies behind a link, is not there; a link to a file is.

        Args:
            names: As ``entries`` gives them.
        """

    @abstractmethod
    def read(self, name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        """Read bytes of one file: for small files, and for headers of large ones.

        Args:
            name: As ``entries`` gives it; empty where the URI itself is the file.
            offset: The first byte; beyond the end there is nothing to read.
            length: How many, or fewer at the end; all that follow if None.

        Raises:
            NotFoundError: If there is no such file.
            BadInputError: If the name climbs out, or leads out through a link.
        """

    @abstractmethod
    def fetch(self, destination: Path, progress: Progress | None = None) -> None:
        """Copy everything under the URI to ``destination``, which must not exist.

        Raises:
            NotFoundError: If there is nothing under the URI.
            ConflictError: If the destination exists.
            BadInputError: If a link points outside, a file may not be read, or the destination
                may not be written or lies below a file.
            DiskFullError: If it does not fit.
        """

    @abstractmethod
    def publish(
        self,
        source: Path,
        progress: Progress | None = None,
        *,
        whole_entries: bool = False,
        last: str = "",
        stale: Collection[str] = (),
        replaceable: Mapping[str, FileVersion] | None = None,
    ) -> None:
        """Copy the directory ``source`` here. Files of the same name are replaced; others stay.

        Args:
            source: The directory.
            progress: Receives the progress.
            whole_entries: Replace each entry of ``source`` as a whole: what is here under its
                name, and in a folder of that name, goes. On a file system the entry is then old
                or new, never mixed; a kill may hide it until a repeat shows it again.
            last: Name of a file of ``source`` that describes the others, such as a manifest. An
                old one is removed before any other file is replaced, and the new one is there
                once all else is done, so whoever sees it sees what it describes. "" for none.
            stale: Names of files that are here and not in ``source``, to be removed, with folders
                that are empty then. Other entries stay: a folder of that name, and what a link to
                a folder leads to.
            replaceable: The files here that may be replaced or removed, as ``versions`` has found
                them; None for all. Not with ``whole_entries``.

        Raises:
            FilesExistError: If another file is, or another version of a file, where one is
                replaced or removed. Only where it came during the burst in which files become
                visible, some of them are new then.
            BadInputError: If the URI is, or lies below, a file or an object, or may not be
                written; if a file may not be read; with the code ``NamesClash``, as
                ``check_writable`` does; with the code ``PathClimbs``, for a name in ``stale``.
            DiskFullError: If it does not fit.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove everything under the URI, if there is anything.

        Raises:
            BadInputError: If it may not be removed.
        """


def parents(name: str) -> Iterator[str]:
    """The folders that a name lies in, the outermost first: ``a`` and ``a/b`` of ``a/b/c``."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def check_name(name: str) -> None:
    """Refuse a name that is not a plain path downwards.

    Raises:
        BadInputError: With the code ``PathClimbs``.
    """
    if "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise BadInputError(
            f"{name!r} is not a file name below a folder.",
            "Give a relative path without '.', '..' and empty parts.",
            code="PathClimbs",
        )
