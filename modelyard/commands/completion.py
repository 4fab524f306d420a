"""``modelyard completion``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from infra.errors import BadInputError
from modelyard import completion as completions
from modelyard import output
from modelyard.options import Json

app = typer.Typer(add_completion=False)


class Shell(StrEnum):
    """A shell that completes command lines."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def completion(
    shell: Annotated[
        Shell | None,
        typer.Argument(help="Shell; with --install, the one that runs the command if left out."),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the script in the shell's configuration.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a shell's completion script, for: source <(modelyard completion bash)."""
    if install:
        name, file = completions.install(shell and shell.value)
        output.thing({"shell": name, "file": str(file)}, as_json_=json)
        return
    if shell is None:
        raise BadInputError(
            "The shell is missing.", f"Give one of {', '.join(Shell)}.", code="ShellMissing"
        )
    script = completions.script(shell.value)
    if json:
        output.as_json({"shell": shell.value, "script": script})
    else:
        output.line(script)
