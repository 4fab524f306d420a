"""Output of the command: a table or a sentence for people, one JSON value for programs."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra.errors import ModelyardError
from modelyard import login, times
from registry.views import View

_Cells = dict[str, list[str]]  # of a table, by column
_Rank = Callable[[str, int], int]

# A text such as ":warning:" is printed as it is.
console = Console(highlight=False, soft_wrap=True, emoji=False)
_errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

_NARROWEST_TABLE = 140
_NARROWEST_LIST = 80  # on a terminal, where its long values are cut
_WIDE_LIST = 100
# What a list on a narrow terminal leaves out, in this order: names find what ids do.
_LEFT_OUT = (
    "source_uri", "digest", "file", "changed_by", "created_by", "id", "run", "decided", "kind",
    "description", "timezone", "deployment", "updated", "changed", "created", "best",
)  # fmt: skip
# The same of a table in a block.
_LEFT_OUT_OF_BLOCKS = (
    "mlflow_run_id", "flow_run_id", "digest", "changed_by", "created_by", "id", "run", "decided",
)  # fmt: skip
_PROSE = {"detail", "reason", "description", "message"}  # may be broken anywhere
_NARROWEST_PROSE = 24
_NARROWEST_CUT = 8
_DATE = len("2026-01-31")
_SPACE = 2  # between two columns
_NARROWEST_TEXT = 20
_CONTINUED = 4  # by how much the second line of a text is indented
_AS_GIVEN = {"parameters", "hyperparameters", "arguments"}
_COUNTS = {"fates", "counts"}  # by words, of which one is "created"
_TIMES = {"started", "created", "changed", "updated", "next_slot", "slot", "decided", "at"}
_WITH_TIMES = {"slot", "last"}  # among their words
_MILLISECONDS = {"created", "updated"}  # of what MLflow has


def as_json(value: Any) -> None:
    """Print ``value`` as the one JSON value of this command."""
    sys.stdout.write(json.dumps(value, default=_encode, allow_nan=False) + "\n")
    sys.stdout.flush()  # `up` keeps running after it has answered


def _encode(value: object) -> object:
    return value.to_json() if isinstance(value, View) else str(value)


def line(text: str) -> None:
    """Print a line of a log as it is, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def sentence(text: str) -> None:
    """Print a text for people, wrapped at words on a terminal."""
    console.print(_for_width(text, console), markup=False)


def _for_width(text: str, on: Console, taken: int = 0) -> str:
    """Wrap a text at words on a terminal; ``taken`` is used of its first line."""
    if not on.is_terminal:
        return text
    lines = []
    for line in text.splitlines():
        fits = cell_len(line) + taken <= on.width  # with its indentation
        lines += [line] if fits else _wrapped(line, on.width, taken)
        taken = 0
    return "\n".join(lines)


def rows(
    found: Sequence[View | Mapping[str, Any]], columns: Sequence[str], *, as_json_: bool,
    cut: bool = True,
) -> None:  # fmt: skip
    """Print a list: a table of ``columns``, or all of it as JSON.

    With ``cut`` a row is a line on a terminal: columns that there is no room for are left out,
    which is said below, and then long values are cut.
    """
    if as_json_:
        as_json(found)
        return
    if found:
        cut = cut and console.is_terminal
        cells = _cells([_localized(_mapping(one)) for one in found], columns)
        width = _table_width(narrow=cut)
        shown = _fitting(cells, width, _LEFT_OUT) if cut else cells
        _print_table(shown, width, cut=cut)
        _tell_left_out([name for name in cells if name not in shown and any(cells[name])])
    else:
        console.print("None.")


def _tell_left_out(columns: Sequence[str]) -> None:
    if columns:
        told = f"Columns left out: {', '.join(columns)} (--json has all, or widen the terminal)"
        _errors.print(_for_width(told, _errors), markup=False, style="dim")


def is_narrow() -> bool:
    """Whether the output is a terminal without room for every column of a list."""
    return console.is_terminal and console.width < _WIDE_LIST


