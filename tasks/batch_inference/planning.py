"""The plan of a batch inference: the parts of its files, and how shards share them."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from infra.errors import BadInputError
from tasks.batch_inference.csv_columns import ColumnTypes
from tasks.batch_inference.input_files import InputFile
from tasks.batch_inference.splitting import FilePart, is_array, split

# A part is what a retry predicts again at most, and what shards share.
PART_BYTES = 32 * 2**20
_MOST_NAMED = 10


@dataclass(frozen=True)
class PlannedPart:
    """A part that a shard predicts.

    Attributes:
        number: Its number among all.
        path: The file that it is a part of.
        part: Where in it.
        types: The types of the file's columns, of CSV.
    """

    number: int
    path: Path
    part: FilePart
    types: str = ""


@dataclass(frozen=True)
class PlannedFile:
    """An input file.

    Attributes:
        name: Its name below the input.
        size: Its bytes.
        modified: When it was last changed, in nanoseconds since 1970.
        first: The number of its first part.
        parts: Its parts in their order; those without records are left out.
        is_array: Whether it is a JSON array, and no record alone.
        fault: Why it ends before its end; "" if it does not.
        types: The ``CsvType`` of each of its columns, of CSV.
    """

    name: str
    size: int
    modified: int
    first: int
    parts: list[FilePart]
    is_array: bool = False
    fault: str = ""
    types: str = ""

    @property
    def rows(self) -> int:
        """Its records, malformed ones too."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class Plan:
    """What is predicted, in the order of the output."""

    files: list[PlannedFile]

    @property
    def rows(self) -> int:
        """All records."""
        return sum(file.rows for file in self.files)

    @property
    def part_count(self) -> int:
        """How many parts there are; their numbers begin with 0."""
        return sum(len(file.parts) for file in self.files)

    def file_of(self, part: int) -> str:
        """The name of the file that the part with this number is of."""
        return self.files[bisect.bisect(self.files, part, key=lambda file: file.first) - 1].name

    @property
    def summary(self) -> str:
        """How large it is, in a sentence."""
        files = "1 file has" if len(self.files) == 1 else f"{len(self.files):,} files have"
        return f"{files} {self.rows:,} record{'s' * (self.rows != 1)}."

    def parts(self, place: Path) -> list[PlannedPart]:
        """The parts of all files; ``place`` is the folder with them, or the only file."""
        return [
            PlannedPart(file.first + at, path_of(place, file.name), part, file.types)
            for file in self.files
            for at, part in enumerate(file.parts)
        ]


def make(
    place: Path,
    files: Sequence[InputFile],
    input_format: str,
    check_over: Callable[[], object],
    part_bytes: int = PART_BYTES,
) -> Plan:
    """The plan of files, each of which is read once.

    Args:
        place: The folder with the files, or the only file.
        files: The files.
        input_format: Their format.
        check_over: Called often; raises to end it.
        part_bytes: How large parts are.

    Raises:
        BadInputError: ``InputMalformed``, if a file is none of the format at all; ``InputEmpty``,
            if there are no records.
    """
    return combine(
        plan_file(path_of(place, file.name), file, input_format, check_over, part_bytes)
        for file in files
    )


def plan_file(
    path: Path,
    file: InputFile,
    input_format: str,
    check_over: Callable[[], object],
    part_bytes: int = PART_BYTES,
) -> PlannedFile:
    """The parts of one file, which is at ``path``; see :func:`make`.

    Raises:
        BadInputError: With the code ``InputMalformed``.
    """
    found: list[FilePart] = []
    status, types = path.stat(), ColumnTypes()
    try:
        for part in split(path, input_format, part_bytes, types):
            check_over()
            found.append(part)
    except ValueError as error:
        raise BadInputError(
            f"input_uri: {file.name} cannot be read as {input_format}: {error}.",
            "Check input_format, or leave the file out with exclude.",
            code="InputMalformed",
        ) from error
    parts = [part for part in found if part.rows]
    fault = next((part.fault for part in found if part.fault), "")
    array = input_format == "json" and is_array(path)
    return PlannedFile(
        file.name, status.st_size, status.st_mtime_ns, 0, parts, array, fault, types.letters
    )


