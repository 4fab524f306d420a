"""Publication of an output, also in place of an earlier one.

Whoever sees a manifest sees all files that it lists, and no others of an earlier output: the old
manifest goes first, and the new one comes last. Until then the output has a journal, with the
names of the files that may be there: of this output and of earlier ones. So what a publication
that was killed has left is found by its retry and by the next run, on any machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from infra import storage
from infra.errors import BadInputError, NotFoundError
from infra.storage import Store
from infra.storage.base import check_name
from tasks.batch_inference.output_files import JOURNAL, MANIFEST

T = TypeVar("T")

_LONGEST = 256 * 2**20  # bytes; a manifest of 100 000 files with long names is shorter


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


_Name = Annotated[str, AfterValidator(_plain)]


@dataclass(frozen=True)
class _Listed:
    name: _Name
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


@dataclass(frozen=True)
class _Journal:
    """Names of files; no other tool's file says that they are a batch inference's."""

    batch_inference: list[_Name]


_MANIFEST = TypeAdapter(_Manifest)
_JOURNAL = TypeAdapter(_Journal)


def check(uri: str, names: Iterable[str]) -> None:
    """Refuse an output in which something is in the way of a file.

    Args:
        uri: URI of the output.
        names: Names of its files; see :func:`output_files.names_of`.

    Raises:
        BadInputError: With the code ``NamesClash``, or if nothing may be written there.
    """
    storage.store(uri).check_writable(names)


def publish(folder: Path, uri: str) -> None:
    """Publish an output, and remove the files of earlier ones that it does not have.

    Only files that the manifest of a batch inference lists are removed, and only below ``uri``.

    Args:
        folder: The output, with its manifest.
        uri: Where it goes.

    Raises:
        ModelyardError: If it cannot be written.
    """
    there = storage.store(uri)
    if there.in_place() is not None and not there.exists():
        there.publish(folder)  # a new folder appears at once
        return
    new = {entry.name for entry in storage.store(str(folder)).entries()}
    earlier = _listed(there)
    _write_journal(there, sorted(earlier | new))
    there.publish(folder, last=MANIFEST, stale=sorted(earlier - new))
    storage.store(f"{uri.rstrip('/')}/{JOURNAL}").remove()


def _write_journal(there: Store, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        Path(folder, JOURNAL).write_bytes(orjson.dumps({"batch_inference": names}))
        there.publish(Path(folder))


def _listed(there: Store) -> set[str]:
    """Names of the files that earlier batch inferences have published, or were about to."""
    manifest, journal = _read(there, MANIFEST, _MANIFEST), _read(there, JOURNAL, _JOURNAL)
    files = [*manifest.files, manifest.errors] if manifest else []
    return {file.name for file in files if file} | set(journal.batch_inference if journal else ())


def _read(there: Store, name: str, kind: TypeAdapter[T]) -> T | None:
    """What a file says; None if it is not there, or no batch inference has written it."""
    try:
        return kind.validate_json(there.read(name, length=_LONGEST))
    except (NotFoundError, ValidationError):
        return None
