"""What pods and commands pay for at their start: none of the packages that take long to import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "alembic", "boto3", "botocore", "cel", "docker", "fastapi", "google.protobuf", "kfp",
    "kubernetes", "matplotlib", "mlflow", "numpy", "optuna", "pandas", "prefect.runner",
    "prefect.server", "prefect.workers", "scipy", "sklearn", "tensorboard",
}  # fmt: skip
_TYPER_ALONE = {"prefect", "sqlalchemy", "psycopg", "httpx"}


def imported_by(code: str, packages: set[str]) -> set[str]:
    """Which of the packages a new interpreter has imported after the code."""
    report = f"import json, sys; print(json.dumps(sorted({packages!r} & set(sys.modules))))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{report}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


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


def test_the_package_itself_imports_nothing_of_others() -> None:
    assert imported_by("import modelyard", HEAVY | _TYPER_ALONE | {"pydantic", "typer"}) == set()


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
