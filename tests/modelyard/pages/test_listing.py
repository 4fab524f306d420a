from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from infra.errors import StackError
from modelyard.pages import listing
from modelyard.pages.listing import Ref
from pipelines import reading
from registry.pipelines.pipeline_views import PipelineSummaryView
from tests.modelyard.pages.conftest import RUN, World
from tests.pipelines import corpus

HOSTILE = '"><script>alert(1)</script>\n'


def row(name: str, version: int = 1, state: str = "ACTIVE", **told: str) -> PipelineSummaryView:
    then = datetime(2026, 1, 2, tzinfo=UTC)
    given = {"description": "", "error": "", **told}
    return PipelineSummaryView(
        name=name, version=version, state=state, version_count=version,
        created=then, created_by="me", changed=then, changed_by="me", **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "ref"),
    [
        ("squares:2", Ref("squares:2", "/pipelines/squares?version=2")),
        ("squares", Ref("squares", "/pipelines/squares")),
        ("a b+c:10", Ref("a b+c:10", "/pipelines/a%20b%2Bc?version=10")),
        ("모델:1", Ref("모델:1", "/pipelines/%EB%AA%A8%EB%8D%B8?version=1")),
        ("/data/sums.yaml", Ref("sums.yaml", "", "/data/sums.yaml")),
        ("sums.zip", Ref("sums.zip", "", "sums.zip")),
        ("", Ref("")),
    ],
)
def test_a_runs_pipeline_is_a_link_to_its_version_or_a_file(told: str, ref: Ref) -> None:
    assert listing.ref(told) == ref


def test_the_first_page_tells_what_each_run_runs(world: World, client: TestClient) -> None:
    world.exist(parameters={"pipeline": "squares:2"})
    world.exist(parameters={"pipeline": f"/deep/{HOSTILE}.yaml"}, run="x")
    page = client.get("/").text

    assert '<td><a href="/pipelines/squares?version=2">squares:2</a></td>' in page
    assert "<script>alert" not in page


def test_the_first_page_lists_the_uploaded_pipelines(world: World, client: TestClient) -> None:
    world.listed = [
        row("squares", 3, description=f"Sums of {HOSTILE}"),
        row("broken", state="CREATE FAILED", error="Prefect was away."),
    ]
    page = client.get("/").text

    assert '<a href="/pipelines/squares?version=3">squares</a>' in page
    assert "Sums of &#34;&gt;&lt;script&gt;" in page
    assert 'data-state="CREATE FAILED"' in page
    assert "Prefect was away." in page
    assert "Uploaded pipelines (2)" in page


def test_the_first_page_says_how_to_upload(client: TestClient) -> None:
    assert "modelyard pipeline upload FILE.yaml" in client.get("/").text


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
    assert "The catalogue&#39;s database does not answer." in answer.text
    assert "pipeline upload" not in answer.text
    assert "mine" in answer.text


def test_pipelines_are_listed_while_prefect_is_silent(world: World, client: TestClient) -> None:
    world.listed = [row("squares")]
    world.silent = True
    page = client.get("/").text

    assert "Prefect does not answer." in page
    assert "/pipelines/squares?version=1" in page


def test_the_inputs_of_a_pipeline_are_told_as_its_form_has_them() -> None:
    conditions = reading.read_bytes(corpus.compiled("conditions"), "p.yaml")
    known = {one.name: (one.type, one.default, one.required) for one in listing.inputs(conditions)}

    assert known == {
        "number": ("integer", "1", False), "text": ("string", "it's", False),
        "flag": ("boolean", "true", False), "ratio": ("number", "0.5", False),
    }  # fmt: skip


def test_an_input_is_told_with_its_type_and_whether_it_must_be_given() -> None:
    read = reading.read_bytes(corpus.compiled("given_names"), "p.yaml")
    declared = read.spec.root.input_definitions
    declared.parameters["days"].description = "Which\ndays."
    declared.parameters["mode"].parameter_type = 3
    declared.parameters["mode"].is_optional = True
    empty = declared.parameters["word"]
    empty.parameter_type = 3
    empty.default_value.string_value = ""
    declared.artifacts["data"].artifact_type.schema_title = "system.Dataset"

    assert listing.inputs(read) == [
        listing.Input("data", "artifact", None, True, "The address of a system.Dataset."),
        listing.Input("days", "list", None, True, "Which days."),
        listing.Input("mode", "string", None, False, ""),
        listing.Input("word", "string", '""', False, ""),
    ]


def test_the_page_of_a_pipeline_has_its_inputs(world: World, client: TestClient) -> None:
    world.uploaded = {
        "plain": corpus.compiled("conditions"), "days:2": corpus.compiled("given_names"),
    }  # fmt: skip
    plain = client.get("/pipelines/plain").text
    days = client.get("/pipelines/days?version=2").text

    assert '<dt>number <span class="about">integer</span></dt>' in plain
    assert "<pre>it&#39;s</pre>" in plain
    assert '<dt>days <span class="about">list, required</span></dt>' in days
    assert "<h1>days:2</h1>" in days
    assert "<dt>days " not in client.get("/pipelines/days?version=2&node=echo").text


def test_the_page_of_a_run_leads_to_its_pipeline(world: World, client: TestClient) -> None:
    world.begin("adding", parameters={"pipeline": "squares:2"})

    assert (
        '<a href="/pipelines/squares?version=2">squares:2</a>' in client.get(f"/runs/{RUN}").text
    )
