"""What pods and commands pay for at their start: none of the packages that take long to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.connection import clean_environment

HEAVY = {
    "alembic", "boto3", "botocore", "cel", "docker", "fastapi", "google.protobuf", "kfp.client",
    "kfp.dsl", "kubernetes", "matplotlib", "mlflow", "numpy", "optuna", "pandas",
    "prefect.runner", "prefect.server", "prefect.workers", "scipy", "sklearn", "tensorboard",
}  # fmt: skip
_TYPER_ALONE = {"prefect", "sqlalchemy", "psycopg", "httpx"}


def imported_by(code: str, packages: set[str]) -> set[str]:
    """Which of the packages a new interpreter has imported after the code."""
    return _run(code, packages)[1]


def _run(code: str, packages: set[str], home: Path | None = None) -> tuple[str, set[str]]:
    """Run code in a new interpreter; what it printed, and which of the packages it imported."""
    report = f"import json, sys; print(json.dumps(sorted({packages!r} & set(sys.modules))))"
    env = {**clean_environment(), "MODELYARD_HOME": str(home)} if home else None
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{report}"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    *printed, imported = done.stdout.splitlines()
    return "\n".join(printed), set(json.loads(imported))


@pytest.mark.parametrize(
    "code",
    [
        "import modelyard.run_pod, prefect.engine, prefect.flow_engine, flows.training",
        "import modelyard.main, modelyard.commands.runs",
        "import modelyard.commands.run; from flows import catalogue; catalogue.find('train')",
        "from tasks import placement as p; p.plan_requests('train', {'algorithm': {'uri': 'x'}})",
    ],
    ids=["a pod that trains", "runs", "run train", "the machine of a training"],
)
def test_no_package_that_takes_long_is_imported(code: str) -> None:
    assert imported_by(code, HEAVY) == set()


def test_the_pages_import_no_client_of_a_server() -> None:
    code = "import modelyard.pages.application"
    assert imported_by(code, HEAVY | {"prefect"}) <= {"cel", "google.protobuf"}


def test_the_package_itself_imports_nothing_of_others() -> None:
    assert imported_by("import modelyard", HEAVY | _TYPER_ALONE | {"pydantic", "typer"}) == set()


@pytest.mark.parametrize(
    "line",
    [
        "runs list", "runs show x", "model list", "experiment list", "template list", "run train",
        "runs retry x", "pipeline list", "pipeline run x", "schedule list",
    ],
)  # fmt: skip
def test_without_a_stack_a_command_is_refused_at_once(line: str, tmp_path: Path) -> None:
    database = set() if line.startswith("schedule") else {"sqlalchemy", "psycopg"}
    code = f"""
import sys
from modelyard import main
sys.argv = ["modelyard", *{line.split()!r}, "--json"]
try:
    main.main()
except SystemExit as ended:
    assert ended.code == 1
"""
    answer, imported = _run(code, HEAVY | {"prefect", *database}, tmp_path)

    assert json.loads(answer)["error"]["message"].startswith("The stack is not up")
    assert imported == set()
    assert not any(tmp_path.iterdir())


def test_help_needs_neither_prefect_nor_the_database() -> None:
    code = """
import sys
from modelyard import main
sys.argv = ["modelyard", "--help"]
try:
    main.main()
except SystemExit as ended:
    assert not ended.code
"""
    assert imported_by(code, HEAVY | _TYPER_ALONE) == set()


def test_kfp_is_imported_without_its_compiler_and_client_but_has_them() -> None:
    code = "from pipelines import reading; import kfp"
    assert imported_by(code, {"kfp", "kfp.dsl", "kfp.client", "kubernetes"}) == {"kfp"}

    asked = f"{code}; kfp.Client, kfp.dsl.pipeline, kfp.components.load_component_from_text"
    assert imported_by(asked, {"kfp.dsl", "kfp.client"}) == {"kfp.dsl", "kfp.client"}
