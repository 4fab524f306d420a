"""Mutants of Modelyard's code, drawn at random: which of them do the tests notice?

``make mutants`` (or ``python -m tests.mutants --data .coverage``) needs coverage data with dynamic
contexts, as ``docs/continuing.md`` says. Each mutant changes one expression or statement of a line
that some test runs, in a copy of the checkout, and only the tests that run the line are run. The
same seed draws the same mutants from the same code; ``--save`` writes down what was drawn and
``--only`` tries just these, in another state of the code, too.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "modelyard", "flows", "tasks", "schedules", "pipelines", "tuning", "registry", "serving",
    "infra",
)  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        path: The file, from the root of the checkout.
        function: The qualified name of the function in it.
        kind: What is done.
        node: What it is done to, as text.
        ordinal: The how manieth of its kind and text in the function.
        line: Where it is; of a change of the file it is found again without.
    """

    path: str
    function: str
    kind: str
    node: str
    ordinal: int
    line: int

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        return self.path, self.function, self.kind, self.node, self.ordinal


def changed(node: ast.AST) -> tuple[str, ast.AST] | None:
    """What a node becomes, and what that is called; None if it stays."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        other = copy.deepcopy(node)
        other.ops[0] = _COMPARISONS[type(node.ops[0])]()
        return "comparison", other
    if isinstance(node, ast.BoolOp):
        flipped: ast.boolop = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return "boolean", ast.BoolOp(flipped, node.values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return "negation", node.operand
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return "arithmetic", ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return "constant", ast.Constant(not node.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return "constant", ast.Constant(node.value + 1)
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Constant):
        other = copy.copy(node)
        other.test = ast.UnaryOp(ast.Not(), node.test)
        return "condition", other
    if isinstance(node, ast.Return) and node.value is not None:
        return "result", ast.Return(ast.Constant(None))
    if isinstance(node, ast.AugAssign | ast.Raise) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    ):
        return "deletion", ast.Pass()
    return None


class _Sites(ast.NodeVisitor):
    """The nodes in functions that can be changed, without annotations and decorators."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ast.AST]] = []
        self._names: list[str] = []
        self._functions = 0

    def generic_visit(self, node: ast.AST) -> None:
        if self._functions and changed(node):
            self.found.append((".".join(self._names), node))
        super().generic_visit(node)

    def _named(self, node: _Function | ast.ClassDef) -> None:
        self._names.append(node.name)
        is_function = not isinstance(node, ast.ClassDef)
        self._functions += is_function
        for statement in node.body:
            self.visit(statement)
        self._functions -= is_function
        self._names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._named(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._named(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._named(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """What stands in f-strings has no place of its own before Python 3.12."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)


def mutants(root: Path, path: str, lines: set[int]) -> Iterator[tuple[Mutant, str]]:
    """The mutants of a file on some of its lines, each with the file's text."""
    text = (root / path).read_text()
    sites = _Sites()
    sites.visit(ast.parse(text))
    seen: dict[tuple[str, str, str], int] = {}
    for function, node in sites.found:
        made = changed(node)
        line = getattr(node, "lineno", 0)
        assert made is not None
        key = (function, made[0], ast.unparse(node))
        seen[key] = seen.get(key, 0) + 1
        if line in lines:
            yield Mutant(path, *key, seen[key], line), _replaced(text, node, made[1])


def _replaced(text: str, node: ast.AST, new: ast.AST) -> str:
    """The text with a node replaced in its place, so that all lines stay where they are."""
    assert isinstance(node, ast.expr | ast.stmt)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    lines = text.encode().splitlines(keepends=True)
    if isinstance(node, ast.If | ast.While) and isinstance(new, ast.If | ast.While):
        return _replaced(text, node.test, new.test)
    before = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    last = lines[node.end_lineno - 1]
    after = last[node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    written = ast.unparse(ast.fix_missing_locations(new))
    if isinstance(new, ast.expr):
        written = f"({written})"
    height = node.end_lineno - node.lineno
    filled = written.encode() + (b" " + b"\\\n" * height if height else b"")
    return (before + filled + after).decode()


class Covered:
    """Which tests run which lines."""

    def __init__(self, data: Path, root: Path) -> None:
        """``root`` is where the code was when it was measured."""
        self._data = CoverageData(str(data))
        self._data.read()
        self._root = root

    def files(self) -> list[str]:
        found = (Path(name) for name in self._data.measured_files())
        inside = (str(one.relative_to(self._root)) for one in found
                  if one.is_relative_to(self._root))  # fmt: skip
        return sorted(one for one in inside if one.startswith(PACKAGES) and one.endswith(".py"))

    def lines(self, path: str) -> set[int]:
        return set(self._data.lines(str(self._root / path)) or ())

    def tests(self, path: str, line: int) -> list[str]:
        """The ids of the tests that run a line in their own process."""
        contexts = self._data.contexts_by_lineno(str(self._root / path)).get(line, [])
        return sorted({found for one in contexts if (found := _node(one))})


def _node(context: str) -> str | None:
    """The id of the test that a context is called after."""
    words = context.split(".")
    for count in range(len(words), 1, -1):
        file = Path(*words[:count]).with_suffix(".py")
        if (ROOT / file).is_file() and file.name.startswith("test_"):
            return "::".join([str(file), *words[count:]])
    return None


def mirrored(path: str) -> list[str]:
    """The files of tests beside a module: for lines that only processes of tests run."""
    folder, stem = ROOT / "tests" / Path(path).parent, Path(path).stem
    named = sorted(folder.glob(f"test_{stem}*.py")) or sorted(folder.glob("test_*.py"))
    return [str(one.relative_to(ROOT)) for one in named[:6]]


def tried(mutant: Mutant, text: str, tests: list[str], patience: float) -> str:
    """Run the tests on the mutant: caught, survived, or slow, which counts as caught."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        place = Path(folder, "tree")
        ignored = shutil.ignore_patterns(".venv", ".git", "build", "*_cache", "__pycache__")
        shutil.copytree(ROOT, place, ignore=ignored)
        (place / mutant.path).write_text(text)
        env = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        env.pop("COVERAGE_PROCESS_START", None)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider",
                   "--deselect", "tests/test_tree.py", *tests]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=place, env=env, timeout=patience, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return "slow"
    return {0: "survived", 5: "untested"}.get(done.returncode, "caught")


def drawn(covered: Covered, number: int, seed: int) -> list[tuple[Mutant, str]]:
    """As many mutants of the whole code."""
    found = [one for path in covered.files() if (ROOT / path).is_file()
             for one in mutants(ROOT, path, covered.lines(path))]  # fmt: skip
    return random.Random(seed).sample(found, min(number, len(found)))


def _found_again(only: Path) -> Iterator[tuple[Mutant, str]]:
    for row in json.loads(only.read_text()):
        wanted = Mutant(**row)
        if not (ROOT / wanted.path).is_file():
            continue
        lines = range(1, len((ROOT / wanted.path).read_text().splitlines()) + 1)
        for mutant, text in mutants(ROOT, wanted.path, set(lines)):
            if mutant.identity == wanted.identity:
                yield mutant, text


def main() -> None:
    """Try mutants and say what became of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--root", type=Path, default=ROOT, help="where it was measured")
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tests", type=int, default=40, help="at most so many tests for one")
    parser.add_argument("--patience", type=float, default=600.0)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--only", type=Path)
    asked = parser.parse_args()
    covered = Covered(asked.data, asked.root.resolve())
    chosen = list(_found_again(asked.only)) if asked.only else drawn(
        covered, asked.number, asked.seed
    )  # fmt: skip
    if asked.save:
        asked.save.write_text(json.dumps([asdict(one) for one, _ in chosen], indent=1))
    tally: dict[str, int] = {}
    for number, (mutant, text) in enumerate(chosen, 1):
        tests = covered.tests(mutant.path, mutant.line)
        few = random.Random(asked.seed).sample(tests, min(asked.tests, len(tests)))
        began = time.monotonic()
        end = tried(mutant, text, few or mirrored(mutant.path), asked.patience)
        tally[end] = tally.get(end, 0) + 1
        print(f"{number:3} {end:8} {mutant.path}:{mutant.line} {mutant.kind} of {mutant.node!r}"
              f" ({len(tests)} tests, {time.monotonic() - began:.0f} s)", flush=True)  # fmt: skip
    print(tally)


if __name__ == "__main__":
    main()
