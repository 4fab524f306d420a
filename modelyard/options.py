"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value and nothing else.")]
NewName = Annotated[str | None, typer.Option("--name", help="New name.")]
Description = Annotated[str | None, typer.Option(help="Description.")]
Limit = Annotated[int, typer.Option("-n", min=1, help="Largest number of runs, newest first.")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="File of parameters: a mapping in JSON or YAML 1.2."),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        "-p",
        help="KEY=VALUE; a dotted key sets a field of a group: hyperparameters.epochs=5. true, "
        "false "
        "and numbers are read as JSON, [...] and {...} as lists and mappings in JSON or YAML, and "
        "all else as a string; quotes force a string. null or nothing leaves a parameter out. "
        "Hyperparameters are booleans, numbers and strings only: there all of these are strings.",
    ),
]
Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Wait until the run ends, and print its log.")
]
