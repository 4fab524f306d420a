"""Publication of an output, also in place of an earlier one.

Whoever sees a manifest sees all files that it lists, and no others of an earlier output: the old
manifest goes first, and the new one comes last. Until then the output has a journal, with the
files that may be there: of this output and of earlier ones. So what a publication that was killed
has left is found by its retry and by the next run, on any machine.

A file is replaced or removed only if a manifest or a journal there lists it, and it is still what
was published: of the same size, and not written after the list, or with the same checksum. Any
other file is someone's own, and ends the publication unless its replacement is allowed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from infra import storage
from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.storage import Store
from infra.storage.base import FilesExistError, FileVersion, check_name
from tasks.batch_inference.output_files import JOURNAL, MANIFEST

T = TypeVar("T")

FILES_EXIST = "OutputFilesExist"
_LONGEST = 256 * 2**20  # bytes; a manifest of 100 000 files with long names is shorter
_CHUNK = 16 * 2**20  # bytes
_SHOWN = 5


def _plain(name: str) -> str:
    """A name below the output.

    Raises:
        ValueError: If it climbs out.
    """
    try:
        check_name(name)
    except BadInputError as error:
        raise ValueError(error.message) from error
    return name


@dataclass(frozen=True)
class _Listed:
    name: Annotated[str, AfterValidator(_plain)]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What a manifest of a batch inference has at least."""

    flow_run_id: str
    model: str
    rows: int
    errors: _Listed | None
    files: list[_Listed]

    def listed(self) -> list[_Listed]:
        return [*self.files, *([self.errors] if self.errors else [])]


@dataclass(frozen=True)
class _Journal:
    """A publication that goes on; no other tool's file says the like.

    Attributes:
        published: What was there before, and is the batch inferences'.
        expected: What may be there as well: of this output, or of one that was cut off.
    """

    published: list[_Listed]
    expected: list[_Listed]


@dataclass(frozen=True)
class _Journals:
    batch_inference: _Journal


_MANIFEST = TypeAdapter(_Manifest)
_JOURNAL = TypeAdapter(_Journals)


def check(there: Store, names: Iterable[str], *, overwrite: bool) -> None:
    """Refuse an output in which something is in the way of a file.

    Args:
        there: The output.
        names: Names of its files, as far as they are known; see :func:`output_files.names_of`.
        overwrite: Whether files that no batch inference has published may be replaced.

    Raises:
        BadInputError: With the code ``NamesClash``, or if nothing may be written there.
        ConflictError: With the code ``OutputFilesExist``.
    """
    names = list(names)
    there.check_writable(names)
    found = _Earlier(there).inspect(names)
    if not overwrite and found.foreign:
        raise _files_exist(there.uri, found.foreign)


def publish(folder: Path, uri: str, *, overwrite: bool) -> None:
    """Publish an output, and remove the files of earlier ones that it does not have.

    Only files that a batch inference has published are removed, and only below ``uri``.

    Args:
        folder: The output, with its manifest.
        uri: Where it goes.
        overwrite: Whether other files of the same names, and results that were changed since, may
            be replaced or removed.

    Raises:
        ConflictError: With the code ``OutputFilesExist``, if that is not allowed.
        ModelyardError: If it cannot be written.
    """
    there = storage.store(uri)
    try:
        if there.in_place() is not None and not there.exists():
            # A new folder appears at once.
            there.publish(folder, last=MANIFEST, replaceable=None if overwrite else {})
        else:
            _publish_over(there, folder, overwrite=overwrite)
    except FilesExistError as error:
        raise _files_exist(uri, error.names) from error


def _publish_over(there: Store, folder: Path, *, overwrite: bool) -> None:
    new = {entry.name for entry in storage.store(str(folder)).entries()}
    manifest = _MANIFEST.validate_json((folder / MANIFEST).read_bytes())
    earlier = _Earlier(there)
    found = earlier.inspect(new)
    if not overwrite and found.foreign:
        raise FilesExistError(there.uri, found.foreign)
    replaceable = None if overwrite else found.versions
    expected = [*earlier.unpublished(found), *manifest.listed()]
    _write_journal(there, _Journal(list(found.published.values()), expected), replaceable)
    stale = (found.versions.keys() & earlier.names) - new
    there.publish(folder, last=MANIFEST, stale=sorted(stale), replaceable=replaceable)
    storage.store(f"{there.uri.rstrip('/')}/{JOURNAL}").remove()


