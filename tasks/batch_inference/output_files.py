"""The output of a batch inference: files as its input has them, errors, and a manifest.

All of it is put together in a folder, which is then published whole::

    july/a.jsonl        the results of july/a.jsonl, in its order
    errors.jsonl        the records that failed, with their file, row and reason; if there are any
    manifest.json       what was read and written: counts and checksums
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from infra.errors import BadInputError
from infra.storage.base import parents
from tasks.batch_inference import failure_reasons
from tasks.batch_inference.joined_parts import JoinedParts
from tasks.batch_inference.part_results import HashedFile, dumps
from tasks.batch_inference.planning import Plan, PlannedFile

MANIFEST, ERRORS = "manifest.json", "errors.jsonl"
JOURNAL = ".publishing.json"  # of the publication, while it goes on
_SYNCED_AT_ONCE = 16
_LONGEST_NAME = 255  # bytes, as of file systems


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
        BadInputError: With the code ``OutputNamesClash`` or ``OutputNameTooLong``.
    """
    taken = {MANIFEST: "the manifest", ERRORS: "the errors", JOURNAL: "the journal"}
    folders: dict[str, str] = {}
    for file in files:
        name = name_of(file, input_format)
        if name in taken:
            raise _names_clash(f"the results of {file} and {taken[name]} would both be {name}")
        if len(os.fsencode(PurePosixPath(name).name)) > _LONGEST_NAME:
            raise BadInputError(
                f"input_uri: the results of {file} would have a name of more than {_LONGEST_NAME} "
                "bytes.",
                "Rename it, or leave it out with exclude.",
                code="OutputNameTooLong",
            )
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
    with HashedFile(folder / ERRORS) as errors, JoinedParts(parts, check_over) as joined:
        outputs = [_join(folder, file, joined, input_format, errors) for file in plan.files]
        joined.check_last()
    _sync(folder / one.name for one in outputs)
    faults = errors.written
    if not faults.bytes:
        (folder / ERRORS).unlink()
    manifest = {
        **described,
        "rows": sum(one.rows for one in outputs),
        "predicted": sum(one.predicted for one in outputs),
        "failed": sum(one.failed for one in outputs),
        "errors": {"name": ERRORS, **asdict(faults)} if faults.bytes else None,
        "failure_reasons": failure_reasons.shown(joined.reasons.found, plan.name_of),
        "files": [asdict(one) for one in outputs],
    }
    with HashedFile(folder / MANIFEST) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return JoinedOutput(manifest, joined.statistics)


def cut_off(manifest: Mapping[str, Any]) -> str:
    """Which files end before their end, and so have fewer records than meant; "" if none does."""
    faults = [file for file in manifest["files"] if file["fault"]]
    if not faults:
        return ""
    files = "1 file ends" if len(faults) == 1 else f"{len(faults):,} files end"
    return f", {files} too early ({faults[0]['input']}: {faults[0]['fault']})"


def _join(
    folder: Path, file: PlannedFile, parts: JoinedParts, input_format: str, errors: HashedFile
) -> OutputFile:
    """One input file's output, of its pieces' results."""
    name = name_of(file.name, input_format)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    predicted = failed = 0
    start = b'{"file":' + dumps(file.name) + b","
    with HashedFile(folder / name, is_synced=False) as output:
        lines = _Array(output) if file.is_array else output
        for number, part in enumerate(file.parts, file.first):
            piece = parts.next_piece(number, file.name, part.rows)
            for chunk in parts.results(piece):
                lines.write(chunk)
            for line in parts.errors(piece):
                errors.write(start + line[1:])
            predicted, failed = predicted + piece.rows, failed + piece.failed
        if isinstance(lines, _Array):
            lines.end()
    if file.fault:
        errors.write(start + dumps({"row": None, "error": file.fault})[1:] + b"\n")
    written = output.written
    return OutputFile(
        file.name, name, file.rows, predicted, failed, written.bytes, written.sha256, file.fault
    )


def _sync(paths: Iterable[Path]) -> None:
    """Have files on the disk; one after another each of them would wait for it alone."""
    with ThreadPoolExecutor(_SYNCED_AT_ONCE, "sync") as threads:
        for _ in threads.map(_sync_one, paths):
            pass


def _sync_one(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


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
