"""The first page: what is newest of every kind, whichever source answers."""

from __future__ import annotations

import html
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from infra.errors import StackError
from infra.mlflow import ModelVersion, RegisteredModel
from modelyard.tensorboards import TensorBoard
from registry.pipelines.pipeline_views import PipelineSummaryView
from schedules.views import ScheduleView
from tests.modelyard.pages.conftest import OTHER, RUN, World

HOSTILE = '"><script>alert(1)</script>\n'


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")


def pipeline(
    name: str, version: int = 1, state: str = "ACTIVE", **told: str
) -> PipelineSummaryView:
    then = datetime(2026, 1, 2, tzinfo=UTC)
    given = {"description": "", "error": "", **told}
    return PipelineSummaryView(
        name=name, version=version, state=state, version_count=version,
        created=then, created_by="me", changed=then, changed_by="me", **given,
    )  # fmt: skip


def schedule(name: str, state: str = "ENABLED", **told: str | None) -> ScheduleView:
    given = {"detail": "", "deployment": "train", "when": "every 1h", "timezone": "UTC"}
    kept = {"next_slot": None, "deleted": None}
    return ScheduleView(id=name, name=name, state=state, **{**given, **kept, **told})  # type: ignore[arg-type]


def model(name: str, *versions: str, status: str = "READY", **told: object) -> RegisteredModel:
    made = tuple(ModelVersion(name, one, status, "", "", "", {}, None) for one in versions)
    facts = {"description": "", "tags": {}, "aliases": {}, **told}
    return RegisteredModel(
        name, latest_versions=made, creation_timestamp=None, last_updated_timestamp=0, **facts
    )  # type: ignore[arg-type]


def section(page: str, name: str) -> str:
    """The section of the page below a heading."""
    found = re.search(f'<section aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_runs_of_every_kind_are_listed_with_their_states(world: World, client: TestClient) -> None:
    world.exist(name="<b>mine</b>", state="FAIL PIPELINE RUN", detail="Crashed",
                message=f"no luck {HOSTILE}", parameters={"pipeline": "squares:2"})  # fmt: skip
    world.exist(name="a training", flow="train", run=OTHER, waiting="for 8 GPUs")
    world.exist(name="a user's own", flow="etl", state="COMPLETE", run="x", message="told not")
    shown = section(client.get("/").text, "runs")

    assert f'<a href="/runs/{RUN}">&lt;b&gt;mine&lt;/b&gt;</a>' in shown
    assert 'data-state="FAIL PIPELINE RUN"' in shown
    assert "Crashed" in shown
    assert "no luck &#34;&gt;&lt;script" in shown
    assert '<a href="/pipelines/squares?version=2">squares:2</a>' in shown
    assert f'<a href="/runs/{OTHER}">a training</a>' in shown
    assert "for 8 GPUs" in shown
    assert f'href="http://prefect/{OTHER}"' in shown
    assert "etl" in shown
    assert "told not" not in shown


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/", {"p", "t", "done", "broken"}),
        ("/?show=train", {"t", "done"}),
        ("/?show=tune", set()),
        ("/?state=active", {"p", "t"}),
        ("/?state=running", {"p"}),
        ("/?state=failed", {"broken"}),
        ("/?state=complete", {"done"}),
        ("/?show=train&state=active", {"t"}),
        ("/?show=train&state=failed", set()),
    ],
)
def test_runs_of_a_kind_and_in_a_state_can_be_chosen(
    world: World, client: TestClient, address: str, names: set[str]
) -> None:
    world.exist(name="p")
    world.exist(name="t", flow="train", run=OTHER, state="CREATE REQUESTED")
    world.exist(name="done", flow="train", run="x", is_final=True, state="COMPLETE")
    world.exist(name="broken", run="y", is_final=True, state="FAIL PIPELINE RUN")
    page = client.get(address).text

    assert set(re.findall(r'<a href="/runs/[^"]*">(\w+)</a>', page)) == names
    assert "Active (2)</a>" in page
    marked = re.findall(r'<a href="([^"]*)" aria-current="true"', page)
    assert [html.unescape(one) for one in marked] == [address, address]


