"""Output of the command: a table or a sentence for people, one JSON value for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.errors import ModelyardError
from modelyard import login
from registry.views import View

console = Console(highlight=False, soft_wrap=True)
_errors = Console(stderr=True, highlight=False, soft_wrap=True)

_NARROWEST_TABLE = 140


def as_json(value: Any) -> None:
    """Print ``value`` as the one JSON value of this command."""
    sys.stdout.write(json.dumps(value, default=_encode, allow_nan=False) + "\n")
    sys.stdout.flush()  # `up` keeps running after it has answered


def _encode(value: object) -> object:
    return value.to_json() if isinstance(value, View) else str(value)


def rows(
    found: Sequence[View | Mapping[str, Any]], columns: Sequence[str], *, as_json_: bool
) -> None:
    """Print a list: a table of ``columns``, or all of it as JSON."""
    if as_json_:
        as_json(found)
        return
    if found:
        _print_table([_mapping(one) for one in found], columns)
    else:
        console.print("None.")


def _mapping(found: View | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a thing with all views in it as mappings."""
    if isinstance(found, View):
        return found.to_json()
    return {name: _unwrapped(value) for name, value in found.items()}


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(one) for one in value]
    return _mapping(value) if isinstance(value, View | Mapping) else value


def _print_table(found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print a table as wide as it needs: a narrow terminal would break words into letters."""
    width = max(console.width, _NARROWEST_TABLE)
    wide = Console(highlight=False, soft_wrap=True, width=width, height=console.height)
    wide.print(_table(found, columns))


def _table(found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in columns:
        copied = name in {"id", "run"} or name.endswith("_id")  # ids are there to be copied
        table.add_column(name, no_wrap=copied)
    for row in found:
        table.add_row(*(Text(_cell(row.get(name)), overflow="fold") for name in columns))
    return table


def address(url: str) -> str:
    """Return a link for printing; on a terminal it logs the browser in."""
    return login.link(url) if console.is_terminal else url


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(inner)}" for key, inner in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def thing(found: View | Mapping[str, Any], *, as_json_: bool) -> None:
    """Print one thing: its fields line by line, or as JSON."""
    if as_json_:
        as_json(found)
        return
    for name, value in _mapping(found).items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping):
            console.print(f"[bold]{name}[/bold]")
            for key, inner in value.items():
                if _are_rows(inner):
                    console.print(f"  {key}", markup=False)
                    _print_table(inner, _columns(inner))
                else:
                    shown = _cell(inner) if isinstance(inner, Mapping) else inner
                    if name == "links":
                        shown = address(str(inner))
                    console.print(f"  {key}: {shown}", markup=False)
        elif _are_rows(value):
            console.print(f"[bold]{name}[/bold]")
            _print_table(value, _columns(value))
        elif isinstance(value, list):
            console.print(f"[bold]{name}[/bold]")
            for inner in value:
                console.print(f"  {inner}", markup=False)
        else:
            console.print(f"[bold]{name}[/bold]:", end=" ")
            console.print(str(value), markup=False)


def _are_rows(value: Any) -> bool:
    """Whether a value is a list of mappings, which is shown as a table."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    )


def _columns(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys for which at least one row has a value."""
    names = (name for row in found for name, value in row.items() if value not in (None, ""))
    return list(dict.fromkeys(names))


def error(problem: ModelyardError, *, as_json_: bool) -> None:
    """Print an error: on standard error for people, as ``{"error"}`` for programs."""
    if as_json_:
        as_json({"error": problem.as_dict()})
        return
    _errors.print(f"[bold red]{problem.code}[/bold red]", end=" ")
    _errors.print(problem.message, markup=False)
    if problem.hint:
        _errors.print(problem.hint, markup=False, style="dim")
