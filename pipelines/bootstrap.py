"""Parser of the bootstrap script that the KFP compiler writes around a Python component.

A lightweight component's command begins with a shell script that has pip install the packages
that the component names, and KFP itself, into whatever ``python3`` there is. Where a component
runs as a process that would be somebody's own interpreter, and pip would start for every task.
So the script is read instead: what it installs becomes an environment that is made once.

Only what is certainly such a script is read as one. Anything else runs as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from infra.workloads.environment_spec import PipInstall

EXECUTOR = "kfp.dsl.executor_main"
_LOCATION = "--component_module_path"

_ENSURE_PIP = re.compile(r'\A\s*if ! \[ -x "\$\(command -v pip\)" \]; then\n[^;&]*?\nfi\n')
_OWN_VENV = re.compile(
    r'\n\s*export PIP_DISABLE_PIP_VERSION_CHECK=1\s*\n\s*tmp=\$\(mktemp -d\)\s*\n'
    r'\s*python3 -m venv "\$tmp/venv" --system-site-packages\s*\n'
    r'\s*\. "\$tmp/venv/bin/activate"\s*\n'
)  # fmt: skip
_ASSIGNMENT = re.compile(r"PIP_[A-Z_]+=\S*")
_QUIET = {"--quiet", "-q", "--no-warn-script-location", "--disable-pip-version-check"}
_FLAGS = {"--no-deps", "--upgrade", "-U", "--pre"}
_WITH_VALUE = {f"--{name}" for name in ("index-url", "extra-index-url", "trusted-host")} | {"-i"}
_HANDS_ON = ["$0", "$@"]

# What a lightweight component's second script says, but for its white space.
_EPHEMERAL = (
    'program_path=$(mktemp -d) printf "%s" "$0" > "$program_path/ephemeral_component.py" '
    "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "
    '"$program_path/ephemeral_component.py" "$@"'
)


@dataclass(frozen=True)
class ComponentCommand:
    """Parsed command line of a component.

    Attributes:
        installs: What it has pip install first, in order.
        words: The command line that remains.
        source: The component's Python code, if it is a lightweight one; else None.
        arguments: What its executor is given, if it is a lightweight one.
    """

    installs: tuple[PipInstall, ...]
    words: tuple[str, ...]
    source: str | None = None
    arguments: tuple[str, ...] = ()


def component(words: Sequence[str]) -> ComponentCommand:
    """Parse a command line; one that the compiler did not write stays whole."""
    installs: tuple[PipInstall, ...] = ()
    rest = tuple(words)
    if len(rest) > 3 and rest[:2] == ("sh", "-c"):
        found = _installs(rest[2])
        if found is not None:
            installs, rest = found, rest[3:]
    if len(rest) > 3 and rest[:2] == ("sh", "-ec") and " ".join(rest[2].split()) == _EPHEMERAL:
        return ComponentCommand(installs, rest, rest[3], rest[4:])
    return ComponentCommand(installs, rest)


def append_code(command: Sequence[str], arguments: Sequence[str], code: str) -> tuple[str, ...]:
    """Append code to the source of a lightweight component; other commands stay as they are.

    Args:
        command: The container's command.
        arguments: Its arguments.
        code: What runs before the component does.
    """
    words = [*command, *arguments]
    found = component(words)
    at = len(words) - len(found.words) + 3
    if found.source is None or at >= len(command):
        return tuple(command)
    return (*command[:at], f"{found.source}\n\n{code}", *command[at + 1 :])


def is_in_image(words: Sequence[str]) -> bool:
    """Whether it is a Python component whose code exists only in its image."""
    return EXECUTOR in words and _LOCATION not in words


def _installs(script: str) -> tuple[PipInstall, ...] | None:
    """Parse what a script installs with pip; None if it does anything else."""
    script = _OWN_VENV.sub(" ", _ENSURE_PIP.sub("\n", script, count=1), count=1)
    if "\n" in script.strip() or "$(" in script or "`" in script:
        return None
    try:
        lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        tokens = list(lexer)
    except ValueError:
        return None
    commands: list[list[str]] = [[]]
    for token in tokens:
        if token == "&&":  # noqa: S105 (an operator of the shell)
            commands.append([])
        elif token and set(token) <= set("();<>|&"):
            return None
        else:
            commands[-1].append(token)
    if len(commands) < 2 or commands.pop() != _HANDS_ON:
        return None
    found = [_install(command) for command in commands]
    return None if None in found else tuple(one for one in found if one is not None)


def _install(words: list[str]) -> PipInstall | None:
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if words[:4] != ["python3", "-m", "pip", "install"]:
        return None
    requirements: list[str] = []
    options: list[str] = []
    rest = iter(words[4:])
    for word in rest:
        if word in _WITH_VALUE:
            options += [word, next(rest, "")]
        elif word in _FLAGS:
            options.append(word)
        elif word.startswith("-") or "$" in word:
            if word not in _QUIET:
                return None
        else:
            requirements.append(word)
    return PipInstall(tuple(requirements), tuple(options)) if requirements else None