def _write_journal(
    there: Store, journal: _Journal, replaceable: Mapping[str, FileVersion] | None
) -> None:
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        text = orjson.dumps({"batch_inference": asdict(journal)})
        Path(folder, JOURNAL).write_bytes(text)
        there.publish(Path(folder), replaceable=replaceable)


def _files_exist(uri: str, names: Iterable[str]) -> ConflictError:
    found = sorted(names)
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ConflictError(
        f"{uri} has files that no batch inference has published, or that were changed "
        f"since: {', '.join(found[:_SHOWN])}{more}.",
        "Move them, or allow them to be replaced: overwrite=true. A run that has predicted "
        "already publishes at its retry: modelyard runs update RUN -p overwrite=true, then "
        "modelyard runs retry RUN.",
        code=FILES_EXIST,
    )


@dataclass(frozen=True)
class _Found:
    """Files that are at an output.

    Attributes:
        versions: All that an output is published over, by name.
        published: Those of them that a batch inference has published, but for its lists.
        foreign: Names of those that none has.
    """

    versions: Mapping[str, FileVersion]
    published: Mapping[str, _Listed]
    foreign: set[str]


class _Earlier:
    """What batch inferences have published at an output, or were about to."""

    def __init__(self, there: Store) -> None:
        self._there = there
        # Files by name, with the list that was written after them, if they were there by then.
        self._claims: dict[str, list[tuple[_Listed, FileVersion | None]]] = {}
        self._lists: set[str] = set()
        at = there.versions([MANIFEST, JOURNAL])
        if manifest := _read(there, MANIFEST, _MANIFEST):
            self._lists.add(MANIFEST)
            self._claim(manifest.listed(), at.get(MANIFEST))
        if journals := _read(there, JOURNAL, _JOURNAL):
            self._lists.add(JOURNAL)
            self._claim(journals.batch_inference.published, at.get(JOURNAL))
            self._claim(journals.batch_inference.expected, None)

    def _claim(self, files: Iterable[_Listed], listed_by: FileVersion | None) -> None:
        for file in files:
            self._claims.setdefault(file.name, []).append((file, listed_by))

    @property
    def names(self) -> set[str]:
        """Names of the files."""
        return set(self._claims)

    def inspect(self, names: Iterable[str]) -> _Found:
        """Find what is there of these files and of the earlier ones."""
        versions = self._there.versions({*names, *self._claims, MANIFEST, JOURNAL})
        published = {
            name: listed
            for name, version in versions.items()
            if (listed := self._listing(name, version)) is not None
        }
        return _Found(versions, published, versions.keys() - published.keys() - self._lists)

    def unpublished(self, found: _Found) -> list[_Listed]:
        """What is listed of files that are there, and are not what was published."""
        return [file for name in found.foreign for file, _ in self._claims.get(name, ())]

    def _listing(self, name: str, version: FileVersion) -> _Listed | None:
        """What lists a file as it is; None if nothing does."""
        fitting = [claim for claim in self._claims.get(name, ()) if claim[0].bytes == version.size]
        for file, listed_by in fitting:
            if listed_by is not None and version.is_older_than(listed_by):
                return file
        checksum = _checksum(self._there, name, version.size) if fitting else ""
        return next((file for file, _ in fitting if file.sha256 == checksum), None)


def _checksum(there: Store, name: str, size: int) -> str:
    """A file's SHA-256; "" if it may not be read."""
    digest = hashlib.sha256()
    try:
        for offset in range(0, size, _CHUNK):
            digest.update(there.read(name, offset=offset, length=_CHUNK))
    except (BadInputError, NotFoundError):
        return ""
    return digest.hexdigest()


def _read(there: Store, name: str, kind: TypeAdapter[T]) -> T | None:
    """What a file says; None if it is not there, may not be read, or is no batch inference's."""
    try:
        return kind.validate_json(there.read(name, length=_LONGEST))
    except (BadInputError, NotFoundError, ValidationError):
        return None
