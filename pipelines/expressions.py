"""Expressions in CEL, the Common Expression Language, within bounds and with KFP's strictness.

The evaluator is the package ``cel``. Two things are added to it. Expressions are bounded before
they reach it, because its parser is recursive and would take the whole process down. And ``==``
and ``!=`` between values of different kinds are errors, as they are in KFP's backend, where CEL
itself would quietly say false: each becomes a call of a function of ours, so that ``&&`` and
``||`` still pass over an error that does not matter.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import cel

from pipelines import values

MOST_CHARACTERS = 20_000

# Measured: a thread with a stack of 512 KiB survives 67 levels, and 768 operations in a chain.
MOST_LEVELS = 24
MOST_CHAINED = 200

_EQUAL = "modelyard_equal"
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_FUNCTIONS = _MACROS | frozenset(
    {
        "bytes", "contains", "double", "duration", "dyn", "endsWith", "has", "int", "matches",
        "parseJson", "size", "startsWith", "string", "timestamp", "type", "uint",
        "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours",
        "getMilliseconds", "getMinutes", "getMonth", "getSeconds",
    }
)  # fmt: skip

_LONG, _SHORT = ("'''", '"""'), ("'", '"')
_RAW = [rf"{mark}.*?{mark}" for mark in _LONG] + [
    rf"{mark}[^{mark}\n\r]*{mark}" for mark in _SHORT
]
_PLAIN = [
    *(rf"{mark}(?:[^\\]|\\.)*?{mark}" for mark in _LONG),
    *(rf"{mark}(?:[^{mark}\\\n\r]|\\.)*{mark}" for mark in _SHORT),
]
_TOKEN = re.compile(
    "|".join(
        [
            r"(?P<space>(?:\s|//[^\n]*)+)",
            rf"(?P<text>[bB]?[rR](?:{'|'.join(_RAW)})|[bB]?(?:{'|'.join(_PLAIN)}))",
            r"(?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?)[uU]?)",
            r"(?P<name>[A-Za-z_][A-Za-z_0-9]*)",
            r"(?P<operator>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:,.()\[\]{}])",
        ]
    ),
    re.DOTALL,
)
_QUOTED = re.compile(r"""'[^'\\]+'|"[^"\\]+\"""")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SEPARATORS = frozenset({"&&", "||", "?", ":", ","})
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})

# The evaluator logs each error of a function of ours, which is then raised anyway.
logging.getLogger("cel").addFilter(
    lambda record: not record.getMessage().startswith("Python function '")
)


class ExpressionInvalidError(Exception):
    """An expression cannot be parsed, or exceeds the bounds; the message says why."""


class ExpressionUndecidedError(Exception):
    """An expression has no value; the message says why."""


@dataclass(frozen=True)
class Token:
    """A token of an expression.

    Attributes:
        kind: ``text``, ``number``, ``name`` or ``operator``.
        text: As it was written; a text with its quotes, so that it is like nothing else.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Attributes:
        text: It, as it was written.
        names: The variables that it may use.
        tokens: Its words.
        program: What the evaluator made of it.
        has_macro: Whether it has a macro, which evaluates its body for each item of a list.
    """

    text: str
    names: frozenset[str]
    tokens: tuple[Token, ...]
    program: cel.Program
    has_macro: bool

    def value(self, variables: Mapping[str, Any]) -> Any:
        """Evaluate the expression.

        Raises:
            UndecidedError: If it has none.
        """
        context = cel.Context(dict(variables), {_EQUAL: _equal, "parseJson": _parse_json})
        try:
            return self.program.execute(context)
        except Exception as error:  # noqa: BLE001 - the evaluator raises whatever fits
            raise ExpressionUndecidedError(_message_of(error)) from None


@functools.lru_cache(maxsize=1024)
def parse(text: str, names: frozenset[str]) -> Expression:
    """Parse an expression.

    Args:
        text: It, as it was written.
        names: The variables that it may use.

    Raises:
        MistakeError: If it cannot be parsed, asks for too much, or uses what is not known.
    """
    tokens = _tokens(text)
    _check_levels(tokens)
    macros = _count_macros(tokens)
    if macros > 1:
        raise ExpressionInvalidError(
            "it has more than one of all, exists, exists_one, map and filter"
        )
    strict = _strict(tokens)
    _check_levels(_tokens(strict, MOST_CHARACTERS * 4))
    try:
        plain = cel.compile(text)
        program = cel.compile(strict)
    except Exception as error:  # noqa: BLE001 - whatever the parser raises, it did not parse
        raise ExpressionInvalidError(_message_of(error)) from None
    used = plain.references()
    functions = {name for name in used["functions"] if re.fullmatch(r"\w+", name)}
    functions = {name for name in functions if not name.startswith("_")}
    if unknown := functions - _FUNCTIONS:
        raise ExpressionInvalidError(f"the function {min(unknown)} is not known")
    bound = _bound(tokens)
    if unknown := set(used["variables"]) - names - bound - _FUNCTIONS:
        raise ExpressionInvalidError(f"the name {min(unknown)} is not known")
    return Expression(text, names, tuple(tokens), program, has_macro=macros > 0)


def indexed(tokens: Sequence[Token], path: tuple[str, ...]) -> Iterator[str]:
    """List the keys that index a name, such as NAME in ``inputs.parameters['NAME']``."""
    start = [word for name in path for word in (name, ".")][:-1]
    length = len(start)
    for place in range(len(tokens) - length - 2):
        here = [token.text for token in tokens[place : place + length]]
        opening, index = tokens[place + length], tokens[place + length + 1]
        if here == start and opening.text == "[" and _QUOTED.fullmatch(index.text):
            yield index.text[1:-1]