def test_another_choice_keeps_the_rest_of_it(client: TestClient) -> None:
    page = html.unescape(client.get("/?show=train&state=failed").text)

    for address in ("/?state=failed", "/?show=tune&state=failed", "/?show=train",
                    "/?show=train&state=stopped"):  # fmt: skip
        assert f'href="{address}"' in page
    assert "There are no failed runs of train." in page


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ({"show": HOSTILE}, "pipeline-run"), ({"state": HOSTILE}, "failed"),
        ({"page": HOSTILE}, "1 to 400"), ({"page": "0"}, "1 to 400"), ({"page": "401"}, "1 to"),
        ({"page": "01"}, "1 to"),
    ],
)  # fmt: skip
def test_a_choice_that_there_is_not_is_refused(
    client: TestClient, asked: dict[str, str], known: str
) -> None:
    answer = client.get("/", params=asked)

    assert answer.status_code == 404
    assert "<script>alert" not in answer.text
    assert known in answer.text


def test_older_runs_are_on_further_pages_of_the_same_choice(
    world: World, client: TestClient
) -> None:
    for number in range(60):
        world.exist(name=f"r{number}", run=str(uuid.uuid4()))

    def names(page: str) -> list[str]:
        return re.findall(r'<a href="/runs/[^"]*">(\w+)</a>', page)

    first = html.unescape(client.get("/?show=pipeline-run&state=running").text)
    assert 'rel="next" href="/?show=pipeline-run&state=running&page=2"' in first
    assert 'rel="prev"' not in first
    last = html.unescape(client.get("/?show=pipeline-run&state=running&page=3").text)
    assert 'rel="prev" href="/?show=pipeline-run&state=running&page=2"' in last
    assert 'rel="next"' not in last
    assert names(last) == [f"r{number}" for number in range(50, 60)]
    assert names(first)[0] == "r0"
    assert "There are no older runs." in client.get("/?page=4").text


def test_each_list_is_bounded_and_leads_to_more(world: World, client: TestClient) -> None:
    for _ in range(40):
        world.exist(run=str(uuid.uuid4()))
    world.scheduled = [schedule(f"s{n}") for n in range(40)]
    world.registered = [model(f"m{n}", "1") for n in range(40)]
    world.listed = [pipeline(f"p{n}") for n in range(40)]
    page = client.get("/").text

    rows = {one: section(page, one).count("<tr") - 1
            for one in ("runs", "schedules", "models", "pipelines")}  # fmt: skip
    assert rows == {"runs": 25, "schedules": 10, "models": 10, "pipelines": 10}
    assert 'href="http://prefect/runs"' in section(page, "runs")
    assert "modelyard schedule list" in section(page, "schedules")
    assert 'href="http://mlflow/#/models"' in section(page, "models")
    assert "modelyard pipeline list" in section(page, "pipelines")


def test_schedules_are_listed_with_when_they_run_next(world: World, client: TestClient) -> None:
    world.scheduled = [
        schedule(f"nightly{HOSTILE}", when="0 2 * * *", timezone="Asia/Seoul",
                 next_slot="2026-01-02T17:00:00Z"),
        schedule("stopped", "DISABLED", detail=HOSTILE),
    ]  # fmt: skip
    shown = section(client.get("/").text, "schedules")

    assert '<a href="/schedules/stopped">stopped</a>' in shown
    assert 'datetime="2026-01-02T17:00:00+00:00"' in shown
    assert "Asia/Seoul" in shown
    assert 'data-state="DISABLED"' in shown
    assert "<script>alert" not in shown
    assert shown.count("every 1h") == 1


