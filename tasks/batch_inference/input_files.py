"""The files that a batch inference reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra import storage
from infra.errors import BadInputError
from infra.storage import Store

MOST_FILES = 100_000
_GLOB = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]")


@dataclass(frozen=True)
class InputFile:
    """An input file.

    Attributes:
        name: Its path below the input, with '/' between folders; of a single file its name.
        size: Its bytes.
    """

    name: str
    size: int


def select(found: Store, include: Sequence[str], exclude: Sequence[str]) -> list[InputFile]:
    """The files below an input that the patterns choose, sorted by name.

    A pattern without '/' is compared with a file's name in any folder, another one with its path:
    ``*`` and ``?`` are no '/', ``**`` is any folders. ``exclude`` wins over ``include``.

    Args:
        found: The input: a folder or a file.
        include: Patterns of which one must fit; without any, all files do.
        exclude: Patterns of which none may fit.

    Raises:
        BadInputError: ``InputEmpty``, ``InputTooManyFiles``, or ``InputNameInvalid``.
        NotFoundError: If there is nothing.
    """
    wanted, unwanted = map(_patterns, (include, exclude))
    chosen: list[InputFile] = []
    total = 0
    for entry in found.entries():
        name = entry.name or PurePosixPath(found.uri).name
        total += 1
        if _fits(wanted, name, otherwise=True) and not _fits(unwanted, name, otherwise=False):
            _check_name(name)
            chosen.append(InputFile(name, entry.size))
        if len(chosen) > MOST_FILES:
            raise BadInputError(
                f"input_uri: more than {MOST_FILES} files are chosen at {found.uri}.",
                "Choose fewer with include and exclude, or put records into larger files.",
                code="InputTooManyFiles",
            )
    if not chosen:
        patterns = f"include {list(include)} and exclude {list(exclude)}"
        why = (
            f"none of the {total} files at {found.uri} is chosen by {patterns}"
            if total and (include or exclude)
            else f"there are no files at {found.uri}"
        )
        raise BadInputError(
            f"input_uri: {why}.",
            "Check the URI and the patterns: without '/' they are compared with names, else with "
            "paths below input_uri.",
            code="InputEmpty",
        )
    return chosen


def _check_name(name: str) -> None:
    """Refuse a name that the results' files and the manifest cannot have.

    Raises:
        BadInputError: With the code ``InputNameInvalid``.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode(errors="backslashreplace").decode()
        raise BadInputError(
            f"input_uri: the name of the file {shown} is not UTF-8.",
            "Rename it, or leave it out with exclude.",
            code="InputNameInvalid",
        ) from error


def check_patterns(field: str, patterns: Sequence[str]) -> None:
    """Refuse patterns that fit nothing by their form.

    Raises:
        BadInputError: With the code ``GlobInvalid``.
    """
    for pattern in patterns:
        outside = not pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts
        if outside or not _compiles(pattern):
            raise BadInputError(
                f"{field}: the pattern {pattern!r} fits no file below input_uri.",
                "Write it relative to input_uri, such as '*.jsonl' or 'july/**/*.json'.",
                code="GlobInvalid",
            )


def _compiles(pattern: str) -> bool:
    """Whether its sets of letters are such: [z-a] is none."""
    try:
        _patterns([pattern])
    except re.error:
        return False
    return True


def local(found: Store, files: Sequence[InputFile], folder: Path) -> Path:
    """The folder, or the file, to read the files from: where they are, or fetched to ``folder``.

    What an earlier attempt has fetched is not fetched again.

    Raises:
        ModelyardError: If they cannot be read, or do not fit.
    """
    place = found.in_place()
    if place is not None:
        return place
    for file in files:
        if not (folder / file.name).exists():
            single = not found.is_directory()
            source = found if single else storage.store(f"{found.uri.rstrip('/')}/{file.name}")
            (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
            source.fetch(folder / file.name)
    return folder


def _patterns(globs: Sequence[str]) -> list[tuple[bool, re.Pattern[str]]]:
    """Patterns, and whether each is compared with paths."""
    return [("/" in glob, re.compile(_expression(glob), re.DOTALL)) for glob in globs]


def _fits(patterns: list[tuple[bool, re.Pattern[str]]], name: str, *, otherwise: bool) -> bool:
    if not patterns:
        return otherwise
    base = PurePosixPath(name).name
    return any(one.fullmatch(name if of_paths else base) for of_paths, one in patterns)


def _expression(glob: str) -> str:
    """The regular expression of a glob."""
    parts, at = [], 0
    for found in _GLOB.finditer(glob):
        parts += [re.escape(glob[at : found.start()]), _translated(found.group())]
        at = found.end()
    return "".join([*parts, re.escape(glob[at:])])


def _translated(wildcard: str) -> str:
    simple = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if wildcard in simple:
        return simple[wildcard]
    inner = re.sub(r"([\\\[])", r"\\\1", wildcard[1:-1])
    return f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
