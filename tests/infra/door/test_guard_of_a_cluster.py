"""The doors of a cluster's servers: a credential from a variable, probes, scripts' credentials."""

from __future__ import annotations

import base64

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.door import credential, guard, run_scope
from infra.door.credential import Credential
from infra.home import Home
from infra.settings import Settings
from tests.infra.door.conftest import Server
from tests.infra.door.requests import ask

SECRET = "of-a-secret"
RUN = "a" * 32


@pytest.fixture
def _in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(credential.VARIABLE, SECRET)


def guarded(app: ASGIApp, server: str, home: Home, *, probed: bool = True) -> ASGIApp:
    return guard.guarded(app, server, home, Settings(home=home.root), probed=probed)


@pytest.mark.usefixtures("_in_a_pod")
def test_the_credential_is_that_of_the_variable(home: Home, server: Server) -> None:
    app = guarded(server, "web", home)

    assert ask(app, authorization=Credential(SECRET).basic).status == 200
    assert ask(app, authorization=Credential("guessed").basic).status == 401
    assert not home.credential.exists()


@pytest.mark.parametrize(
    ("name", "path"),
    [("prefect", "/api/health"), ("prefect", "/api/ready"), ("mlflow", "/health"),
     ("mlflow", "/ready"), ("web", "/ready")],
)  # fmt: skip
def test_probes_need_no_credential_where_a_cluster_asks(
    home: Home, server: Server, name: str, path: str
) -> None:
    assert ask(guarded(server, name, home), path, host="10.0.0.1").status == 200
    assert ask(guarded(server, name, home), path, method="POST").status == 401
    assert ask(guarded(server, name, home), f"{path}/more").status == 401
    assert ask(guarded(server, name, home, probed=False), path).status == 401


@pytest.mark.parametrize(("answered", "told"), [(200, 200), (404, 503), (500, 503)])
def test_mlflow_is_ready_when_its_database_answers(home: Home, answered: int, told: int) -> None:
    asked: list[Scope] = []

    async def mlflow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope)
        await send({"type": "http.response.start", "status": answered, "headers": []})
        await send({"type": "http.response.body", "body": b"experiments"})

    answer = ask(guarded(mlflow, "mlflow", home), "/ready")

    assert (answer.status, answer.body) == (told, b"")
    assert [scope["path"] for scope in asked] == ["/api/2.0/mlflow/experiments/search"]


@pytest.mark.usefixtures("_in_a_pod")
def test_scripts_credentials_are_for_mlflow_alone(home: Home, server: Server) -> None:
    issued = run_scope.issue(Credential(SECRET), RUN)
    user, password = issued["MLFLOW_TRACKING_USERNAME"], issued["MLFLOW_TRACKING_PASSWORD"]
    basic = _basic(user, password)
    path = f"/api/2.0/mlflow/runs/get?run_id={RUN}"

    for name in ("prefect", "web", "tensorboard"):
        assert ask(guarded(server, name, home), path, authorization=basic).status == 401
    assert ask(guarded(server, "mlflow", home), path, authorization=basic).status == 200
    refused = ask(guarded(server, "mlflow", home), "/graphql", authorization=basic)
    assert refused.status == 403
    assert RUN.encode() in refused.body
    assert b"authorization" not in dict(server.scopes[-1]["headers"])


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
