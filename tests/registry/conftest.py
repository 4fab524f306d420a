"""A real MLflow server, spoken to by REST, and a real catalogue."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.home import Home
from infra.stack import parts, postgres
from registry import catalogue
from tests.processes import eventually
from tests.registry.server import MlflowServer


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's own server, as the local stack runs it, on an SQLite file."""
    folder = tmp_path_factory.mktemp("mlflow")
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    listener = parts.bind(0)
    port = listener.getsockname()[1]
    command = parts._served("mlflow", listener, "mlflow.server.fastapi_app:app")
    store = f"sqlite:///{folder}/mlflow.db"
    env = {
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts.as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MODELYARD_DOOR": "false",
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=env, stdout=log, stderr=log, cwd=folder, pass_fds=[listener.fileno()]
        )
    listener.close()
    uri = f"http://127.0.0.1:{port}"
    try:
        probe = f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"
        what = f"MLflow answers; see {folder / 'log'}"
        eventually(
            lambda: parts.answers(Home(folder), probe), what, patience=120
        )  # it makes its tables first
        yield MlflowServer(uri, artifacts)
    finally:
        server.kill()
        server.wait(30)


def new_database(home: Home) -> str:
    """The address of an empty database."""
    name = f"registry_{uuid.uuid4().hex}"
    with psycopg.connect(
        host=str(home.sockets), user=postgres.USER, dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return postgres.url(home, "psycopg", name)


@pytest.fixture(scope="session")
def catalogue_url(database_home: Home) -> str:
    """An empty database of this session's registry tests."""
    return new_database(database_home)


@pytest.fixture
def postgresql(database_home: Home) -> str:
    """An empty database of its own."""
    return new_database(database_home)


@pytest.fixture
def database(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty database, which is the catalogue's for the test."""
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    yield postgresql
    catalogue.engine().dispose()


@pytest.fixture
def mlflow(
    mlflow_server: MlflowServer,
    catalogue_url: str,
    monkeypatch: pytest.MonkeyPatch,
    _isolated: None,
) -> Iterator[MlflowServer]:
    """The server and the catalogue, which the environment names for the test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MODELYARD_DATABASE_URL", catalogue_url)
    catalogue.migrate()
    yield mlflow_server
    catalogue.engine().dispose()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"m-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def run(tmp_path: Path, name: str) -> Any:
    """Makes a run that has left a model: of scikit-learn, and called as the test's name."""
    from tests.registry import model_files, trained  # torch, which not every test here needs

    def made(make: Any = model_files.scikit_learn, called: str = name) -> trained.Run:
        return trained.Run(called, make, tmp_path / "scratch")

    return made