def _tokens(text: str, most: int = MOST_CHARACTERS) -> list[Token]:
    if len(text) > most:
        raise ExpressionInvalidError(f"it is longer than {most} characters")
    found = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ExpressionInvalidError(f"it cannot be read from character {place + 1} on")
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match[0]))
        place = match.end()
    if not found:
        raise ExpressionInvalidError("it is empty")
    return found


def _count_macros(tokens: Sequence[Token]) -> int:
    return sum(
        1
        for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if before.text == "." and token.text in _MACROS and after.text == "("
    )


def _check_levels(tokens: Sequence[Token]) -> None:
    """Bound the evaluator's recursion: by brackets, and by operations in a chain."""
    levels = [_Level("")]
    for token in tokens:
        if token.text in _CLOSING:
            levels.append(_Level(_CLOSING[token.text]))
            if len(levels) > MOST_LEVELS:
                raise ExpressionInvalidError(f"it nests deeper than {MOST_LEVELS} levels")
        elif token.text in _CLOSING.values():
            if levels[-1].closing != token.text:
                raise ExpressionInvalidError(f"{token.text} closes nothing")
            levels[-2].chained += max(levels[-1].longest, levels.pop().chained) + 1
        elif token.text in {",", "&&", "||"}:
            levels[-1].longest = max(levels[-1].longest, levels[-1].chained)
            levels[-1].chained = 0
        elif token.kind == "operator" or token.text == "in":
            levels[-1].chained += 1
        if levels[-1].chained > MOST_CHAINED:
            raise ExpressionInvalidError(f"it chains more than {MOST_CHAINED} operations")
    if len(levels) > 1:
        raise ExpressionInvalidError(f"{levels[-1].closing} is missing")


@dataclass
class _Level:
    """What stands between two brackets: what closes it, and how many operations hang together."""

    closing: str
    chained: int = 0
    longest: int = 0


def _bound(tokens: Sequence[Token]) -> set[str]:
    """The names that macros bind: ``x`` in ``list.all(x, x > 0)``."""
    return {
        tokens[place + 3].text
        for place in range(len(tokens) - 4)
        if tokens[place].text == "."
        and tokens[place + 1].text in _MACROS
        and tokens[place + 2].text == "("
        and tokens[place + 3].kind == "name"
        and tokens[place + 4].text == ","
    }


def _strict(tokens: Sequence[Token]) -> str:
    """The expression with each ``==`` and ``!=`` as a call of ours."""
    words = iter(tokens)
    return _sequence(words, None)


def _sequence(words: Iterator[Token], closing: str | None) -> str:
    """What stands up to a closing bracket, relation by relation."""
    done: list[str] = []  # up to the last separator
    left: str | None = None  # the relations since then, which bind from the left
    relation = ""
    operand: list[str] = []

    def related() -> str:
        right = " ".join(operand)
        if left is None:
            return right
        if relation in {"==", "!="}:
            call = f"{_EQUAL}({left}, {right})"
            return call if relation == "==" else f"!{call}"
        return f"{left} {relation} {right}"

    for word in words:
        if word.text == closing:
            return " ".join([*done, related(), word.text])
        if word.text in _CLOSING:
            operand.append(word.text + _sequence(words, _CLOSING[word.text]))
        elif word.text in _SEPARATORS:
            done += [related(), word.text]
            left, operand = None, []
        elif word.text in _RELATIONS:
            left, relation, operand = related(), word.text, []
        else:
            operand.append(word.text)
    return " ".join([*done, related()])


def _equal(one: Any, other: Any) -> bool:
    kinds = {_kind(one), _kind(other)}
    if len(kinds) > 1 and "null" not in kinds:
        raise TypeError(f"{_kind(one)} is compared with {_kind(other)}")
    return _same(one, other)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal; within lists and maps true is not 1 either."""
    if _kind(one) != _kind(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a truth value"),
    ((int, float), "a number"),
    (str, "a string"),
    (bytes, "bytes"),
    ((list, tuple), "a list"),
    (dict, "a map"),
    (datetime, "a time"),
    (timedelta, "a duration"),
)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "something else")


def _parse_json(text: str) -> Any:
    if not isinstance(text, str):
        raise TypeError(f"parseJson is given {_kind(text)}")
    return doubled(values.from_json(text))


def doubled(value: Any) -> Any:
    """A value with its numbers as doubles, as they are in protobuf's ``Value``."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return {key: doubled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [doubled(item) for item in value]
    return value


_SAID: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"Python function call failed: \w+: ([^.]*)", lambda match: match[1]),
    (r"ERROR: <input>:(\d+):(\d+): (.*)",
     lambda match: f"line {match[1]}, character {match[2]}: {match[3]}"),
    (r"No such overload", lambda _: "values of different kinds are compared or computed"),
)  # fmt: skip


def _message_of(error: Exception) -> str:
    """The evaluator's message, without its advice and its copy of the expression."""
    if isinstance(error, KeyError):
        return f"there is no {str(error.args[0])[:200]!r}"
    said = str(error)
    for pattern, told in _SAID:
        if match := re.search(pattern, said):
            return told(match)[:200]
    return said.splitlines()[0].split(". ")[0][:200] if said else type(error).__name__
