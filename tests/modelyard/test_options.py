from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

_MODELYARD = Path(__file__).parents[2] / "modelyard"


def test_an_option_of_several_commands_is_declared_once() -> None:
    modules = defaultdict(set)
    for path in _MODELYARD.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option":
                modules[ast.unparse(node)].add(path.name)

    assert modules
    assert {option: names for option, names in modules.items() if len(names) > 1} == {}
