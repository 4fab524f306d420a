"""What holds for every file of the tree."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_LONGEST_MODULE = 500
_LONGEST_FUNCTION = 60
_LONG_BY_NATURE = {
    # Their signatures are the forms that people fill in.
    ("flows/training.py", "train"),
    ("flows/tuning.py", "tune"),
}
_PACKAGES_OF_A_NOUN = (
    "registry/models",
    "registry/notifications",
    "registry/pipelines",
    "registry/runs",
    "registry/schedules",
    "registry/tunings",
    "tasks/training",
    "tasks/tuning",
)
_FOLDERS = (
    "modelyard",
    "flows",
    "tasks",
    "schedules",
    "pipelines",
    "tuning",
    "registry",
    "serving",
    "infra",
    "tests",
    "benchmarks",
)

_HOSTS = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|pypi\.python\.org|npmjs\.(?:org|com)|anaconda\.(?:org|com)"
    r"|(?:[\w-]+\.)*(?:artifactory|nexus|jfrog|devpi)\.[\w.-]+)"
)
_INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host")
_SOMEBODYS_FOLDER = re.compile(r"(?:^|[\s\"'=(:`])/(?:home|Users)/\w+")


@functools.cache
def _files() -> tuple[str, ...]:
    """Every file that is tracked, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=_ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    return tuple(
        sorted({name for name in listed.stdout.split("\0") if name and (_ROOT / name).is_file()})
    )


def _modules() -> list[str]:
    return [name for name in _files() if name.endswith(".py") and name.startswith(_FOLDERS)]


def _text(name: str) -> str:
    return (_ROOT / name).read_text(errors="replace")


def _found(pattern: re.Pattern[str]) -> list[str]:
    own = str(Path(__file__).relative_to(_ROOT))
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in _files()
        if name != own
        for number, line in enumerate(_text(name).splitlines(), 1)
        if pattern.search(line)
    ]


def test_there_is_something_to_look_at() -> None:
    assert "infra/errors.py" in _modules()
    assert "pyproject.toml" in _files()


def test_no_module_is_too_long() -> None:
    lengths = {name: len(_text(name).splitlines()) for name in _modules()}

    assert {name: n for name, n in lengths.items() if n > _LONGEST_MODULE} == {}


def test_no_function_is_too_long() -> None:
    long = {}
    for name in _modules():
        for node in ast.walk(ast.parse(_text(name))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > _LONGEST_FUNCTION and (name, node.name) not in _LONG_BY_NATURE:
                    long[f"{name}:{node.name}"] = length

    assert long == {}


def test_no_file_names_a_package_registry() -> None:
    assert _found(_HOSTS) == []
    assert _found(_INDEX_OPTION) == []


def test_no_file_holds_a_path_of_a_machine() -> None:
    own = [re.escape(str(path)) for path in (_ROOT, Path(sys.base_prefix)) if len(path.parts) > 2]

    assert _found(_SOMEBODYS_FOLDER) == []
    assert _found(re.compile(rf"(?:{'|'.join(own)})(?![\w-])")) == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (_HOSTS, "see https://" + "pypi" + ".org/simple"),
        (_HOSTS, "https://files." + "pythonhosted" + ".org/packages/x.whl"),
        (_HOSTS, "https://company." + "jfrog" + ".io/api"),
        (_INDEX_OPTION, "--index" + "-url https://somewhere"),
        (_SOMEBODYS_FOLDER, "open('/" + "home/alice/data')"),
    ],
)
def test_what_is_looked_for_would_be_found(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


def test_a_public_class_name_is_used_once() -> None:
    modules: dict[str, list[str]] = {}
    for name in _modules():
        # A provided algorithm is a program of its own, which no module imports.
        if name.startswith(("tests/", "benchmarks/", "tasks/algorithms/")):
            continue
        for node in ast.parse(_text(name)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(name)

    shared = {name: found for name, found in modules.items() if len(found) > 1}
    assert shared == {}


@functools.cache
def _imported_modules(name: str) -> set[str]:
    """Every module that a file imports, also as ``from package import module``."""
    found = set()
    for node in ast.walk(ast.parse(_text(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _public_modules(package: str) -> list[str]:
    """``__all__`` of a package whose ``__init__`` imports nothing."""
    for node in ast.parse(_text(f"{package}/__init__.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{package}/__init__.py has no __all__")


@pytest.mark.parametrize("package", _PACKAGES_OF_A_NOUN)
def test_only_public_modules_of_a_noun_are_imported_from_elsewhere(package: str) -> None:
    modules = {name: name[:-3].replace("/", ".") for name in _modules() if "tests/" not in name}
    inside = {module for name, module in modules.items() if name.startswith(f"{package}/")}
    public = {f"{package.replace('/', '.')}.{module}" for module in _public_modules(package)}

    used = {
        module
        for name in modules
        if not name.startswith(f"{package}/")
        for module in _imported_modules(name) & inside
    }

    assert used == public
