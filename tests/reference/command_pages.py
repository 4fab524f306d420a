"""The page of the command: every verb with its arguments and options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.core

from modelyard import main
from tests.reference import markdown

# Options that are described once at the top of the page.
_COMMON = {"--json", "--file", "--parameter"}
_INTRODUCTION = """\
# Commands

`modelyard --help` lists the commands, and `--help` after any of them describes it. What is in
brackets is optional, `...` may be repeated. [Exit statuses and errors](errors.md) are the same for
all commands; [parameters of the flows](parameters.md) have a page of their own.

`modelyard --version` prints the version, `modelyard --install-completion` is
[`completion --install`](#modelyard-completion). A command finds the stack in the home that
`MODELYARD_HOME` names; see [Settings](settings.md).

## Options of several commands
"""


def write() -> str:
    """Write the page."""
    lines = [_INTRODUCTION, *markdown.table(("Option", "Meaning"), _common())]
    for verb in main.cli.list_commands(None):
        command = main.cli.get_command(None, verb)
        if isinstance(command, typer.core.TyperGroup):
            lines += [f"## modelyard {verb}", "", markdown.text(_sentence(verb, command)), ""]
            for name, inner in command.commands.items():
                lines += _command(f"modelyard {verb} {name}", inner, "###")
        else:
            lines += _command(f"modelyard {verb}", command, "##")
    return "\n".join(lines)


def _sentence(verb: str, command: Any) -> str:
    """What a group of verbs is for, without the list of verbs, which follows anyway."""
    return command.help or f"{main._VERBS[verb][1].partition(':')[0].rstrip('.')}."


def _common() -> Iterator[tuple[str, str]]:
    for option in main.cli.get_command(None, "run").params:
        if _COMMON & {*option.opts}:
            value = "" if option.is_flag else f" {_COMMON_VALUES[min(option.opts, key=len)]}"
            names = ", ".join(markdown.code(f"{name}{value}") for name in option.opts)
            yield names, markdown.text(option.help)


def _command(path: str, command: Any, level: str) -> Iterator[str]:
    params = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in params if isinstance(one, typer.core.TyperArgument)]
    own = [one for one in params if one not in arguments and not _COMMON & {*one.opts}]
    usage = [path, *map(_argument, arguments), *(_required(one) for one in own if one.required)]
    shared = [one for one in params if _COMMON & {*one.opts}]
    optional = ["[OPTIONS]"] if any(not one.required for one in own) else []
    yield f"{level} {path}"
    yield ""
    yield from ("```", " ".join([*usage, *optional, *map(_short, shared)]), "```", "")
    summary, *paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    for paragraph in (summary, *paragraphs):
        yield from (markdown.text(paragraph), "")
    rows = [*map(_argument_row, arguments), *map(_option_row, own)]
    if rows:
        yield from markdown.table(("Argument or option", "Default", "Meaning"), rows)


def _argument(argument: Any) -> str:
    many = argument.nargs == -1
    name = (argument.metavar or argument.name.upper()).removesuffix("...") + "..." * many
    return name if argument.required else f"[{name}]"


def _required(option: Any) -> str:
    return f"{option.opts[0]} {_value(option)}".strip()


def _short(option: Any) -> str:
    """A common option in the usage, by its shortest name."""
    name = min(option.opts, key=len)
    many = "..." if option.multiple else ""
    return f"[{name}{'' if option.is_flag else ' ' + _COMMON_VALUES[name]}]{many}"


_COMMON_VALUES = {"-f": "FILE", "-p": "KEY=VALUE"}


def _value(option: Any) -> str:
    """What follows an option."""
    if option.is_flag:
        return ""
    kind = option.type_descriptor
    if kind.is_choice:
        return "|".join(map(str, kind.choices))
    return str(option.metavar or _TYPES.get(str(option.bare_type), option.name.upper()))


_TYPES = {"<class 'int'>": "N", "<class 'float'>": "N", "<class 'pathlib.Path'>": "FILE"}


def _argument_row(argument: Any) -> tuple[str, str, str]:
    choices = argument.type_descriptor
    words = f" One of {', '.join(map(str, choices.choices))}." if choices.is_choice else ""
    name = (argument.metavar or argument.name.upper()).removesuffix("...")
    return markdown.code(name), _default(argument), markdown.text(argument.help + words)


def _option_row(option: Any) -> tuple[str, str, str]:
    names = [*option.opts, *option.secondary_opts]
    shown = ", ".join(markdown.code(f"{name} {_value(option)}".strip()) for name in names)
    bounds = [
        f"{word} {bound}" for word, bound in (("from", option.min), ("to", option.max))
        if bound is not None
    ]  # fmt: skip
    words = f"{option.help} Repeatable." if option.multiple else option.help
    limits = f" {' '.join(bounds).capitalize()}." if bounds else ""
    return shown, _default(option), markdown.text(words + limits)


def _default(param: Any) -> str:
    if param.required:
        return "required"
    value = param.default
    if value in (None, "", False, (), []) or callable(value):
        return ""
    return "on" if value is True else markdown.code(getattr(value, "value", value))
