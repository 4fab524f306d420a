"""Messages of the source as templates: ``f"{len(found)} runs"`` is ``N runs``."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

# What a placeholder is called where its expression has no good name.
_NAMES = {
    "strerror": "REASON", "error": "REASON", "said": "REASON", "why": "REASON", "text": "VALUE",
    "key": "NAME", "one": "NAME", "self": "NAME", "tail": "LINES", "number": "NUMBER",
}  # fmt: skip
_SHOWN_AS_IS = (str, int, float)
_PURE_CALLS = {"join", "sorted", "names", "list", "tuple", "map", "repr"}
_MOST_VARIANTS = 6
_SECOND_SENTENCE = re.compile(r"(?<=[.:])(?:[A-Z]{3,}| \.)$")  # one that a function adds


@dataclass(frozen=True)
class Scope:
    """Where an expression stands.

    Attributes:
        module: The dotted name of its module.
        function: The function around it, if any.
        given: What the function's parameters are, by their names: expressions of a caller.
    """

    module: str
    function: ast.AST | None = None
    given: Mapping[str, tuple[ast.expr, Scope]] = field(default_factory=dict)

    @property
    def globals(self) -> dict[str, Any]:
        """The module's own names."""
        return vars(importlib.import_module(self.module))

    def assigned(self, name: str) -> list[ast.expr]:
        """What the function assigns to a local name."""
        if self.function is None:
            return []
        found = []
        for node in ast.walk(self.function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    found += [value for one, value in _pairs(target, node.value) if one == name]
            elif isinstance(node, ast.NamedExpr) and node.target.id == name:
                found.append(node.value)
        return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of an assignment, also of ``a, b = 1, 2``."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, part in zip(target.elts, value.elts, strict=False):
            yield from _pairs(one, part)


def variants(*expressions: tuple[ast.expr | None, Scope]) -> list[tuple[str, ...]]:
    """Write expressions that belong together, once for each way that their conditions can go.

    Returns:
        The different results, each with a template for every expression.
    """
    tests: dict[str, None] = {}
    for expression, scope in expressions:
        if expression is not None:
            _Writer({}, tests).write(expression, scope)
    ways = islice(product((True, False), repeat=len(tests)), 2**4)
    found = {}
    for way in ways:
        writer = _Writer(dict(zip(tests, way, strict=True)), {})
        texts = tuple(
            "" if one is None else _cleaned(writer.write(one, scope)) for one, scope in expressions
        )
        found[texts] = None
    return list(found)[:_MOST_VARIANTS]


def _cleaned(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return _SECOND_SENTENCE.sub("", text).replace("....", "...")


class _Writer:
    """Writer of one way that conditions can go."""

    def __init__(self, chosen: Mapping[str, bool], tests: dict[str, None]) -> None:
        self._chosen = chosen
        self._tests = tests

    def write(self, node: ast.expr, scope: Scope) -> str:
        """Write an expression that is text."""
        match node:
            case ast.Constant(value=value):
                return str(value)
            case ast.JoinedStr(values=parts):
                return "".join(self.write(part, scope) for part in parts)
            case ast.FormattedValue(value=value, conversion=conversion):
                written = self.write(value, scope)
                return f"'{written}'" if conversion == ord("r") else written
            case ast.IfExp():
                return self._conditional(node, scope)
            case ast.BinOp(left=left, op=ast.Add(), right=right) if _is_text(left) or _is_text(
                right
            ):
                return self.write(left, scope) + self.write(right, scope)
            case ast.BoolOp(op=ast.Or(), values=[first, *_, last]):
                is_code = isinstance(last, ast.Constant) and str(last.value)[:1].isupper()
                return self.write(last if is_code else first, scope)
            case ast.BinOp(left=ast.Constant(value=str(word)), op=ast.Mult()):
                return f"({word})"
            case ast.BinOp(left=ast.JoinedStr() as left, op=ast.Mult()):
                return self.write(left, scope)
            case ast.Name(id=name):
                return self._named(name, node, scope)
            case ast.Call():
                return self._called(node, scope)
        return self._value(node, scope)

    def _conditional(self, node: ast.IfExp, scope: Scope) -> str:
        first, second = self.write(node.body, scope), self.write(node.orelse, scope)
        if not second and len(first) <= 2:
            return f"({first})" if first else ""
        if first == second.rstrip("….") or second == first.rstrip("…."):  # one is cut off
            return min(first, second)
        test = ast.unparse(node.test)
        self._tests[test] = None
        return first if self._chosen.get(test, True) else second

    def _named(self, name: str, node: ast.expr, scope: Scope) -> str:
        if name in scope.given:
            return self.write(*scope.given[name])
        assigned = scope.assigned(name)
        texts = [one for one in assigned if _is_text(one)]
        if len(texts) > 1:  # as if by a condition
            tests = [f"{name} #{number}" for number in range(len(texts) - 1)]
            self._tests.update(dict.fromkeys(tests))
            ways = [
                one
                for one, test in zip(texts, tests, strict=False)
                if self._chosen.get(test, True)
            ]
            return self.write((ways or texts[-1:])[0], scope)
        if texts:
            return self.write(texts[0], scope)
        if len(assigned) == 1 and not isinstance(assigned[0], ast.Name | ast.Await):
            return _placeholder(node)
        return self._value(node, scope)

    def _called(self, node: ast.Call, scope: Scope) -> str:
        name = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else getattr(node.func, "id", "")
        )
        if name == "suggest_names":
            none = node.args[2] if len(node.args) > 2 else None
            hint = self.write(none, scope) if none else ""
            return f"Similar names are listed. {hint}".strip()
        if name in {"did_you_mean", "_meant"}:
            return "Did you mean NAME?"
        if name == "describe_invalid":
            return "Invalid parameter `PARAMETER`: expected TYPE, got VALUE"
        if name == "len":
            return "N"
        if name in {"format", "lstrip"} and isinstance(node.func, ast.Attribute):
            return self.write(node.func.value, scope)
        if name == "join" and isinstance(node.func, ast.Attribute):
            value = self._evaluated(node, scope)
            return value if value is not None else f"{_placeholder(node.args[0])}, ..."
        return self._value(node, scope)

    def _value(self, node: ast.expr, scope: Scope) -> str:
        value = self._evaluated(node, scope)
        return _placeholder(node) if value is None else value

    def _evaluated(self, node: ast.expr, scope: Scope) -> str | None:
        """What a constant of a module is, as text; None for all else."""
        local = {*scope.given, *_parameters(scope.function)}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call) and _called_name(inner) not in _PURE_CALLS:
                return None
            if isinstance(inner, ast.Name) and (inner.id in local or scope.assigned(inner.id)):
                return None
        try:
            value = eval(ast.unparse(node), scope.globals)
        except Exception:  # noqa: BLE001 (of whatever a module's constants are)
            return None
        if isinstance(value, bool) or not isinstance(value, _SHOWN_AS_IS):
            return None
        return f"{value:g}" if isinstance(value, float) else str(value)