def combine(files: Iterable[PlannedFile]) -> Plan:
    """The plan of files, whose parts are numbered in their order.

    Raises:
        BadInputError: With the code ``InputEmpty``, if there are no records.
    """
    planned: list[PlannedFile] = []
    number = 0
    for file in files:
        planned.append(replace(file, first=number))
        number += len(file.parts)
    plan = Plan(planned)
    if not plan.rows:
        raise BadInputError(
            f"input_uri: the {len(planned)} files have no records.",
            "Check the URI and input_format.",
            code="InputEmpty",
        )
    return plan


def select_planned(
    plan: Plan | None, files: Sequence[InputFile], warn: Callable[[str], object]
) -> Sequence[InputFile]:
    """The files that are in a plan; all of them as long as there is none.

    Args:
        plan: The plan of an earlier attempt; None if none has made one.
        files: The files that are chosen now.
        warn: Receives a line if files have come since.
    """
    if plan is None:
        return files
    names = {file.name for file in plan.files}
    added = [file.name for file in files if file.name not in names]
    if added:
        shown = ", ".join(added[:_MOST_NAMED]) + (", ..." if len(added) > _MOST_NAMED else "")
        what = "1 file has" if len(added) == 1 else f"{len(added):,} files have"
        warn(
            f"{what} come to the input since this run began, and will not be predicted: {shown}. "
            "Start a new batch inference for more than the files of the first attempt."
        )
    return [file for file in files if file.name in names]


def check_unchanged(plan: Plan, place: Path) -> None:
    """Refuse to go on with files that are not those of the plan any more.

    Raises:
        BadInputError: With the code ``InputChanged``.
    """
    for file in plan.files:
        try:
            status = path_of(place, file.name).stat()
            is_same = (status.st_size, status.st_mtime_ns) == (file.size, file.modified)
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise _input_changed(file.name)


def check_sizes(plan: Plan, sizes: Mapping[str, int]) -> None:
    """Likewise, of files in a storage that says their sizes alone.

    Args:
        plan: The plan of an earlier attempt.
        sizes: Bytes of the files that are there, by their names.

    Raises:
        BadInputError: With the code ``InputChanged``.
    """
    for file in plan.files:
        if sizes.get(file.name) != file.size:
            raise _input_changed(file.name)


def _input_changed(name: str) -> BadInputError:
    """The error of a file that is not the one of the plan any more."""
    return BadInputError(
        f"input_uri: {name} was changed or removed while it was predicted.",
        "Start a new batch inference; a retry would mix the results of two inputs.",
        code="InputChanged",
    )


def share(parts: Sequence[PlannedPart], shards: int) -> list[list[PlannedPart]]:
    """Parts for each shard, by their bytes; no shard is empty.

    Each takes parts that follow each other, so that it reads files from front to back.
    """
    sizes = [part.part.end - part.part.start for part in parts]
    total, taken = sum(sizes) or 1, 0
    shared: list[list[PlannedPart]] = [[] for _ in range(shards)]
    for part, size in zip(parts, sizes, strict=True):
        # By the middle of the part, of all bytes.
        shared[min(shards - 1, (2 * taken + size) * shards // (2 * total))].append(part)
        taken += size
    return [some for some in shared if some]


def path_of(place: Path, name: str) -> Path:
    """Where a file is; ``place`` is the folder with it, or the file itself."""
    return place / name if place.is_dir() else place


def write(plan: Plan, path: Path) -> None:
    """Keep a plan for later attempts; all of it or nothing."""
    staged = path.with_suffix(".partial")
    staged.write_bytes(TypeAdapter(Plan).dump_json(plan))
    staged.replace(path)


def read(path: Path) -> Plan | None:
    """The plan that an earlier attempt kept; None if there is none."""
    return parse(path.read_bytes()) if path.exists() else None


def parse(data: bytes) -> Plan:
    """The plan that :func:`write` has written."""
    return TypeAdapter(Plan).validate_json(data)
