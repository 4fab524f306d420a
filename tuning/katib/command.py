"""Parser of a container's command line: its script and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_SHELL = re.compile(r"(?:ba|da|a|z|k)?sh")
_SHELL_SCRIPT = re.compile(r"-[a-zA-Z]*c")
_PYTHON = re.compile(r"python[\d.]*|env|(?:ba|da|a|z|k)?sh|torchrun")
_SCRIPTS = (".py", ".sh")
_TORCHRUN = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})
_PROCESSES = re.compile(r"--nproc[-_]per[-_]node(?:=(\d+))?")
_NEGATIVE = re.compile(r"-[.\d]")
_OPERATOR = re.compile(r"[;&|()<>]+")


@dataclass
class ScriptCommand:
    """Parsed command line.

    Attributes:
        script: The path of the script that it starts; "" if none is seen.
        module: The module that Python starts instead; "" if none.
        launcher: What starts it, if that is neither Python, a shell nor torchrun.
        torchrun: Whether torchrun starts it.
        processes: How many processes torchrun starts on each machine, where it says so.
        options: The script's ``--name value`` and ``--name=value``, without the dashes.
        rest: Its other arguments.
        others: How many other commands the shell script has.
    """

    script: str = ""
    module: str = ""
    launcher: str = ""
    torchrun: bool = False
    processes: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    others: int = 0


def parse(words: Sequence[str], mark: str) -> ScriptCommand:
    """Parse a command line.

    Args:
        words: The command and its arguments.
        mark: What the arguments of interest hold; it chooses among a shell script's commands.
    """
    words, others = _without_shell(list(words), mark)
    command = ScriptCommand(others=others)
    start = _start(words, command)
    before = words[: start + 1] if start < len(words) else []
    names = [PurePosixPath(word).name for word in before]
    command.torchrun = bool(_TORCHRUN.intersection(names))
    if command.torchrun:
        command.processes = _processes(before)
    if len(names) > 1 and not _PYTHON.fullmatch(names[0]):
        command.launcher = names[0]
    _options(words[start + 1 :], command)
    return command


def _without_shell(words: list[str], mark: str) -> tuple[list[str], int]:
    """The command that ``sh -c`` starts, and how many others; or ``words``."""
    if len(words) < 3 or not _SHELL.fullmatch(PurePosixPath(words[0]).name):
        return words, 0
    for number, word in enumerate(words[1:-1], 1):
        if _SHELL_SCRIPT.fullmatch(word):
            commands = _commands(words[number + 1])
            marked = [one for one in commands if any(mark in part for part in one)]
            scripts = [one for one in commands if _has_script(one)]
            chosen = (marked or scripts or commands or [[]])[0]
            return chosen, max(0, len(commands) - 1)
    return words, 0


def _has_script(words: list[str]) -> bool:
    return any(word.endswith(_SCRIPTS) for word in words)


def _commands(script: str) -> list[list[str]]:
    """The simple commands of a shell script; none if it cannot be read."""
    text = script.replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if _OPERATOR.fullmatch(word):
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError:
        return []
    return [one for one in commands if one]


def _start(words: list[str], command: ScriptCommand) -> int:
    """Where the script or the module stands; before the first option if there is none."""
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else ""
        if word == "-m" and following and following not in _TORCHRUN:
            command.module = following
            return number + 1
        if word.endswith(_SCRIPTS) and not word.startswith("-"):
            command.script = word
            return number
    options = (number for number, word in enumerate(words) if word.startswith("-"))
    return next(options, len(words)) - 1


def _processes(words: list[str]) -> int | None:
    for number, word in enumerate(words[:-1]):
        if match := _PROCESSES.fullmatch(word):
            text = match[1] or words[number + 1]
            return int(text) if re.fullmatch(r"[1-9]\d{0,3}", text) else None
    return None


def _options(words: list[str], command: ScriptCommand) -> None:
    left = iter(enumerate(words))
    for number, word in left:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name or name in command.options:
            command.rest.append(word)
            continue
        if not equals:
            following = words[number + 1] if number + 1 < len(words) else "-"
            if following.startswith("-") and not _NEGATIVE.match(following):
                command.rest.append(word)
                continue
            value = following
            next(left)
        command.options[name] = value.strip("\"'")
