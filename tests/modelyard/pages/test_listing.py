from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from modelyard.pages import listing
from modelyard.pages.listing import Ref
from pipelines import reading
from tests.modelyard.pages.conftest import RUN, World
from tests.pipelines import corpus


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


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "ScriptFailed: The script failed (exit code 1). Its last lines:\nTraceback:\n"
            "  File x\nKeyError: 'x'\n\nThe whole log is s3://x.",
            "ScriptFailed: KeyError: 'x'",
        ),
        ("ScriptFailed: odd", "ScriptFailed: odd"),
        ("DataMissing: There is none:\ns3://x", "DataMissing: There is none:\ns3://x"),
    ],
)
def test_a_script_is_quoted_by_its_last_line(message: str, told: str) -> None:
    assert listing.last_words(message) == told
