from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from registry.pipelines.pipeline_nodes import PipelineNode
from tests.modelyard.pages.conftest import BEGAN, OTHER, RUN, World, tracked
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import node

HOSTILE = '"><script>alert(1)</script><b>'


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")


def ran(path: str, state: str = "SUCCEEDED", kind: str = "task", **told: object) -> PipelineNode:
    return node(path, state, kind, began=BEGAN.timestamp(), ended=BEGAN.timestamp() + 2, **told)


def standing(page: str) -> str:
    return re.split("<section id=.graph", page)[0]


def details(page: str) -> str:
    return re.split("<aside", page)[1]


def test_a_run_is_shown_with_its_graph_and_its_states(world: World, client: TestClient) -> None:
    world.begin("adding", ran("add"), ran("add-2", "FAILED", reason="no luck"))
    page = client.get(f"/runs/{RUN}").text

    assert "<h1>a run</h1>" in page
    assert "RUNNING" in standing(page)
    assert "1 succeeded" in standing(page)
    assert "1 failed" in standing(page)
    assert "Failed · <tspan>2.0 s</tspan>" in page
    assert "http://prefect/" in details(page)


def test_a_node_that_is_chosen_is_told_of(world: World, client: TestClient) -> None:
    told = {
        "inputs": {"parameters": {"a": 1, "b": HOSTILE}, "artifacts": {}},
        "outputs": {"parameters": {"Output": {"deep": [1, "길"]}}, "artifacts": {}},
    }
    world.begin("adding", ran("add", "FAILED", reason=f"no {HOSTILE}", attempt=3, **told))
    page = client.get(f"/runs/{RUN}?node=add").text
    shown = details(page)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "Failed" in shown
    assert "<dt>Attempt</dt><dd>3</dd>" in shown
    assert "<dt>Took</dt><dd>2.0 s</dd>" in shown
    assert 'datetime="2026-01-02T03:04:05+00:00"' in shown
    assert "길" in shown
    assert "http://prefect/task-run-of-add" in shown
    assert page.count('chosen"') >= 1


def test_the_whole_tells_arguments_outputs_and_the_run_in_mlflow(
    world: World, client: TestClient
) -> None:
    root = PipelineNode(RUN, "", "adding", "pipeline", "SUCCEEDED",
                outputs={"parameters": {"Output": 42}, "artifacts": {}})  # fmt: skip
    world.tracked_as["m1"] = tracked()
    world.begin(
        "adding", root, ran("add"), state="COMPLETE", is_final=True, mlflow_run_id="m1",
        parameters={"arguments": {"a": 20, HOSTILE: [HOSTILE]}},
        ended=BEGAN + timedelta(seconds=9),
    )  # fmt: skip
    page = client.get(f"/runs/{RUN}").text

    assert "http://mlflow/m1" in details(page)
    assert "<pre>42</pre>" in details(page)
    assert "<pre>20</pre>" in details(page)
    assert "<script>alert" not in page
    assert 'data-going="no"' in page


def test_a_hostile_run_is_harmless(world: World, client: TestClient) -> None:
    world.begin("adding", ran("add"), ran(HOSTILE), name=HOSTILE, message=HOSTILE)
    for path in ("/", f"/runs/{RUN}", f"/runs/{RUN}?node={HOSTILE}"):
        assert "<script>alert" not in client.get(path).text


def test_a_large_value_is_cut(world: World, client: TestClient) -> None:
    held = {"parameters": {"Output": "x" * 10**6}, "artifacts": {}}
    world.begin("adding", ran("add", outputs=held))
    page = client.get(f"/runs/{RUN}?node=add").text

    assert len(page) < 50_000
    assert "(1000000 letters)" in page


def test_a_loop_lists_its_iterations_in_order(world: World, client: TestClient) -> None:
    rows = [ran("for-loop-1", "RUNNING", "loop")]
    rows += [ran(f"for-loop-1/{n}", "FAILED" if n == 11 else "SUCCEEDED", "iteration")
             for n in range(400)]  # fmt: skip
    world.begin("nested_loops", *rows)
    shown = details(client.get(f"/runs/{RUN}?node=for-loop-1").text)

    assert re.findall(r"</i>\[(\d+)\] ", shown) == [str(n) for n in range(300)]
    assert "… and 100 more." in shown
    chosen = client.get(f"/runs/{RUN}?node=for-loop-1/222").text
    assert "<h2>[222]</h2>" in chosen


