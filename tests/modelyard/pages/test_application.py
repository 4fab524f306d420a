from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from infra.errors import StackError
from modelyard.pages import application
from tests.modelyard.pages.conftest import OTHER, RUN, World, connected, made
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import node


@pytest.mark.parametrize("path", ["/", f"/runs/{RUN}", "/nowhere", "/static/page.js", "/ready"])
def test_every_answer_forbids_what_a_page_does_not_need(world: World, path: str) -> None:
    world.begin("adding")
    headers = connected(world).get(path).headers
    policy = headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers


def test_a_page_that_breaks_says_so_and_has_the_same_headers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "runs", lambda *_: 1 // 0)
    answer = connected(world, raise_server_exceptions=False).get("/")

    assert answer.status_code == 500
    assert "modelyard status --logs web" in answer.text
    assert "content-security-policy" in answer.headers


def test_no_page_has_script_or_style_of_its_own(world: World, client: TestClient) -> None:
    world.begin("nested_loops", made("grand-total", "/nowhere"))
    world.exist(flow="train", run=OTHER)
    paths = ("/", f"/runs/{RUN}", f"/runs/{RUN}?node=grand-total", f"/runs/{OTHER}", "/nowhere")
    for path in paths:
        page = client.get(path).text
        assert re.findall(r"<script[^>]*>", page) == ['<script src="/static/page.js" defer>']
        assert "<style" not in page
        assert not re.search(r"\s(on\w+|style)=", page)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/static/page.js", "javascript"), ("/static/page.css", "text/css"),
        ("/static/states.css", "text/css"), ("/static/icon.svg", "image/svg+xml"),
    ],
)  # fmt: skip
def test_what_pages_need_is_served(client: TestClient, path: str, kind: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert kind in answer.headers["content-type"]


@pytest.mark.parametrize(
    "path",
    ["/static/../application.py", "/static/%2e%2e/application.py", "/static/..%2fgraphs.py"],
)
def test_nothing_beside_the_static_files_is(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/nowhere", "/runs", "/pipelines/none"])
def test_what_is_not_there_is_told_with_where_to_go_on(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert 'href="/"' in answer.text


def test_pages_are_only_read(client: TestClient) -> None:
    answer = client.post("/")

    assert answer.status_code == 405
    assert "only read" in answer.text


def test_an_uploaded_pipeline_has_a_page_for_each_version(
    world: World, client: TestClient
) -> None:
    world.uploaded = {"plain": corpus.compiled("nested"), "plain:1": corpus.compiled("one_of")}

    assert client.get("/pipelines/a%2Fb%20%3Cc%3E").status_code == 404
    newest, first = (
        client.get("/pipelines/plain").text,
        client.get("/pipelines/plain?version=1").text,
    )
    assert 'data-path="twice"' in newest
    assert 'data-path="condition-branches-1"' in first
    assert 'href="/pipelines/plain?version=1&amp;node=echo-4"' in first
    chosen = client.get("/pipelines/plain?version=1&node=echo-4").text
    assert "python:3.11-slim" in chosen
    assert 'class="box k-task chosen"' in chosen


def test_without_a_stack_there_are_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StackError, match="No stack"):
        application.create()


def test_the_pages_of_a_stack_begin_without_its_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MODELYARD_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    client = TestClient(application.create(), base_url="http://localhost")

    assert client.get("/ready").text == "ready"
    assert "Prefect does not answer (ConnectError)" in client.get("/").text
    silent = client.get("/pipelines/x")
    assert silent.status_code == 503
    assert "database does not answer" in silent.text


def test_a_node_of_the_run_of_another_is_not_told(world: World, client: TestClient) -> None:
    world.begin("adding", node("add", "SUCCEEDED", reason="mine"))
    world.begin("adding", run=OTHER)

    assert "mine" not in client.get(f"/runs/{OTHER}?node=add").text
