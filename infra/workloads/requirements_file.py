"""Requirements files as pip reads them: their lines, and the local files that they name."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.errors import BadInputError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
)  # fmt: skip
_CODING = re.compile(rb"^[^\n]*\n?[^\n]*#.*coding[:=]\s*([-\w.]+)")
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(-[rcfe]|--requirement|--constraint|--find.links|--editable)[\s=]*(\S.*)")
_NAMED_URL = re.compile(r"[\w.-]+\s*(?:\[[^]]*\])?\s*@\s*(\S+)")
_EXTRAS = re.compile(r"\[[^]]*\]$")  # of a local package, such as .[cpu]
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar")
_BUILD_FILES = ("pyproject.toml", "setup.py")
_BUILD_LEFTOVERS = re.compile(
    r"__pycache__|build|dist|\.git|\.venv|\.tox|\.\w+_cache|.*\.egg-info"
)


@dataclass(frozen=True)
class RequirementLine:
    """A logical line of a requirements file, without its comment.

    Attributes:
        text: The line.
        file: The file that has it.
        option: ``r``, ``c``, ``f`` or ``e``; "" of a requirement or another option.
        value: The option's value.
        height: The physical lines that it takes in the file.
    """

    text: str
    file: Path
    option: str = ""
    value: str = ""
    height: int = 1

    @property
    def named_file(self) -> Path | None:
        """The file that ``-r`` or ``-c`` names; None of a URL or another line."""
        if self.option not in {"r", "c"} or "://" in self.value:
            return None
        return self.file.parent / self.value


def read_lines(file: Path, outer: tuple[Path, ...] = ()) -> Iterator[RequirementLine]:
    """Lines of a requirements file, each include followed by the included file's lines.

    Args:
        file: The file.
        outer: The files that include it.

    Raises:
        BadInputError: With the code ``RequirementsNotInstallable``, if a file cannot be read as
            text, or includes itself.
    """
    for line in _own_lines(file, outer):
        yield line
        if line.named_file is not None:
            yield from read_lines(line.named_file, (*outer, file.resolve()))


def flatten(file: Path, outer: tuple[Path, ...] = ()) -> list[str]:
    """Lines of a requirements file and of those that it includes, fit to be installed for good.

    Local packages become built copies even where the file calls them editable: an environment
    outlives the folder that they lie in. Up to the first include, lines keep their numbers.

    Raises:
        BadInputError: As :func:`read_lines` does.
    """
    lines: list[str] = []
    for line in _own_lines(file, outer):
        if line.option == "r" and line.named_file is not None:
            lines += flatten(line.named_file, (*outer, file.resolve()))
            continue
        text = line.text
        if line.option == "c" and line.named_file is not None:
            text = f"-c {line.named_file}"
        elif line.option == "f" and (file.parent / line.value).exists():
            text = f"-f {file.parent / line.value}"
        elif line.option == "e" and "://" not in line.value:
            text = line.value
        lines += [text, *[""] * (line.height - 1)]
    return lines


def local_files(lines: Iterable[RequirementLine], root: Path | None) -> Iterator[Path]:
    """Files whose content decides what the lines install: included ones, archives and sources.

    Args:
        lines: The lines.
        root: The folder that pip runs in, to which paths of requirements are relative; None if
            only absolute paths count.
    """
    for line in lines:
        if line.named_file is not None:
            yield line.named_file
        elif line.option == "f":
            folder = line.file.parent / line.value
            if "://" not in line.value and folder.is_dir():
                yield from (one for one in sorted(folder.iterdir()) if _is_archive(one))
        elif line.option in {"", "e"}:
            yield from _package_files(line, root)


def requirement(text: str) -> RequirementLine:
    """A requirement that stands in no file."""
    return RequirementLine(text, Path("/requirement"))


def refused(why: str) -> BadInputError:
    """The error of requirements that cannot be read."""
    return BadInputError(
        f"The requirements cannot be installed: {why}.",
        "Fix the requirements file.",
        code="RequirementsNotInstallable",
    )


def _own_lines(file: Path, outer: tuple[Path, ...]) -> Iterator[RequirementLine]:
    if file.resolve() in outer:
        raise refused(f"{file.name} includes itself")
    pending, height = "", 0
    for physical in _text(file).splitlines():
        pending, height = pending + physical, height + 1
        if pending.endswith("\\") and not _COMMENT.search(pending):
            pending = pending[:-1]
            continue
        yield _line(_COMMENT.sub("", pending).strip(), file, height)
        pending, height = "", 0


def _line(text: str, file: Path, height: int) -> RequirementLine:
    option = _OPTION.match(text)
    if option is None:
        return RequirementLine(text, file, height=height)
    return RequirementLine(text, file, option[1].lstrip("-")[0], option[2].strip(), height)


def _text(file: Path) -> str:
    """The file as text: by its byte order mark, its coding line, or as UTF-8, as pip does."""
    if not file.is_file():
        raise refused(f"there is no file {file.name}")
    data = file.read_bytes()
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding, file)
    coding = _CODING.match(data)
    return _decoded(data, coding[1].decode() if coding else "utf-8", file)


def _decoded(data: bytes, encoding: str, file: Path) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise refused(f"{file.name} is not text in {encoding}: {error}") from error


def _package_files(line: RequirementLine, root: Path | None) -> Iterator[Path]:
    """Files of the local archive or source folder that a requirement names, if it names one."""
    path = _local_path(line.value or line.text, editable=line.option == "e")
    if path is None:
        return
    bases = (
        [line.file.parent, root] if root is not None else [Path("/")] if path.is_absolute() else []
    )
    for found in dict.fromkeys(base / path for base in bases):
        if _is_archive(found):
            yield found
        elif any((found / name).is_file() for name in _BUILD_FILES):
            yield from _sources(found)


def _local_path(text: str, *, editable: bool) -> Path | None:
    """The path that a requirement may name, by pip's rules; None of a name or another URL."""
    text = re.split(r"\s+;|\s+--|;\s", text)[0].strip()
    named = _NAMED_URL.fullmatch(text)
    text = named[1] if named else text
    if text.startswith("file:"):
        return Path(unquote(urlsplit(text).path))
    text = _EXTRAS.sub("", text)
    is_path = editable or "/" in text or text.startswith(".") or text.endswith(_ARCHIVES)
    return Path(text) if is_path and "://" not in text else None


def _is_archive(path: Path) -> bool:
    return path.name.endswith(_ARCHIVES) and path.is_file()


def _sources(folder: Path) -> Iterator[Path]:
    """Files of a local package, without what builds and tools leave there."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(_BUILD_LEFTOVERS.fullmatch(part) for part in parts):
            yield path
