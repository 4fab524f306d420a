"""The plan of a batch inference: the parts of its files, and how shards share them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from infra.errors import BadInputError
from tasks.batch_inference import parquet_columns
from tasks.batch_inference.csv_columns import ColumnTypes
from tasks.batch_inference.input_files import InputFile
from tasks.batch_inference.record_fields import FileFields, InputFields
from tasks.batch_inference.splitting import FilePart, first_line, is_array, split

# A part is what a retry predicts again at most, and what shards share.
PART_BYTES = 32 * 2**20
_MOST_PIECES = 256
# A file with one malformed record alone may be damaged: that is an error of the record.
_LEAST_MALFORMED = 2
# Parts are so small that each shard has some of them.
_PARTS_OF_SHARD = 4
_MOST_NAMED = 10


@dataclass(frozen=True)
class PlannedPiece:
    """A piece of a file that a shard predicts; those of one number are one part.

    Attributes:
        number: The number of the part that it belongs to, among all.
        path: The file that it is a piece of.
        part: Where in it.
        types: What is to be known of the file's fields.
        file: The file's number among all.
    """

    number: int
    path: Path
    part: FilePart
    types: str = ""
    file: int = 0


@dataclass(frozen=True)
class PlannedFile:
    """An input file.

    Attributes:
        name: Its name below the input.
        size: Its bytes.
        modified: When it was last changed, in nanoseconds since 1970.
        first: The number of the part that has its first piece. Its next pieces are in the next
            parts, of which the last may have pieces of other files too.
        parts: Its pieces in their order; those without records are left out.
        is_array: Whether it is a JSON array, and no record alone.
        fault: Why it ends before its end; "" if it does not.
        types: What is to be known of its fields to read a part of it; see ``reading.read``.
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
        return max((file.first + len(file.parts) for file in self.files if file.parts), default=0)

    def name_of(self, file: int) -> str:
        """The name of the file with this number."""
        return self.files[file].name

    @property
    def summary(self) -> str:
        """How large it is, in a sentence."""
        files = "1 file has" if len(self.files) == 1 else f"{len(self.files):,} files have"
        return f"{files} {self.rows:,} record{'s' * (self.rows != 1)}."

    def pieces(self, place: Path) -> list[PlannedPiece]:
        """The pieces of all parts; ``place`` is the folder with the files, or the only file."""
        return [
            PlannedPiece(file.first + at, path_of(place, file.name), part, file.types, number)
            for number, file in enumerate(self.files)
            for at, part in enumerate(file.parts)
        ]


def make(
    place: Path,
    files: Sequence[InputFile],
    input_format: str,
    check_over: Callable[[], object],
    part_bytes: int = PART_BYTES,
    shards: int = 1,
    fields: InputFields | None = None,
) -> Plan:
    """The plan of files, each of which is read once.

    Args:
        place: The folder with the files, or the only file.
        files: The files.
        input_format: Their format.
        check_over: Called often; raises to end it.
        part_bytes: How large parts are.
        shards: How many shards will share them.
        fields: The fields to look for.

    Raises:
        BadInputError: ``InputMalformed``, if a file is none of the format at all; ``InputEmpty``,
            if there are no records; ``FieldMissing``.
    """
    fields = fields or InputFields()
    found = [
        plan_file(path_of(place, file.name), file, input_format, check_over, fields, part_bytes)
        for file in files
    ]
    fields.check()
    return combine(found, shards, part_bytes)


def plan_file(
    path: Path,
    file: InputFile,
    input_format: str,
    check_over: Callable[[], object],
    fields: InputFields,
    part_bytes: int = PART_BYTES,
) -> PlannedFile:
    """The parts of one file, which is at ``path``; see :func:`make`.

    Args:
        path: Where it is.
        file: The file.
        input_format: Its format.
        check_over: Called often; raises to end it.
        fields: Receives the fields of its records.
        part_bytes: How large parts are.

    Raises:
        BadInputError: With the code ``InputMalformed``.
    """
    found: list[FilePart] = []
    status, columns, own = path.stat(), ColumnTypes(), FileFields()
    try:
        for part in split(path, input_format, part_bytes, columns):
            check_over()
            found.append(part)
            if input_format in {"json", "jsonl"}:
                own.add_json(path, part, input_format)
        _check_records(path, own, input_format)
    except ValueError as error:
        raise BadInputError(
            f"input_uri: {file.name} cannot be read as {input_format}: {error}.",
            "Check input_format, or leave the file out with exclude.",
            code="InputMalformed",
        ) from error
    parts = [part for part in found if part.rows]
    types, rows = own.kinds.types, sum(part.rows for part in parts)
    if input_format == "csv":
        own.add_table(columns.names, rows)
        types = columns.letters
    elif input_format == "parquet":
        schema = parquet_columns.read_schema(path)
        own.add_table(schema.names, rows)
        types = schema.types
    fields.add(file.name, own)
    fault = next((part.fault for part in found if part.fault), "")
    array = input_format == "json" and is_array(path)
    return PlannedFile(
        file.name, status.st_size, status.st_mtime_ns, 0, parts, array, fault, types
    )


def _check_records(path: Path, fields: FileFields, input_format: str) -> None:
    """Refuse a file of several records none of which can be read: it is of another format.

    Raises:
        ValueError: If it is.
    """
    if fields.readable or fields.malformed < _LEAST_MALFORMED:
        return
    if input_format == "jsonl":
        number, line = first_line(path)
        other = "json" if line[:1] in "[{" else "csv" if "," in line else ""
        guess = f"; it may be {other}" if other else ""
        raise ValueError(f"no line of it is JSON; the first, line {number}, is {line!r}{guess}")
    raise ValueError(f"no record of it is JSON: {fields.fault}")


def combine(files: Sequence[PlannedFile], shards: int = 1, part_bytes: int = PART_BYTES) -> Plan:
    """The plan of files. Small ones share parts, each of which costs as much as a large one's.

    Args:
        files: The files.
        shards: How many shards will share their parts.
        part_bytes: How large parts are.

    Raises:
        BadInputError: With the code ``InputEmpty``, if there are no records.
    """
    share = shards * _PARTS_OF_SHARD
    most_bytes = min(part_bytes, sum(file.size for file in files) // share)
    most_pieces = min(_MOST_PIECES, len(files) // share)
    planned: list[PlannedFile] = []
    end = size = pieces = 0  # of the last part
    for file in files:
        if not file.parts:
            planned.append(replace(file, first=end))
            continue
        size, pieces = size + file.size, pieces + 1
        if end and len(file.parts) == 1 and size <= most_bytes and pieces <= most_pieces:
            planned.append(replace(file, first=end - 1))
        else:
            planned.append(replace(file, first=end))
            end, size, pieces = end + len(file.parts), file.size, 1
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
        "Start a new run: a retry would mix the results of two inputs.",
        code="InputChanged",
    )


def share(pieces: Sequence[PlannedPiece], shards: int) -> list[list[PlannedPiece]]:
    """The pieces of whole parts for each shard, by their bytes; no shard is empty.

    Each takes parts that follow each other, so that it reads files from front to back.
    """
    total, taken = sum(piece.part.end - piece.part.start for piece in pieces) or 1, 0
    shared: list[list[PlannedPiece]] = [[] for _ in range(shards)]
    for _, group in itertools.groupby(pieces, key=lambda piece: piece.number):
        part = list(group)
        size = sum(piece.part.end - piece.part.start for piece in part)
        # By the middle of the part, of all bytes.
        shared[min(shards - 1, (2 * taken + size) * shards // (2 * total))] += part
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
