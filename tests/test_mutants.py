"""The tool that draws mutants."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytest.importorskip("coverage")

from tests import mutants

_CODE = """
LIMIT = 3


def first(a: int = 5) -> bool:
    if a > LIMIT and not (
        a == 4
    ):
        print(
            "large",
        )
        return True
    return a + 1 < 9
"""


def _made(tmp_path: Path, code: str) -> list[tuple[mutants.Mutant, str]]:
    (tmp_path / "code.py").write_text(code)
    lines = set(range(1, code.count("\n") + 1))
    return list(mutants.mutants(tmp_path, "code.py", lines))


def test_each_changes_one_thing_and_no_line_moves(tmp_path: Path) -> None:
    made = _made(tmp_path, _CODE)

    kinds = sorted(mutant.kind for mutant, _ in made)
    assert kinds == [
        "arithmetic", "boolean", "comparison", "comparison", "comparison", "condition",
        "constant", "constant", "constant", "constant", "deletion", "negation", "result", "result",
    ]  # fmt: skip
    assert len({mutant.identity for mutant, _ in made}) == len(made)
    assert {mutant.function for mutant, _ in made} == {"first"}
    for mutant, text in made:
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(_CODE)), mutant
        assert text.count("\n") == _CODE.count("\n"), mutant


def test_those_of_the_real_code_are_python(tmp_path: Path) -> None:
    for path in ("infra/forkserver.py", "schedules/scheduler.py", "tuning/search.py"):
        code = (mutants.ROOT / path).read_text()
        for mutant, text in _made(tmp_path, code):
            compile(text, str(mutant), "exec")


def test_tests_beside_a_module_are_found() -> None:
    assert "tests/infra/test_errors.py" in mutants.mirrored("infra/errors.py")


def test_a_context_is_a_test() -> None:
    assert mutants._node("tests.test_tree.test_x") == "tests/test_tree.py::test_x"
    assert mutants._node("") is None
