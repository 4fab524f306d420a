"""Markdown that renders on GitHub: escaped text, tables, and docstrings in Google's style."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_CODE = re.compile(r"(`+[^`]+`+)")
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields")
_ITEM = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\w+)*): (.*)", re.DOTALL)


def text(words: str) -> str:
    """Escape text in one line; what is in backquotes stays as it is."""
    parts = _CODE.split(" ".join(words.split()))
    return "".join(part if part.startswith("`") else _escape(part) for part in parts)


def _escape(part: str) -> str:
    part = part.replace("\\", "\\\\").replace("*", r"\*").replace("[", r"\[")
    return part.replace("<", "&lt;").replace(" _", r" \_")


def code(words: object) -> str:
    """Format as code; nothing for an empty string."""
    return f"`{words}`" if words != "" else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Write a table of cells that are Markdown, without columns that are empty."""
    listed = [list(row) for row in rows]
    kept = [
        column for column in range(len(header)) if any(row[column] for row in listed) or not column
    ]
    yield _row(header[column] for column in kept)
    yield _row("---" for _ in kept)
    yield from (_row(row[column] for column in kept) for row in listed)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.lower())
    return kept.replace(" ", "-")


@dataclass
class Docstring:
    """A docstring in Google's style.

    Attributes:
        summary: Its first paragraph.
        paragraphs: The others.
        sections: The items of each section: a name, which may be empty, and its text.
    """

    summary: str = ""
    paragraphs: list[str] = field(default_factory=list)
    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def docstring(owner: object) -> Docstring:
    """Parse the docstring of a class or a function."""
    return parse(inspect.getdoc(owner) or "")


def parse(words: str) -> Docstring:
    """Parse a docstring without indentation."""
    words = _ROLE.sub(r"`\1`", words).replace("``", "`")
    found = Docstring()
    for block in re.split(r"\n\s*\n", words):
        head, _, rest = block.partition("\n")
        if (section := head.rstrip(":")) in _SECTIONS and head.endswith(":"):
            found.sections[section] = list(_items(rest, named=section != "Returns"))
        elif not found.summary:
            found.summary = " ".join(block.split())
        else:
            found.paragraphs.append(block)
    return found


def _items(block: str, *, named: bool) -> Iterator[tuple[str, str]]:
    lines = textwrap.dedent(block)
    if not named:
        yield "", " ".join(lines.split())
        return
    for item in re.split(r"\n(?=\S)", lines):
        match = _ITEM.match(item)
        yield (match[1], " ".join(match[2].split())) if match else ("", " ".join(item.split()))
