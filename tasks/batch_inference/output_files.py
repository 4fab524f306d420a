"""The output of a batch inference: files as its input has them, errors, and a manifest.

All of it is put together in a folder, which is then published whole::

    july/a.jsonl        the results of july/a.jsonl, in its order
    errors.jsonl        the records that failed, with their file, row and reason; if there are any
    manifest.json       what was read and written: counts and checksums
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from infra.errors import BadInputError, RunFailedError
from infra.storage.base import parents
from registry.flow_kinds import BATCH_INFERENCE
from tasks.batch_inference import failure_reasons
from tasks.batch_inference.failure_reasons import FailureReasons
from tasks.batch_inference.part_results import (
    HashedFile,
    PartFiles,
    PartSummary,
    WrittenFile,
    dumps,
)
from tasks.batch_inference.planning import Plan, PlannedFile

MANIFEST, ERRORS = "manifest.json", "errors.jsonl"
JOURNAL = ".publishing.json"  # of the publication, while it goes on
_CHUNK = 2**20


@dataclass(frozen=True)
class OutputFile:
    """An output file.

    Attributes:
        input: The name of the input file.
        name: Its own.
        rows: Records that the input file has.
        predicted: Records in it.
        failed: Records that are in the errors instead.
        bytes: Its length.
        sha256: Its checksum, in hexadecimal digits.
        fault: Why the input file ends before its end; "" if it does not.
    """

    input: str
    name: str
    rows: int
    predicted: int
    failed: int
    bytes: int
    sha256: str
    fault: str = ""


@dataclass(frozen=True)
class JoinedOutput:
    """An output that is put together.

    Attributes:
        manifest: What was read and written.
        statistics: Statistics of each part, in their order; see ``result_statistics.combined``.
    """

    manifest: dict[str, Any]
    statistics: list[Mapping[str, Any]]


def name_of(file: str, input_format: str) -> str:
    """The name of an input file's output: an array for JSON, else JSON Lines."""
    suffix = ".json" if input_format == "json" else ".jsonl"
    path = PurePosixPath(file)
    known = {".json", ".jsonl", ".ndjson", ".csv", ".parquet", ".txt"}
    return str(path.with_suffix(suffix) if path.suffix.lower() in known else f"{path}{suffix}")


def names_of(files: Sequence[str], input_format: str) -> list[str]:
    """The names of all files of an output; none takes another's, or that of a folder.

    Args:
        files: The names of the input files.
        input_format: Their format.

    Raises:
        BadInputError: With the code ``OutputNamesClash``.
    """
    taken = {MANIFEST: "the manifest", ERRORS: "the errors", JOURNAL: "the journal"}
    folders: dict[str, str] = {}
    for file in files:
        name = name_of(file, input_format)
        if name in taken:
            raise _names_clash(f"the results of {file} and {taken[name]} would both be {name}")
        taken[name] = f"the results of {file}"
        folders |= dict.fromkeys(parents(name), file)
    for folder, file in folders.items():
        if folder in taken:
            raise _names_clash(
                f"{taken[folder]} would be {folder}, which is a folder with those of {file}"
            )
    return list(taken)


def _names_clash(what: str) -> BadInputError:
    return BadInputError(
        f"input_uri: {what}.",
        "Leave one out with exclude, or rename it.",
        code="OutputNamesClash",
    )


def put_together(
    folder: Path,
    plan: Plan,
    parts: Path,
    input_format: str,
    described: dict[str, Any],
    check_over: Callable[[], object],
) -> JoinedOutput:
    """Write the output to ``folder``; each part is read once.

    Args:
        folder: An empty folder.
        plan: The input files, with the numbers of their parts.
        parts: The folder with the results of the parts.
        input_format: The input's format.
        described: What the manifest says beside the files.
        check_over: Called often; raises to end it.

    Raises:
        RunFailedError: With the code ``ResultsDamaged``, if the results of a part are missing, are
            not what was written, or do not have every record.
    """
    with HashedFile(folder / ERRORS) as errors:
        collected = _Collected(errors)
        outputs = [
            _join(folder, file, parts, input_format, collected, check_over) for file in plan.files
        ]
    faults = errors.written
    if not faults.bytes:
        (folder / ERRORS).unlink()
    manifest = {
        **described,
        "rows": sum(one.rows for one in outputs),
        "predicted": sum(one.predicted for one in outputs),
        "failed": sum(one.failed for one in outputs),
        "errors": {"name": ERRORS, **asdict(faults)} if faults.bytes else None,
        "failure_reasons": failure_reasons.shown(collected.reasons.found, plan.file_of),
        "files": [asdict(one) for one in outputs],
    }
    with HashedFile(folder / MANIFEST) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return JoinedOutput(manifest, collected.statistics)


