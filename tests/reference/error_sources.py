"""The errors of the source: every code with the messages and hints that are raised with it."""

from __future__ import annotations

import ast
import importlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import modelyard
from infra import errors
from infra.errors import ModelyardError
from tests.reference.message_templates import Scope, variants

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "modelyard", "flows", "tasks", "schedules", "pipelines", "tuning", "registry", "serving",
    "infra",
)  # fmt: skip

# Expressions that pass on the code of another error, which is found where that is raised.
_PASSED_ON = {"code", "error_code", "category", "missing", "get"}
_PARAMETER = "code"
_DEEPEST = 3  # callers of callers


@dataclass(frozen=True)
class RaisedError:
    """A way that an error is raised.

    Attributes:
        code: Its code.
        family: The name of its class.
        message: The template of its message.
        hint: The template of its hint.
        module: Where, as a path.
    """

    code: str
    family: str
    message: str
    hint: str
    module: str


@dataclass(frozen=True)
class _Site:
    """A call that makes an error, or passes what one is made of."""

    call: ast.Call
    scope: Scope
    owner: str
    path: str


def find_all() -> list[RaisedError]:
    """Find every way that an error is raised, in the order of the source.

    Raises:
        LookupError: If a code is written in a way that is not understood.
    """
    found: dict[RaisedError, None] = {}
    for site in _sites():
        name = _name(site.call.func)
        if _is_error(site, name):
            found |= dict.fromkeys(_raised(site))
    for path, tree in _trees().items():
        found |= dict.fromkeys(_in_tables(path, tree))
    return list(found)


@cache
def _trees() -> dict[str, ast.Module]:
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split() if name.endswith(".py")]
    skipped = ("tasks/algorithms/", "registry/migrations/", "serving/runtime/modelyard_runtime/")
    return {
        name: ast.parse((ROOT / name).read_text())
        for name in names
        if not name.startswith(skipped)
    }


@cache
def _sites() -> list[_Site]:
    return [site for path, tree in _trees().items() for site in _calls(path, tree)]


@cache
def _sites_by_name() -> dict[str, list[_Site]]:
    found: dict[str, list[_Site]] = {}
    for site in _sites():
        found.setdefault(_name(site.call.func), []).append(site)
    return found


def _calls(path: str, tree: ast.Module) -> Iterator[_Site]:
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def walk(node: ast.AST, function: ast.AST | None, owner: str) -> Iterator[_Site]:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.Call):
                yield _Site(inner, Scope(module, function), owner, path)
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(inner, inner, owner)
            elif isinstance(inner, ast.ClassDef):
                yield from walk(inner, None, inner.name)
            else:
                yield from walk(inner, function, owner)

    yield from walk(tree, None, "")


@cache
def _families() -> dict[str, type[ModelyardError]]:
    """The classes of errors by name."""
    for path in _trees():
        if "Error" in (ROOT / path).read_text():
            importlib.import_module(
                path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )
    found: dict[str, type[ModelyardError]] = {}
    waiting: list[type[ModelyardError]] = [ModelyardError]
    while waiting:
        one = waiting.pop()
        found[one.__name__] = one
        waiting += [each for each in one.__subclasses__() if each.__module__.startswith(PACKAGES)]
    return found


def public_families() -> dict[str, type[ModelyardError]]:
    """The classes of errors that Modelyard exports, by name."""
    return {name: one for name, one in _families().items() if name in modelyard.__all__}


def family(name: str) -> type[ModelyardError]:
    """Return a class of errors by its name."""
    return _families().get(name, errors.ModelyardError)


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")


def _is_error(site: _Site, name: str) -> bool:
    """Whether a call makes an error: of a class of errors, or of one that a variable holds."""
    if name in _families():
        return True
    keywords = {one.arg for one in site.call.keywords}
    return "code" in keywords and name in {"kind", "family"}


def _raised(site: _Site) -> Iterator[RaisedError]:
    """The ways that one call makes an error."""
    name = _name(site.call.func)
    for call, scope in _constructed(site, name):
        given = {one.arg: one.value for one in call.keywords}
        message = call.args[0] if call.args else given.get("message")
        hint = call.args[1] if len(call.args) > 1 else given.get("hint")
        code = given.get(_PARAMETER)
        if code is not None and _passes_on(code, scope):
            continue
        used = [one for one in (message, hint, code) if one is not None]
        for called in _expanded(scope, used):
            for texts in variants((code, called), (message, called), (hint, called)):
                word = family(name).code if texts[0] in {"", "None"} else texts[0]
                if not word.isidentifier() or word.isupper():
                    raise LookupError(f"{site.path}:{site.call.lineno}: no code in {texts}")
                yield RaisedError(word, family(name).__name__, *texts[1:], site.path)


