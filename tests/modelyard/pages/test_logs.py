"""The error and the log of a run."""

from __future__ import annotations

import html
import re

import pytest
from starlette.testclient import TestClient

from tests.modelyard.pages.conftest import OTHER, RUN, World

HOSTILE = "<script>alert(1)</script>"


def last_lines(page: str) -> list[str] | None:
    found = re.search(r'<pre class="log" tabindex="0">(.*?)</pre>', page, re.DOTALL)
    return html.unescape(found[1]).split("\n") if found else None


def failed(world: World, flow: str = "train", message: str = "Odd: it broke. Mend it.") -> None:
    world.exist(flow=flow, state="CREATE FAILED", is_final=True, message=message)


@pytest.mark.parametrize("flow", ["train", "pipeline-run"])
def test_a_failed_run_shows_its_error_and_its_last_lines(
    world: World, client: TestClient, flow: str
) -> None:
    failed(world, flow, f"Odd: it broke{HOSTILE}. Mend it.")
    ended = "Finished in state Failed('Odd: it broke')"
    world.logged[RUN] = [f"line {number} {HOSTILE}" for number in range(40)] + [ended]
    page = client.get(f"/runs/{RUN}").text

    assert "Odd: it broke&lt;script&gt;" in page
    assert last_lines(page) == [f"line {number} {HOSTILE}" for number in range(21, 40)]
    assert f'<a href="/runs/{RUN}/log">Whole log</a>' in page
    assert "<script>alert" not in page


def test_the_error_of_a_pipeline_run_is_shown_beside_its_graph(
    world: World, client: TestClient
) -> None:
    world.begin("adding", state="FAIL PIPELINE RUN", is_final=True, message="Odd: no luck.")
    world.logged[RUN] = ["it went wrong"]

    page = client.get(f"/runs/{RUN}").text
    assert "Odd: no luck." in page
    assert last_lines(page) == ["it went wrong"]
    assert f'href="/runs/{RUN}/log"' in page
    assert last_lines(client.get(f"/runs/{RUN}?node=add").text) is None


def test_lines_that_the_error_has_are_not_shown_again(world: World, client: TestClient) -> None:
    failed(world, message="ScriptFailed: Its last lines:\none\ntwo\n")
    world.logged[RUN] = ["one", "two"]

    assert last_lines(client.get(f"/runs/{RUN}").text) is None


@pytest.mark.parametrize("state", ["COMPLETE", "RUNNING", "STOPPED"])
def test_only_a_failed_run_shows_them(world: World, client: TestClient, state: str) -> None:
    world.exist(flow="train", state=state)
    world.logged[RUN] = ["one"]
    page = client.get(f"/runs/{RUN}").text

    assert last_lines(page) is None
    assert f'<a href="/runs/{RUN}/log">Log</a>' in page


def test_the_whole_log_is_every_line(world: World, client: TestClient) -> None:
    failed(world)
    world.logged[RUN] = [f"line {number} {HOSTILE}" for number in range(450)]
    answer = client.get(f"/runs/{RUN}/log")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text.splitlines() == world.logged[RUN]


def test_the_whole_log_of_a_script_is_its_file(world: World, client: TestClient) -> None:
    failed(world)
    world.logged[RUN] = ["one"]
    world.file("train.log", "one\ntwo\n")

    assert client.get(f"/runs/{RUN}/log").text == "one\ntwo\n"


def test_a_run_without_a_line_has_an_empty_log(world: World, client: TestClient) -> None:
    failed(world)

    assert client.get(f"/runs/{RUN}/log").text == ""


@pytest.mark.parametrize(
    ("run", "silent", "status"), [(OTHER, False, 404), ("no-id", False, 404), (RUN, True, 503)]
)
def test_a_log_that_is_not_there_is_told(
    world: World, client: TestClient, run: str, silent: bool, status: int
) -> None:
    failed(world)
    world.silent = silent

    assert client.get(f"/runs/{run}/log").status_code == status
