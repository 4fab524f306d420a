"""The files that a batch inference reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra import storage
from infra.errors import BadInputError
from infra.storage import Store
from infra.storage.base import EntryFilter

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
    ``*`` and ``?`` are no '/', ``**`` is any folders. ``exclude`` wins over ``include``. What is
    left out may be anything: a pipe, a link that leads out, a folder that may not be read.

    Args:
        found: The input: a folder or a file.
        include: Patterns of which one must fit; without any, all files do.
        exclude: Patterns of which none may fit.

    Raises:
        BadInputError: ``InputEmpty``, ``InputTooManyFiles``, or ``InputNameInvalid``.
        NotFoundError: If there is nothing.
    """
    chosen: list[InputFile] = []
    for entry in found.entries(_Patterns(include, exclude)):
        _check_name(entry.name)
        chosen.append(InputFile(entry.name, entry.size))
        if len(chosen) > MOST_FILES:
            raise BadInputError(
                f"input_uri: more than {MOST_FILES} files are chosen at {found.uri}.",
                "Choose fewer with include and exclude, or put records into larger files.",
                code="InputTooManyFiles",
            )
    if not chosen:
        patterns = f" that include {list(include)} and exclude {list(exclude)} choose"
        why = f"there are no files at {found.uri}{patterns if include or exclude else ''}"
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
        _Pattern(pattern)
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


class _Patterns(EntryFilter):
    """Files that one of the patterns to include fits, if there are any, and none to exclude."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = [_Pattern(glob) for glob in include]
        self._exclude = [_Pattern(glob) for glob in exclude]

    def chooses(self, name: str) -> bool:
        is_included = not self._include or any(one.fits(name) for one in self._include)
        return is_included and not any(one.fits(name) for one in self._exclude)

    def enters(self, folder: str) -> bool:
        may_have = not self._include or any(one.may_fit_in(folder) for one in self._include)
        return may_have and not any(one.fits_all_in(folder) for one in self._exclude)


class _Pattern:
    """A glob, which is compared with paths if it has a '/', else with names in any folder."""

    def __init__(self, glob: str) -> None:
        self._glob = glob
        self._of_paths = "/" in glob
        self._expression = re.compile(_expression(glob), re.DOTALL)
        wildcard = _GLOB.search(glob)
        plain = glob[: wildcard.start()] if wildcard else glob
        self._above = plain[: plain.rfind("/") + 1]  # folders that all fitting names lie in

    def fits(self, name: str) -> bool:
        compared = name if self._of_paths else PurePosixPath(name).name
        return self._expression.fullmatch(compared) is not None

    def may_fit_in(self, folder: str) -> bool:
        """Whether it may fit a name below a folder."""
        return f"{folder}/".startswith(self._above) or self._above.startswith(f"{folder}/")

    def fits_all_in(self, folder: str) -> bool:
        """Whether it fits all names below a folder, as far as its form says so."""
        is_open = self._glob in {"*", "**"} or self._glob.endswith("/**")
        return is_open and self.fits(f"{folder}/name")


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
