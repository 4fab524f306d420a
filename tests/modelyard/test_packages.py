"""Modelyard's names beside a caller's own packages of the same names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.forkclient import own_python

_CLEANING = "def clean():\n    return 'cleaned'\n"


def _run(
    folder: Path, files: dict[str, str], *arguments: str, path: str = ""
) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    environment |= {"PYTHONPATH": path} if path else {}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def _output(folder: Path, files: dict[str, str], script: str) -> str:
    done = _run(folder, {**files, "script.py": script}, "script.py")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("files", "script"),
    [
        (
            {"tasks/__init__.py": "OWN = 'mine'\n", "tasks/cleaning.py": _CLEANING},
            "from modelyard import Logs\nfrom tasks.cleaning import clean\nimport tasks\n"
            "print(Logs.__module__, clean(), tasks.OWN)",
        ),
        (
            {"tasks/__init__.py": "OWN = 'mine'\n", "tasks/cleaning.py": _CLEANING},
            "from tasks import OWN, cleaning\nfrom modelyard import Logs\nimport tasks\n"
            "print(Logs.__module__, tasks.cleaning.clean(), OWN)",
        ),
        (
            {"tasks.py": f"OWN = 'mine'\n{_CLEANING}", "infra.py": "raise SystemExit('executed')"},
            "from modelyard import Logs\nfrom tasks import OWN, clean\n"
            "print(Logs.__module__, clean(), OWN)",
        ),
        (
            {"tasks.py": f"OWN = 'mine'\n{_CLEANING}"},
            "import tasks\nfrom modelyard import Logs\nimport tasks as again\n"
            "print(Logs.__module__, tasks.clean(), again.OWN)",
        ),
        (
            {"tasks/cleaning.py": _CLEANING, "tasks/deep/er.py": "OWN = 'mine'\n"},
            "from modelyard import Logs\nfrom tasks import cleaning\n"
            "from tasks.deep.er import OWN\n"
            "print(Logs.__module__, cleaning.clean(), OWN)",
        ),
        (
            {
                "tasks/__init__.py": "from modelyard import Logs\n"
                "from tasks.cleaning import clean\nOWN = 'mine'\n",
                "tasks/cleaning.py": _CLEANING,
            },
            "import tasks\nfrom tasks import Logs\n"
            "print(Logs.__module__, tasks.clean(), tasks.OWN)",
        ),
    ],
    ids=[
        "a package", "a package that is loaded", "a module", "a module that is loaded",
        "a folder without __init__", "a package that uses modelyard",
    ],
)  # fmt: skip
def test_both_are_importable(tmp_path: Path, files: dict[str, str], script: str) -> None:
    assert _output(tmp_path, files, script) == "tasks.logs cleaned mine"


def test_flows_are_imported_beside_folders_of_every_name(tmp_path: Path) -> None:
    names = ("infra", "registry", "tuning", "pipelines", "schedules", "tasks", "flows")
    files = {f"{name}/__init__.py": f"raise SystemExit('{name}')\n" for name in names}

    assert _output(tmp_path, files, "from modelyard import train\nprint(train.name)") == "train"


@pytest.mark.parametrize("name", ["infra/__init__.py", "registry.py"])
def test_the_command_is_not_replaced_by_what_pythonpath_has(tmp_path: Path, name: str) -> None:
    files = {f"project/{name}": "raise SystemExit('executed')"}
    script = "import sys\nfrom modelyard.__main__ import main\nmain()\n"
    path = str(tmp_path / "project")

    done = _run(tmp_path, {**files, "command.py": script}, "command.py", "--version", path=path)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["infra.identity", "modelyard.packages"])
def test_a_part_of_the_stack_is_not_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "project"))
    files = {"project/infra.py": "raise SystemExit('executed')"}

    done = _run(tmp_path, files, *own_python(module)[1:], path=str(tmp_path / "project"))

    assert done.returncode == 0


def test_pythonpath_counts_where_modelyard_itself_is_found_through_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{Path(__file__).parents[2]}")

    assert own_python("infra.x")[1:] == ["-P", "-m", "infra.x"]


def test_a_loaded_module_that_takes_a_name_is_named(tmp_path: Path) -> None:
    files = {"tasks/__init__.py": "", "tasks/logs.py": "", "script.py": ""}
    done = _run(
        tmp_path, files, "-c",
        "import tasks.logs\ntry:\n    from modelyard import Logs\nexcept ImportError as error:\n"
        "    print(error, error.path)\nimport tasks\nprint(tasks.__file__)",
    )  # fmt: skip

    error, tasks = done.stdout.splitlines()
    file = str(tmp_path / "tasks" / "logs.py")
    assert error.startswith(f"{file} is imported as tasks.logs")
    assert "Rename" in error
    assert error.endswith(file)
    assert tasks == str(tmp_path / "tasks" / "__init__.py")


def test_a_name_that_neither_has_is_an_attribute_error(tmp_path: Path) -> None:
    script = "from modelyard import Logs\nimport tasks\nprint(hasattr(tasks, 'nothing'))"

    assert _output(tmp_path, {"tasks.py": ""}, script) == "False"


def test_pytest_collects_a_projects_own_packages(tmp_path: Path) -> None:
    files = {
        "conftest.py": "from modelyard import Logs\n",
        "tasks/__init__.py": "",
        "tasks/cleaning.py": _CLEANING,
        "tasks/test_cleaning.py": "from modelyard import Logs\nfrom tasks.cleaning import clean\n"
        "def test_it():\n    assert (clean(), Logs.__module__) == ('cleaned', 'tasks.logs')\n",
        "test_later.py": "import tasks.cleaning\nfrom modelyard import Logs\n"
        "def test_it():\n    assert Logs().stream\n",
    }
    done = _run(tmp_path, files, "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
