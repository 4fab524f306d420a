"""The generated pages by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.reference import (
    command_pages,
    error_pages,
    parameter_pages,
    python_pages,
    setting_pages,
    state_pages,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": command_pages.write,
    "parameters.md": parameter_pages.write,
    "python.md": python_pages.write,
    "settings.md": setting_pages.write,
    "errors.md": error_pages.write,
    "states.md": state_pages.write,
}


def write(name: str) -> str:
    """Write a page: lines without spaces at their ends, and one line end at the page's."""
    lines = [line.rstrip() for line in PAGES[name]().splitlines()]
    return "\n".join(lines).strip() + "\n"