def _parameters(function: ast.AST | None) -> set[str]:
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return {one.arg for one in every}


def _called_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr() | ast.IfExp() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left, right=right):
            return _is_text(left) or _is_text(right)
        case ast.BoolOp(values=[*_, last]):
            return _is_text(last)
    return False


def _word(name: str) -> str:
    return _NAMES.get(name, name.strip("_").upper().replace("_", " "))


def _placeholder(node: ast.AST) -> str:
    """Name what an expression stands for, in capitals."""
    match node:
        case ast.Name(id=name):
            return _word(name)
        case ast.Attribute(attr="__name__"):
            return "ERROR"
        case ast.Attribute(attr=attr):
            return _word(attr)
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            return key.upper()
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.Await(value=value):
            return _placeholder(value)
        case ast.BinOp(left=ast.Constant(), right=right):
            return _placeholder(right)
        case ast.BinOp(left=left) | ast.BoolOp(values=[left, *_]):
            return _placeholder(left)
        case ast.GeneratorExp(elt=elt) | ast.ListComp(elt=elt):
            return _placeholder(elt)
        case ast.FormattedValue(value=value):
            return _placeholder(value)
        case ast.JoinedStr(values=parts):
            named = [one for one in parts if isinstance(one, ast.FormattedValue)]
            return _placeholder(named[0]) if named else "VALUE"
        case ast.Call(func=ast.Name(id="len")):
            return "N"
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(key)), *_]):
            return key.upper()
        case ast.Call(
            func=ast.Attribute(
                value=value,
                attr="strip"
                | "rstrip"
                | "replace"
                | "split"
                | "rpartition"
                | "partition"
                | "relative_to"
                | "upper",
            )
        ):
            return _placeholder(value)
        case ast.Call(args=[first, *_]):
            return _placeholder(first)
        case ast.Call(func=func):
            return _placeholder(func)
        case ast.Constant(value=value):
            return str(value)
    return "VALUE"