def _constructed(site: _Site, name: str) -> Iterator[tuple[ast.Call, Scope]]:
    """The call with an error's message: in a class that builds its own, that of the base class."""
    owner = _families().get(name)
    if owner is None or "__init__" not in vars(owner):
        yield site.call, site.scope
        return
    inner = [
        one for one in _sites() if one.owner == name and _name(one.call.func) == "__init__"
        and owner.__module__ == one.scope.module
    ]  # fmt: skip
    function = inner[0].scope.function if inner else None
    if not isinstance(function, ast.FunctionDef) or _parameter_names(function)[0] == "message":
        yield site.call, site.scope
        return
    bound = _bind(function, site.call)
    for outer in _expanded(site.scope, list(bound.values())):
        home = Scope(inner[0].scope.module)
        yield inner[0].call, Scope(home.module, function, _placed(function, bound, outer, home))


def _passes_on(code: ast.expr, scope: Scope) -> bool:
    """Whether an expression is the code of an error that was made elsewhere."""
    if isinstance(code, ast.Attribute):
        return code.attr in _PASSED_ON
    if isinstance(code, ast.Subscript | ast.BoolOp | ast.Call):
        return True
    if not isinstance(code, ast.Name) or code.id in scope.given:
        return False
    is_own = code.id in _parameter_names(scope.function) or bool(scope.assigned(code.id))
    return not is_own and code.id not in scope.globals  # of a table, by unpacking


def _expanded(scope: Scope, used: list[ast.expr], depth: int = 0) -> list[Scope]:
    """The scope of an expression, once for each caller that gives a part of its text."""
    if scope.given or depth == _DEEPEST:
        return [scope]
    names = {one.id for each in used for one in ast.walk(each) if isinstance(one, ast.Name)}
    wanted = names & {*_parameter_names(scope.function)}
    if not wanted or not isinstance(scope.function, ast.FunctionDef):
        return [scope]
    found: list[Scope] = []
    is_text = False
    for caller in _callers(scope.function, scope.module):
        bound = _bind(scope.function, caller.call)
        if not bound.keys() >= {*_parameter_names(scope.function)}:
            continue  # of another method of this name
        parts = [bound[name] for name in sorted(wanted) if name in bound]
        is_text |= any(
            isinstance(one, ast.JoinedStr | ast.IfExp)
            or (isinstance(one, ast.Constant) and one.value not in {"", None})
            for one in parts
        )
        home = Scope(scope.module)
        found += [
            replace(scope, given=_placed(scope.function, bound, outer, home))
            for outer in _expanded(caller.scope, parts, depth + 1)
        ]
    needed = any(isinstance(one, ast.Name) and one.id == _PARAMETER for one in used)
    return found if found and (is_text or needed) else [scope]


def _callers(function: ast.FunctionDef, module: str) -> list[_Site]:
    """The calls of a function: in its module, or everywhere where it takes an error's code."""
    is_method = bool(function.args.args) and function.args.args[0].arg == "self"
    # Which class's method it is cannot be seen, but one with the keyword is meant.
    takes = (
        [one.arg for one in function.args.kwonlyargs] if is_method else _parameter_names(function)
    )
    everywhere = _PARAMETER in takes and not function.name.startswith("_")
    return [
        site for site in _sites_by_name().get(function.name, ())
        if site.scope.function is not function
        and (site.scope.module == module or everywhere)
        and (is_method or _module_of(site) == module)
    ]  # fmt: skip


def _module_of(site: _Site) -> str:
    """Where the function that is called is defined; "" if a module's names do not say."""
    return str(getattr(_called(site.call, site.scope), "__module__", ""))


def _called(call: ast.Call, scope: Scope) -> Any:
    """What is called; None if a module's names do not say."""
    first, *rest = ast.unparse(call.func).split(".")
    called = scope.globals.get(first)
    for name in rest:
        called = getattr(called, name, None)
    return called


def _parameter_names(function: ast.AST | None) -> list[str]:
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [one.arg for one in every if one.arg not in {"self", "cls"}]