def test_a_node_that_is_not_there_is_told(world: World, client: TestClient) -> None:
    world.begin("adding")
    answer = client.get(f"/runs/{RUN}?node=gone")

    assert answer.status_code == 200
    assert "There is no node gone" in answer.text


def test_a_run_that_has_not_begun_has_no_graph_yet(world: World, client: TestClient) -> None:
    world.exist(state="CREATE REQUESTED", started=None, parameters={"arguments": {"a": 1}})
    page = client.get(f"/runs/{RUN}").text

    assert "It has not begun yet." in page
    assert 'data-going="yes"' in page
    world.exist(state="CREATE FAILED", is_final=True)
    assert "It has ended before it began." in client.get(f"/runs/{RUN}").text


def test_a_page_stays_the_same_while_a_run_only_takes_longer(
    world: World, client: TestClient
) -> None:
    world.begin("adding", ran("add"), seconds=1.0)
    first = client.get(f"/runs/{RUN}")
    world.exist(ran("add"), seconds=2.0)
    held = {"if-none-match": first.headers["etag"]}

    assert client.get(f"/runs/{RUN}", headers=held).status_code == 304


def test_nothing_is_sent_where_nothing_has_changed(world: World, client: TestClient) -> None:
    world.begin("adding", ran("add"))
    first = client.get(f"/runs/{RUN}")
    held = {"if-none-match": first.headers["etag"]}

    assert client.get(f"/runs/{RUN}", headers=held).status_code == 304
    assert client.get(f"/runs/{RUN}?node=add", headers=held).status_code == 200
    world.rows[RUN].append(ran("add-2"))
    again = client.get(f"/runs/{RUN}", headers=held)
    assert again.status_code == 200
    assert again.headers["etag"] != first.headers["etag"]


def test_a_run_is_shown_while_prefect_is_silent(world: World, client: TestClient) -> None:
    world.begin("adding", ran("add"))
    world.silent = True
    answer = client.get(f"/runs/{RUN}?node=add")

    assert answer.status_code == 200
    assert "Prefect does not answer." in answer.text
    assert 'data-path="add"' in answer.text


def test_the_same_run_is_found_however_its_id_is_written(world: World, client: TestClient) -> None:
    world.begin("adding")

    assert client.get(f"/runs/{RUN.upper()}").status_code == 200
    assert client.get(f"/runs/{RUN.replace('-', '')}").status_code == 200


@pytest.mark.parametrize("run", ["none", "%2e%2e", OTHER, f"{RUN}x", "a%0ab", "%00"])
def test_an_unknown_run_is_told_with_how_to_mend_it(
    world: World, client: TestClient, run: str
) -> None:
    world.begin("adding")
    answer = client.get(f"/runs/{run}")

    assert answer.status_code == 404
    assert "modelyard runs list" in answer.text or "no such page" in answer.text


def test_a_run_of_another_flow_is_shown_without_a_graph(world: World, client: TestClient) -> None:
    world.tracked_as["m1"] = tracked(
        description=f"Why: {HOSTILE}", experiment="renamed",
        metrics={"loss": 0.1234567, "n": 3.0}, tags={"modelyard.model_uri": "models:/a b/3"},
    )  # fmt: skip
    world.exist(
        flow="train", state="FAIL TRAIN", message=f"no {HOSTILE}", mlflow_run_id="m1",
        parameters={
            "name": "x", "experiment": "former", "hyperparameters": {"lr": 0.1}, HOSTILE: HOSTILE,
            "template": None,
        },
    )  # fmt: skip
    page = client.get(f"/runs/{RUN}").text

    assert "<dt>Experiment</dt><dd>renamed</dd>" in page
    assert "<dt>Description</dt><dd>Why: &#34;&gt;&lt;script" in page
    assert "<dt>loss</dt><dd><pre>0.123457</pre>" in page
    assert "<dt>hyperparameters.lr</dt><dd><pre>0.1</pre>" in page
    assert "<dt>template</dt>" not in page
    model = "http://mlflow/#/models/a%20b/versions/3"
    for address in (
        f"http://prefect/{RUN}", "http://mlflow/m1", "http://mlflow/e1", model,
    ):  # fmt: skip
        assert f'href="{address}"' in page
    assert f"modelyard tensorboard {RUN}" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ([{"type": "int", "name": "x", "log": None, "values": []}, {"name": "y"}],
         "- {name: x, type: int}\n- {name: y}"),
        ([1, 2.5, True, None, "no", "a: b"], "[1, 2.5, true, null, 'no', 'a: b']"),
        ([{"name": "x", "values": ["a", "b"]}], "- name: x\n  values: [a, b]"),
        (["한글 🙂"], "[한글 🙂]"),
        (True, "true"),
        ("yes", "yes"),
    ],
)  # fmt: skip
def test_parameters_are_shown_as_people_write_them(
    world: World, client: TestClient, value: object, written: str
) -> None:
    world.exist(flow="tune", parameters={"asked": value, "none": None, "inner": {"none": None}})
    page = html.unescape(client.get(f"/runs/{RUN}").text)

    assert f"<dt>asked</dt><dd><pre>{written}</pre>" in page
    assert "None" not in page
    assert ">none<" not in page