def test_every_time_has_its_zone(world: World, client: TestClient) -> None:
    world.exist(created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    world.scheduled = [schedule("nightly", next_slot="2026-01-02T17:00:00Z")]
    times = re.findall("<time [^>]*>([^<]*)</time>", client.get("/").text)

    assert len(times) == 2
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", one) for one in times)


def test_models_are_listed_with_their_newest_version(world: World, client: TestClient) -> None:
    world.registered = [
        model("a b/c", "2", "10", aliases={"production": "2"}, description=HOSTILE),
        model(HOSTILE, "1", status="FAILED_REGISTRATION"),
        model("empty"),
    ]
    shown = section(client.get("/").text, "models")

    assert 'href="http://mlflow/#/models/a%20b%2Fc"' in shown
    assert ">10</td>" in shown
    assert "production → 2" in shown
    assert re.findall(r'data-state="([^"]*)"', shown) == [
        "ACTIVE", "CREATE FAILED", "CREATE REQUESTED",
    ]  # fmt: skip
    assert "<script>alert" not in shown


def test_a_model_leads_to_the_run_that_made_it(world: World, client: TestClient) -> None:
    tags = {"modelyard.flow_run_id": RUN}
    version = ModelVersion("m", "1", "READY", "", "", "", tags, None)
    world.registered = [replace(model("m"), latest_versions=(version,)), model("foreign", "1")]
    shown = section(client.get("/").text, "models")

    assert shown.count(f'<a href="/runs/{RUN}" aria-label="Run that made m">') == 1
    assert shown.count("Run that made") == 1


def test_the_uploaded_pipelines_are_listed(world: World, client: TestClient) -> None:
    world.listed = [
        pipeline("squares", 3, description=f"Sums of {HOSTILE}"),
        pipeline("broken", state="CREATE FAILED", error="Prefect was away."),
    ]
    shown = section(client.get("/").text, "pipelines")

    assert '<a href="/pipelines/squares?version=3">squares</a>' in shown
    assert "Sums of &#34;&gt;&lt;script&gt;" in shown
    assert 'data-state="CREATE FAILED"' in shown
    assert "Prefect was away." in shown


def test_the_tensorboards_that_run_are_linked(world: World, client: TestClient) -> None:
    assert "modelyard tensorboard" in section(client.get("/").text, "tensorboard")

    world.boards = [TensorBoard(f"digits{HOSTILE}", "http://127.0.0.1:6006/")]
    shown = section(client.get("/").text, "tensorboard")
    assert '<a href="http://127.0.0.1:6006/">digits&#34;&gt;&lt;script' in shown


def test_every_page_leads_to_prefect_and_mlflow(world: World, client: TestClient) -> None:
    world.begin("adding")
    for path in ("/", f"/runs/{RUN}", "/nowhere"):
        page = client.get(path).text
        assert '<a href="http://prefect">Prefect</a>' in page
        assert '<a href="http://mlflow/#/">MLflow</a>' in page


def test_an_empty_page_says_how_to_begin(client: TestClient) -> None:
    page = client.get("/").text

    for how in ("modelyard demo", "modelyard schedule create NAME", "EM_MODEL_DIR",
                "modelyard pipeline upload FILE.yaml"):  # fmt: skip
        assert how in page
    assert "There are no active runs." in client.get("/?state=active").text


@pytest.mark.parametrize(
    "error",
    [OperationalError("select 1", {}, OSError("away")), StackError("No database is named.")],
)
def test_runs_are_listed_while_the_catalogue_is_silent(
    world: World, client: TestClient, error: Exception
) -> None:
    world.exist(name="mine")
    world.broken = error
    answer = client.get("/")

    assert answer.status_code == 200
    for name in ("schedules", "pipelines"):
        assert f"{name} are not shown." in section(answer.text, name)
    assert "pipeline upload" not in answer.text
    assert "mine" in answer.text


def test_the_catalogue_is_listed_while_prefect_is_silent(world: World, client: TestClient) -> None:
    world.listed = [pipeline("squares")]
    world.scheduled = [schedule("nightly")]
    world.silent = True
    page = client.get("/").text

    assert "Prefect does not answer." in section(page, "runs")
    assert "Active</a>" in page
    assert "nightly" in page
    assert "/pipelines/squares?version=1" in page


def test_each_table_is_one_to_a_screen_reader_at_any_width(
    world: World, client: TestClient
) -> None:
    world.exist()
    world.scheduled, world.registered = [schedule("s")], [model("m", "1")]
    world.listed = [pipeline("p")]
    page = client.get("/").text

    tables = re.findall(r'<table[^>]*role="table">(.*?)</table>', page, re.DOTALL)
    assert len(tables) == 4
    for table in tables:
        assert re.match(r"\s*<caption>[^<]+</caption>", table)
        columns = re.findall(r'<th scope="col" role="columnheader">([^<]+)</th>', table)
        assert re.findall(r'<td role="cell" data-label="([^"]+)"', table) == columns
    assert re.findall(r"<h(\d)", page) == ["1", "2", "2", "2", "2", "2"]