def _bind(function: ast.FunctionDef, call: ast.Call) -> dict[str, ast.expr]:
    """What the parameters of a function are in a call."""
    names = _parameter_names(function)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: dict[str, ast.expr] = {
        one.arg: value
        for one, value in zip(positional[::-1], arguments.defaults[::-1], strict=False)
    }
    defaults |= {
        one.arg: value
        for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if value is not None
    }
    given = dict(zip(names, call.args, strict=False))
    if any(isinstance(one, ast.Starred) for one in call.args):  # of them no one knows more
        given = {name: given.get(name, ast.Name(name)) for name in names[: len(positional)]}
        given = {
            name: ast.Name(name) if isinstance(one, ast.Starred) else one
            for name, one in given.items()
        }
    return {**defaults, **given, **{one.arg: one.value for one in call.keywords if one.arg}}


def _placed(
    function: ast.FunctionDef, bound: Mapping[str, ast.expr], caller: Scope, home: Scope
) -> dict[str, tuple[ast.expr, Scope]]:
    """What parameters are, each where it is written: a default beside its function."""
    defaults = [*function.args.defaults, *function.args.kw_defaults]
    return {
        name: (value, home if any(value is one for one in defaults) else caller)
        for name, value in bound.items()
    }


def _in_tables(path: str, tree: ast.Module) -> Iterator[RaisedError]:
    """The errors of tables: ``(StoreError, "StoreFull", "the storage is full", "Make room.")``."""
    module = path.removesuffix(".py").replace("/", ".")
    for node in ast.walk(tree):
        match node:
            case ast.Tuple(
                elts=[ast.Name(id=name), ast.Constant(value=str(code)), what, hint]
            ) if name in _families():
                ((words, remedy),) = variants((what, Scope(module)), (hint, Scope(module)))
                yield RaisedError(code, name, f"URI: {words}.", remedy, path)
            case ast.Call(func=ast.Name(id=called)) if called in _TABLES:
                yield from _TABLES[called](path, module, node)


def _guard(_: str, module: str, node: ast.Call) -> Iterator[RaisedError]:
    """A guard of a deletion: its sentences and commands are those of the blockers."""
    code, blockers, hint = node.args
    owner = eval(ast.unparse(blockers), vars(importlib.import_module(module)))
    ((remedy,),) = variants((hint, Scope(module)))
    for call, scope in _blockers(owner):
        sentence = call.args[0]
        if len(call.args) == 1:
            continue  # how many there are, after the first of them
        command = _command(call.args[1], scope)
        for (words,) in variants((sentence, scope)):
            fix = remedy.format(command=f"modelyard {command}")
            home = f"{scope.module.replace('.', '/')}.py"
            yield RaisedError(ast.literal_eval(code), "ConflictError", words, fix, home)


def _blockers(owner: Any) -> Iterator[tuple[ast.Call, Scope]]:
    """The blockers that a function makes, or those that it calls."""
    function = _function(owner)
    scope = Scope(owner.__module__, function)
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        if _name(call.func) == "Blocker":
            yield call, scope
            continue
        called = _called(call, scope)
        if getattr(called, "__annotations__", {}).get("return") == "list[Blocker]":
            function = _function(called)
            given = _placed(function, _bind(function, call), scope, Scope(called.__module__))
            for inner, within in _blockers(called):
                yield inner, replace(within, given=given)


def _function(owner: Any) -> ast.FunctionDef:
    path = owner.__module__.replace(".", "/") + ".py"
    (function,) = (
        node for node in ast.walk(_trees()[path])
        if isinstance(node, ast.FunctionDef) and node.name == owner.__name__
    )  # fmt: skip
    return function


def _command(arguments: ast.expr, scope: Scope) -> str:
    """The words of a command: those that are written out, and of the others what they are."""
    if isinstance(arguments, ast.Name):
        (arguments,) = scope.assigned(arguments.id)
    words = arguments.elts if isinstance(arguments, ast.Tuple) else []
    return " ".join(variants((word, scope))[0][0] for word in words)


def _of_cluster(path: str, module: str, node: ast.Call) -> Iterator[RaisedError]:
    """An answer of the API server of Kubernetes."""
    code, hint = (ast.literal_eval(one) for one in node.args)
    message = "The cluster did not VERB RESOURCE NAME: REASON."
    hint = hint.format(verb="VERB", resource="RESOURCE", namespace="NAMESPACE")
    yield RaisedError(code, "ClusterError", message, hint, path)


def _of_objects(path: str, _: str, node: ast.Call) -> Iterator[RaisedError]:
    """An object that a pod refers to, and that its namespace lacks."""
    words, code, hint = (ast.literal_eval(one) for one in node.args)
    message = f"There is no {words} NAME in the namespace NAMESPACE."
    yield RaisedError(code, "NotFoundError", message, hint, path)


_TABLES = {"Guard": _guard, "_ErrorKind": _of_cluster, "_ObjectKind": _of_objects}