def _mapping(found: View | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a thing with all views in it as mappings."""
    if isinstance(found, View):
        return found.to_json()
    return {name: _unwrapped(value) for name, value in found.items()}


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(one) for one in value]
    return _mapping(value) if isinstance(value, View | Mapping) else value


def _table_width(*, narrow: bool) -> int:
    """Return the width of a table: a narrow terminal would break words into letters."""
    return max(console.width, _NARROWEST_LIST if narrow else _NARROWEST_TABLE)


def _cells(found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> _Cells:
    return {name: [_text(row.get(name)) for row in found] for name in columns}


def _print_table(cells: _Cells, width: int, indent: str = "", *, cut: bool = False) -> None:
    """Print a table; with ``cut`` long values are cut, otherwise wrapped."""
    wide = Console(
        highlight=False, soft_wrap=True, emoji=False, width=width, height=console.height
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    rank = _rank_of_cut if cut else _rank_of_wrapped(_longest_words(cells))
    widths = _shrunk(cells, width - len(indent), rank)
    for name in cells:
        whole = _is_whole(name)
        table.add_column(_cell(name, cut=cut), no_wrap=whole, width=widths.get(name))
    for row in zip(*cells.values(), strict=True):
        table.add_row(*(_cell(text, cut=cut) for text in row))
    wide.print(Padding.indent(table, len(indent)))


def _shrunk(cells: _Cells, room: int, rank: _Rank) -> dict[str, int]:
    """Return the widths of columns; Rich's own would cut names, and break words of a long text.

    Args:
        cells: The table.
        room: The width that there is.
        rank: Of a column and its width: those of the highest rank shrink first, and none of 0.

    Returns:
        Nothing where there is not enough room, so that Rich decides.
    """
    widths = _widths(cells)
    for _ in range(_total(widths) - room):
        name = max(widths, key=lambda name: (rank(name, widths[name]), widths[name]))
        if not rank(name, widths[name]):
            return {}
        widths[name] -= 1
    return widths


def _rank_of_cut(column: str, width: int) -> int:
    if _is_whole(column):
        return 0
    return int(width > _DATE) if column in _TIMES else 2 * (width > _NARROWEST_CUT)


def _rank_of_wrapped(words: Mapping[str, int]) -> _Rank:
    """Rank columns that are wrapped between words."""

    def rank(column: str, width: int) -> int:
        may_break = column in _PROSE and width > _NARROWEST_PROSE
        return 2 if width > words[column] else int(may_break)

    return rank


def _widths(cells: _Cells) -> dict[str, int]:
    return {name: max(map(cell_len, (name, *texts))) for name, texts in cells.items()}


def _longest_words(cells: _Cells) -> dict[str, int]:
    found = {}
    for name, texts in cells.items():
        words = [name, *texts] if _is_whole(name) else " ".join([name, *texts]).split()
        found[name] = max(map(cell_len, words), default=0)
    return found


def _is_whole(column: str) -> bool:
    """Whether values of a column are never wrapped."""
    return column in {"id", "run", "name", "state", "fate"} or column.endswith("_id")


def _fitting(cells: _Cells, room: int, left_out: Sequence[str]) -> _Cells:
    """Return the columns that have values, without those that a narrow terminal leaves out."""
    found = {name: texts for name, texts in cells.items() if any(texts)}
    for name in left_out:
        if _total(_widths(found)) <= room:
            break
        found.pop(name, None)
    return found


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _SPACE * (len(widths) - 1)


def _cell(text: str, *, cut: bool) -> Text:
    return Text(text, overflow="ellipsis" if cut else "fold", no_wrap=cut or None)


def address(url: str) -> str:
    """Return a link for printing; on a terminal it logs the browser in."""
    return login.link(url) if console.is_terminal else url


def login_hint() -> None:
    """Say how to log in, where links were printed bare and no browser has logged in yet."""
    if not console.is_terminal and login.is_missing():
        notice("The links want a login: modelyard open")


def _text(value: Any, *, digits: int = 6) -> str:
    """Return a value in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_nested(inner)}" for key, inner in _present(value).items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return "" if value is None else str(value)


def _nested(value: Any) -> str:
    """Return a value within a mapping; one that has commas of its own in brackets."""
    text = _text(value)
    if isinstance(value, Mapping):
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, list) else text


def _localized(value: Any, name: str = "") -> Any:
    """Return a field with the times in it in the local zone, but for what a user gave."""
    if isinstance(value, Mapping):
        return {
            key: inner if key in _AS_GIVEN | _COUNTS else _localized(inner, key)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_localized(one) for one in value]
    if name in _MILLISECONDS and isinstance(value, int):
        return times.local_from_milliseconds(value)
    if isinstance(value, str):
        return times.localized(value) if name in _WITH_TIMES else times.local(value)
    return value


