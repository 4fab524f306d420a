"""A model's files as the checks see them: listed once, and read in small pieces."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

from infra.errors import BadInputError, NotFoundError
from infra.storage.base import StoreEntry

_MOST_FILES = 100_000
_BUFFER = 64 * 1024
_LONGEST_TEXT = 16 * 2**20


class Files(Protocol):
    """What a model's bytes are read through: a store, or the artifacts of an MLflow run."""

    uri: str

    def is_directory(self) -> bool:
        """Whether there are files below the URI; else it is one file."""

    def entries(self) -> Iterator[StoreEntry]:
        """Every file below the URI, or the one file."""

    def read(self, name: str = "", *, offset: int = 0, length: int | None = None) -> bytes:
        """A piece of a file; the name "" means the URI's own."""


def refused(code: str, message: str, hint: str) -> BadInputError:
    """The error that a check raises."""
    return BadInputError(message, hint, code=code)


class Layout:
    """The files under a model's URI.

    Attributes:
        uri: The URI, for messages.
        sizes: Bytes of each file by its name, which is relative and has '/' between folders.

    Raises:
        BadInputError: With the code ``ArtifactMissing`` or ``ArtifactTooManyFiles``.
    """

    def __init__(self, files: Files) -> None:
        self.uri = files.uri
        self._files = files
        try:
            found = list(itertools.islice(files.entries(), _MOST_FILES + 1))
            self._is_directory = files.is_directory()
        except NotFoundError:
            found = []
        if not found:
            raise refused(
                "ArtifactMissing", f"There are no files at {self.uri}.", "Check the path."
            )
        if len(found) > _MOST_FILES:
            raise refused(
                "ArtifactTooManyFiles",
                f"There are more than {_MOST_FILES} files at {self.uri}.",
                "Give the folder that holds the model and nothing else.",
            )
        self.sizes = {entry.name: entry.size for entry in found}

    def top(self, *suffixes: str) -> list[str]:
        """Files beside each other at the top that end in one of ``suffixes``."""
        return [name for name in self.sizes if "/" not in name and name.endswith(suffixes)]

    def below(self, folder: str) -> list[str]:
        """Files below ``folder``."""
        return [name for name in self.sizes if name.startswith(f"{folder}/")]

    def elsewhere(self, *suffixes: str) -> str:
        """A hint that leads to a deeper folder which holds what was looked for, or ""."""
        for name in self.sizes:
            if "/" in name and name.endswith(suffixes):
                return f"There is one in {PurePosixPath(name).parent}/: give that folder."
        return ""

    def open(self, name: str) -> BinaryIO:
        """The file for reading and seeking; only what is read is transferred."""
        raw = _Ranged(self._files, name if self._is_directory else "", self.sizes[name])
        return io.BufferedReader(raw, _BUFFER)  # type: ignore[type-var]

    def text(self, name: str) -> str:
        """The file as text.

        Raises:
            BadInputError: With the code ``ArtifactMalformed``, if it is none, or a huge one.
        """
        if self.sizes[name] > _LONGEST_TEXT:
            raise refused(
                "ArtifactMalformed",
                f"{name} at {self.uri} has {self.sizes[name]} bytes.",
                f"It must be a text file of {_LONGEST_TEXT} bytes at most.",
            )
        with self.open(name) as file:
            content = file.read()
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise refused(
                "ArtifactMalformed",
                f"{name} at {self.uri} is not a text file.",
                "Write it as UTF-8.",
            ) from error


class _Ranged(io.RawIOBase):
    """A file of a store, read by ranges."""

    def __init__(self, files: Files, name: str, size: int) -> None:
        super().__init__()
        self._files = files
        self._name = name
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("negative seek position")  # what files say, and zipfile expects
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        piece = self._files.read(self._name, offset=self._at, length=length)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def only(layout: Layout, found: list[str], *, suffixes: tuple[str, ...], kind: str) -> str:
    """The one of ``found`` that is the model: the only one, or the one called ``model``.

    Args:
        layout: Where they were found.
        found: Names of files.
        suffixes: What they end in.
        kind: Begins the error's code: ``<kind>Missing``, ``<kind>Ambiguous``.
    """
    called_model = [name for name in found if PurePosixPath(name).stem == "model"]
    for candidates in (found, called_model):
        if len(candidates) == 1:
            return candidates[0]
    what = " or ".join(suffixes)
    if not found:
        raise refused(
            f"{kind}Missing",
            f"There is no {what} file at {layout.uri}.",
            layout.elsewhere(*suffixes) or f"Put one {what} file directly into that folder.",
        )
    raise refused(
        f"{kind}Ambiguous",
        f"There are several {what} files at {layout.uri}: {', '.join(sorted(found)[:5])}.",
        "Leave one, or call the one that is the model 'model'.",
    )