@dataclass(frozen=True)
class _Collected:
    """What all parts have, beside their results."""

    errors: HashedFile
    reasons: FailureReasons = field(default_factory=FailureReasons)
    statistics: list[Mapping[str, Any]] = field(default_factory=list)


def _join(
    folder: Path,
    file: PlannedFile,
    parts: Path,
    input_format: str,
    collected: _Collected,
    check_over: Callable[[], object],
) -> OutputFile:
    """One input file's output, of its parts' results."""
    name = name_of(file.name, input_format)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    predicted = failed = 0
    with HashedFile(folder / name) as output:
        lines = _Array(output) if file.is_array else output
        for number, part in enumerate(file.parts, file.first):
            files = PartFiles(parts, number)
            summary = files.read_summary()
            if summary is None or summary.rows + summary.failed != part.rows:
                raise _damaged(file.name, number)
            for chunk in _checked(files.results, summary.results, file.name, number):
                check_over()
                lines.write(chunk)
            _add_errors(collected.errors, file.name, number, files, summary)
            collected.reasons.merge(summary.reasons)
            collected.statistics.append(summary.statistics)
            predicted, failed = predicted + summary.rows, failed + summary.failed
        if isinstance(lines, _Array):
            lines.end()
    if file.fault:
        collected.errors.write(_error(file.name, {"row": None, "error": file.fault}))
    written = output.written
    return OutputFile(
        file.name, name, file.rows, predicted, failed, written.bytes, written.sha256, file.fault
    )


class _Array:
    """Writes JSON Lines as a JSON array."""

    def __init__(self, file: HashedFile) -> None:
        self._file = file
        self._held = b"[\n"  # what comes before the next byte, if one comes

    def write(self, lines: bytes) -> None:
        if lines:
            self._file.write(self._held + lines.removesuffix(b"\n").replace(b"\n", b",\n"))
            self._held = b",\n" if lines.endswith(b"\n") else b""

    def end(self) -> None:
        self._file.write(b"[]\n" if self._held == b"[\n" else b"\n]\n")


def _add_errors(
    errors: HashedFile, name: str, number: int, files: PartFiles, summary: PartSummary
) -> None:
    start = b'{"file":' + dumps(name) + b","
    begun = b""
    for chunk in _checked(files.errors, summary.errors, name, number):
        *lines, begun = (begun + chunk).split(b"\n")
        errors.write(b"".join(start + line[1:] + b"\n" for line in lines))


def _error(name: str, found: Mapping[str, Any]) -> bytes:
    return dumps({"file": name, **found}) + b"\n"


def _checked(path: Path, expected: WrittenFile, name: str, number: int) -> Iterator[bytes]:
    """The bytes of a part's file.

    Raises:
        RunFailedError: With the code ``ResultsDamaged``, if they are not what was written.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
    except FileNotFoundError as error:
        if expected.bytes:  # an empty one may be lost with a machine's power: it is not synced
            raise _damaged(name, number) from error
    if digest.hexdigest() != expected.sha256:
        raise _damaged(name, number)


def _damaged(name: str, number: int) -> RunFailedError:
    return RunFailedError(
        f"The results of part {number}, of {name}, are not what was written.",
        "Start a new batch inference. Another program may write to the run's folder, or the disk "
        "is failing.",
        state=BATCH_INFERENCE.failure,
        code="ResultsDamaged",
    )