def _present(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value, in groups and in rows as well."""
    pruned = {name: _pruned(value) for name, value in found.items()}
    return {name: value for name, value in pruned.items() if value not in (None, "", [], {})}


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _present(value)
    return [_pruned(one) for one in value] if isinstance(value, list) else value


def thing(found: View | Mapping[str, Any], *, as_json_: bool) -> None:
    """Print one thing: its fields line by line, or as JSON.

    Fields without a value are left out. Times are in the local time zone.
    """
    if as_json_:
        as_json(found)
    else:
        _print_fields(_localized(_mapping(found)), "")


def _print_fields(found: Mapping[str, Any], indent: str, *, bullet: str = "") -> None:
    """Print fields, each in a line that begins with ``indent``; the first one with ``bullet``."""
    for name, value in _present(found).items():
        lead, bullet = bullet or indent, ""
        title, text = _field(name, value, found)
        if text is not None:
            _print_line(lead, title, text)
            continue
        console.print(Text.assemble(lead, (title, "bold")))
        inner = f"{indent}  "
        if isinstance(value, Mapping):
            _print_nested(name, value, inner)
        elif not _are_rows(value):
            for one in value:
                console.print(f"{inner}{_text(one)}", markup=False)
        elif cells := _cells_that_fit(value, inner):
            _print_table(cells, _table_width(narrow=console.is_terminal), inner)
        else:
            for one in value:
                _print_fields(one, f"{inner}  ", bullet=f"{inner}- ")


def _field(name: str, value: Any, among: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the title and the text of a field; None as the text of one with fields or rows."""
    if isinstance(value, Mapping | list):
        return name, None
    if name == "seconds" and "started" in among:  # of a run
        return "duration", times.duration(value)
    return name, _text(value, digits=10)


def _print_nested(name: str, value: Mapping[str, Any], indent: str) -> None:
    if name in _AS_GIVEN:
        for key, text in _flat(value):
            _print_line(indent, key, text)
    elif name == "links":
        for key, url in value.items():
            _print_line(indent, key, address(str(url)))
        login_hint()
    else:
        _print_fields(value, indent)


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield values that a user gave, as ``-p`` would give them: by their dotted keys."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            yield f"{prefix}{name}", value
        else:
            yield f"{prefix}{name}", json.dumps(value, default=_encode, ensure_ascii=False)


def _print_line(indent: str, title: str, text: str) -> None:
    """Print a field; a long text is wrapped on a terminal, but no word of it, such as a URI."""
    lines = text.splitlines() or [""]
    if console.is_terminal:
        room = max(console.width - len(indent) - _CONTINUED, _NARROWEST_TEXT)
        lines = [
            part
            for number, line in enumerate(lines)
            for part in _wrapped(line, room, 0 if number else len(title) + 2 - _CONTINUED)
        ]
    head, *rest = lines
    console.print(Text.assemble(indent, (title, "bold"), ": ", head))
    for line in rest:
        console.print(f"{' ' * (len(indent) + _CONTINUED)}{line}", markup=False)


def _wrapped(line: str, room: int, taken: int) -> list[str]:
    """Wrap a line at words, with its indentation; ``taken`` is how much of its room is a title."""
    indent = line[: len(line) - len(line.lstrip())]
    title = " " * max(0, taken)
    wrapped = textwrap.wrap(
        line.lstrip(), room, initial_indent=title + indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    head, *rest = wrapped or [title]
    return [head.removeprefix(title), *rest]


def _cells_that_fit(found: Sequence[Mapping[str, Any]], indent: str) -> _Cells | None:
    """Return the cells of a table in a block.

    Returns:
        None where it would break a word, such as a URI or the name of a pod: its rows are printed
        one by one.
    """
    cells = _cells(found, _columns(found))
    room = _table_width(narrow=console.is_terminal) - len(indent)
    if console.is_terminal:
        cells = _fitting(cells, room, _LEFT_OUT_OF_BLOCKS)
    narrowest = {
        name: min(width, _NARROWEST_PROSE) if name in _PROSE else width
        for name, width in _longest_words(cells).items()
    }
    return cells if _total(narrowest) <= room else None


def _are_rows(value: Any) -> bool:
    """Whether a value is a list of mappings."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def _columns(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys for which at least one row has a value."""
    return list(dict.fromkeys(name for row in found for name in _present(row)))


def notice(text: str) -> None:
    """Print a sentence for people on standard error."""
    _errors.print(_for_width(text, _errors), markup=False)


def warning(text: str) -> None:
    """Print a warning on standard error."""
    _errors.print(_for_width(text, _errors), markup=False, style="yellow")


def error(problem: ModelyardError, *, as_json_: bool) -> None:
    """Print an error: on standard error for people, as ``{"error"}`` for programs."""
    if as_json_:
        as_json({"error": problem.as_dict()})
        return
    _errors.print(f"[bold red]{problem.code}[/bold red]", end=" ")
    _errors.print(_for_width(problem.message, _errors, len(problem.code) + 1), markup=False)
    if problem.hint:
        _errors.print(_for_width(problem.hint, _errors), markup=False, style="dim")