@pytest.mark.parametrize(
    ("flow", "parameters", "told"),
    [
        ("train", {"experiment": "mine"}, "<dd>mine</dd>"),
        ("train", {}, "<dd>Default</dd>"),
        ("tune", {"template": "t"}, "<dd>that of the template t, or Default</dd>"),
        ("pipeline-run", {"experiment": "mine"}, "<dd>mine</dd>"),
        ("batch-inference", {}, "<dd>Default</dd>"),
        ("evaluate", {}, "<dd>Default</dd>"),
        ("pipeline-artifacts-cleanup", {}, None),
    ],
)
def test_a_run_that_has_not_begun_is_shown_with_the_experiment_that_it_names(
    world: World, client: TestClient, flow: str, parameters: dict[str, str], told: str | None
) -> None:
    asked = {**parameters, "description": "for <b>later</b>"}
    world.exist(flow=flow, state="CREATE REQUESTED", started=None, parameters=asked)
    page = client.get(f"/runs/{RUN}").text

    assert "<dd>for &lt;b&gt;later&lt;/b&gt;</dd>" in page
    assert ("<dt>Experiment</dt>" in page) == (told is not None)
    assert (told or "") in page


def test_the_page_of_a_pipeline_run_has_its_description_and_experiment(
    world: World, client: TestClient
) -> None:
    world.tracked_as["m1"] = tracked(description="nightly sums", experiment="sums")
    world.begin("adding", ran("add"), mlflow_run_id="m1", parameters={"experiment": "former"})
    shown = details(client.get(f"/runs/{RUN}").text)

    assert "<dt>Description</dt><dd>nightly sums</dd>" in shown
    assert "<dt>Experiment</dt><dd>sums</dd>" in shown
    assert 'href="http://mlflow/e1"' in shown
    assert "nightly sums" not in client.get(f"/runs/{RUN}?node=add").text


def test_a_node_is_called_as_people_call_it_and_found_by_its_path(
    world: World, client: TestClient
) -> None:
    world.begin("given_names", ran("exit-handler-1", kind="dag"), ran("exit-handler-1/add"))
    page = client.get(f"/runs/{RUN}?node=exit-handler-1/add").text

    assert "<h2>count / 세다 🎉 all</h2>" in details(page)
    assert "/ exit-handler-1 / add</p>" in details(page)
    assert "http://prefect/task-run-of-exit-handler-1/add" in details(page)
    assert 'data-path="exit-handler-1/add"' in page
    assert ">guard</text>" in page


@pytest.mark.parametrize("flow", ["train", "pipeline-run"])
def test_a_run_whose_name_is_blank_is_called_by_its_id(
    world: World, client: TestClient, flow: str
) -> None:
    world.exist(name=" ", flow=flow)

    assert f"<h1>{RUN}</h1>" in client.get(f"/runs/{RUN}").text
    assert f'<a href="/runs/{RUN}">{RUN}</a>' in client.get("/").text


def test_what_a_run_waits_for_is_told(world: World, client: TestClient) -> None:
    world.exist(state="CREATE IN PROGRESS", began=None, waiting=f"for 8 GPUs {HOSTILE}")
    page = client.get(f"/runs/{RUN}").text

    assert "It waits: for 8 GPUs" in standing(page)
    assert "<script>alert" not in page
    assert "for 8 GPUs" in client.get("/").text
    world.exist(state="RUNNING")
    assert "It waits" not in client.get(f"/runs/{RUN}").text


def test_a_run_on_another_machine_is_drawn_as_it_was_uploaded(
    world: World, client: TestClient
) -> None:
    world.uploaded = {"plain:1": corpus.compiled("adding")}
    world.exist(ran("add"), parameters={"pipeline": "plain:1"})
    page = client.get(f"/runs/{RUN}").text

    assert 'data-path="add"' in page
    assert "It has not begun yet." not in page
    world.exist(ran("add"), parameters={"pipeline": "/data/deleted.yaml"})
    assert "It has not begun yet." in client.get(f"/runs/{RUN}").text
