"""The MLflow server and the catalogue of the registry's tests, and a tuning whose trials run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.home import Home
from infra.settings import Settings
from registry import tracking
from tests.registry.conftest import catalogue_url, mlflow, mlflow_server, name  # noqa: F401
from tests.registry.fake_runs import new_id
from tests.registry.server import MlflowServer
from tests.registry.tuned import opening
from tests.tasks.trials.scene import Scene, Warnings

SCRIPT = Path(__file__).with_name("script.py")


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    """What is logged as a warning or worse."""
    kept = Warnings()
    logger = logging.getLogger("tests.trials")
    logger.addHandler(kept)
    yield kept
    logger.removeHandler(kept)


@pytest.fixture
def scene(
    home: Home,
    settings: Settings,
    name: str,  # noqa: F811
    mlflow: MlflowServer,  # noqa: F811
    warnings: Warnings,
    tmp_path: Path,
) -> Scene:
    """A tuning; its trials run the script beside this file."""
    algorithm = tmp_path / "algorithm"
    algorithm.mkdir()
    (algorithm / "script.py").write_text(SCRIPT.read_text())
    tuning = new_id()
    parent = tracking.open_run(opening(tuning, name), retried=False)
    return Scene(
        home=home,
        settings=settings.model_copy(update={"stop_grace_seconds": 1.0}),
        tuning=tuning,
        name=name,
        parent=parent,
        algorithm=algorithm,
        scratch=tmp_path,
        warnings=warnings,
    )
