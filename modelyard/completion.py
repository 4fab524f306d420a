"""Completion of command lines in a shell.

Importing the verbs takes seconds, so verbs, options and their help are read from a file, which a
test compares with the verbs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer.completion

from tasks import flow_requests

_shells: Any = typer.completion  # exports nothing by name
VARIABLE = "_MODELYARD_COMPLETE"
TREE = Path(__file__).with_name("command_tree.json")
# Verbs whose first argument is a flow.
_OF_FLOWS = {"run", "call"}


def complete(instruction: str) -> int:
    """Print the completions of the command line in the environment, as the shell's script asks.

    Args:
        instruction: The value of ``VARIABLE``, such as ``complete_bash``.

    Returns:
        The exit status.
    """
    _shells.completion_init()
    action, _, shell = instruction.partition("_")
    kind = _shells.shell_completion.get_completion_class(shell)
    if action != "complete" or kind is None:
        return 1
    asked: Any = kind(None, {}, "modelyard", VARIABLE)
    asked.get_completions = find
    print(asked.complete())
    return 0


def find(arguments: Sequence[str], incomplete: str) -> list[Any]:
    """Return the completions of a word, after the complete words before it, as typer's items."""
    node: dict[str, Any] = json.loads(TREE.read_text())
    verb, given = "", 0
    expects: Sequence[str] | None = None  # the values of an option that has none yet
    for word in arguments:
        if expects is not None:
            expects = None
        elif word in node.get("options", {}):
            option = node["options"][word]
            expects = option.get("values", ()) if option["has_value"] else None
        elif word in node.get("commands", {}):
            node = node["commands"][word]
            verb = verb or word
        elif not word.startswith("-"):
            given += 1
    if expects is not None:
        known = dict.fromkeys(expects, "")
    elif incomplete.startswith("-"):
        known = {name: option["help"] for name, option in node.get("options", {}).items()}
    elif "commands" in node:
        known = {name: command["help"] for name, command in node["commands"].items()}
    elif given:
        known = {}
    elif verb in _OF_FLOWS:
        known = dict.fromkeys(flow_requests.names(), "")
    else:
        known = dict.fromkeys(node.get("values", ()), "")
    item = _shells.shell_completion.CompletionItem
    return [
        item(name, help=text or None)
        for name, text in known.items()
        if name.startswith(incomplete)
    ]


def script(shell: str) -> str:
    """Return the script that completes ``modelyard`` in a shell."""
    found: str = _shells.get_completion_script(
        prog_name="modelyard", complete_var=VARIABLE, shell=shell
    )
    return found


def install(shell: str | None) -> tuple[str, Path]:
    """Install the script for a shell, by default the one that runs this process.

    Returns:
        The shell, and the file.
    """
    found: tuple[str, Path] = _shells.install(
        shell=shell, prog_name="modelyard", complete_var=VARIABLE
    )
    return found


def instruction() -> str:
    """Return what a shell's script asks; "" for an ordinary command line."""
    return os.environ.get(VARIABLE, "")
