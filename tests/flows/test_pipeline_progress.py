"""What is shown of a pipeline run in Prefect, which is replaced by a dictionary."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows import pipeline_progress
from flows.pipeline_progress import PipelineProgress
from pipelines.artifacts import Artifact, Bundle
from pipelines.execution import NodeStatus
from pipelines.states import TaskState
from registry.pipelines.pipeline_nodes import task_run_id
from tasks.pipelines.publishing import LeafResult

RUN = str(uuid4())
URL = "http://mlflow/#/experiments/1/runs/abc?workflowType=machine_learning"


class Prefect:
    """The artifacts that there are."""

    def __init__(self) -> None:
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.broken = False

    def request(self, verb: str, _: str, json: dict[str, Any], path_params: Any = None) -> Any:
        if self.broken:
            raise OSError("away")
        key = str(path_params["id"]) if path_params else str(uuid4())
        assert (verb == "PATCH") == (key in self.artifacts)
        self.artifacts.setdefault(key, {}).update(json)
        return self

    def json(self) -> dict[str, str]:
        return {"id": list(self.artifacts)[-1]}

    def find(self, _: str, key: str) -> UUID | None:
        found = [one for one, told in self.artifacts.items() if told.get("key") == key]
        return UUID(found[0]) if found else None

    def of(self, key: str) -> dict[str, Any]:
        (found,) = [told for told in self.artifacts.values() if told.get("key") == key]
        return found

    @property
    def attached(self) -> list[tuple[str, str]]:
        return [
            (told["task_run_id"], told["data"])
            for told in self.artifacts.values()
            if "task_run_id" in told
        ]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    made = Prefect()

    @contextmanager
    def client(**_: Any) -> Iterator[Prefect]:
        yield made

    monkeypatch.setattr(pipeline_progress, "prefect_client", client)
    monkeypatch.setattr(pipeline_progress, "get_run_logger", lambda: logging.getLogger("progress"))
    monkeypatch.setattr(pipeline_progress.artifacts, "find", made.find)
    return made


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def progress(prefect: Prefect, rows: list[dict[str, Any]]) -> PipelineProgress:
    return PipelineProgress(RUN, URL, lambda: rows)


def seen(path: str, state: TaskState, kind: str = "task", **more: Any) -> NodeStatus:
    return NodeStatus(path, path.rpartition("/")[2], kind, state, **more)


def show(progress: PipelineProgress, *nodes: NodeStatus) -> None:
    with progress.shown():
        for node in nodes:
            progress.on_node_changed(node)


def test_tasks_are_a_table_with_what_matters_most_on_top(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    show(
        progress,
        seen("group", TaskState.RUNNING, "dag"),
        seen("done", TaskState.SUCCEEDED, began=5.0, ended=7.5, outputs=Bundle({"x": 1})),
        seen("waiting", TaskState.WAITING),
        seen("failed", TaskState.FAILED, began=6.0, ended=7.0, reason="It broke.", attempt=2),
        seen("branch", TaskState.SKIPPED, "dag", reason="Its condition is false."),
    )
    assert json.loads(prefect.of("tasks")["data"]) == [
        {"task": "failed", "state": "FAILED", "seconds": 1.0, "attempt": 2, "told": "It broke."},
        {"task": "waiting", "state": "WAITING", "seconds": None, "attempt": 1, "told": ""},
        {"task": "done", "state": "SUCCEEDED", "seconds": 2.5, "attempt": 1, "told": "x = 1"},
        {
            "task": "branch", "state": "SKIPPED", "seconds": None, "attempt": 1,
            "told": "Its condition is false.",
        },
    ]  # fmt: skip
    assert prefect.of("progress")["data"] == 75.0
    assert prefect.of("progress")["description"] == (
        "3 of 4 tasks done: 1 FAILED, 1 SKIPPED, 1 SUCCEEDED, 1 WAITING. 1 were retried."
    )


def test_the_table_has_the_names_that_people_gave(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    show(
        progress,
        NodeStatus("for-loop-1/0/say-3", "greet", "task", TaskState.SUCCEEDED),
        NodeStatus("for-loop-1/0", "for-loop-1[0]", "iteration", TaskState.SUCCEEDED),
    )
    (row,) = json.loads(prefect.of("tasks")["data"])
    assert row["task"] == "for-loop-1/0/say-3 (greet)"


def test_a_later_attempt_goes_on_with_the_same_artifacts(prefect: Prefect) -> None:
    for state in (TaskState.FAILED, TaskState.SUCCEEDED):
        show(PipelineProgress(RUN, URL, list, again=True), seen("a", state))
    assert json.loads(prefect.of("tasks")["data"])[0]["state"] == "SUCCEEDED"
    assert len(prefect.artifacts) == 2


def test_a_table_of_very_many_is_cut_and_says_so(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    show(progress, *(seen(f"t{n}", TaskState.SUCCEEDED) for n in range(700)))
    assert len(json.loads(prefect.of("tasks")["data"])) == 500
    assert prefect.of("tasks")["description"].endswith("The table shows 500 of them.")


def test_a_run_without_tasks_is_shown(progress: PipelineProgress, prefect: Prefect) -> None:
    show(progress)
    assert prefect.of("progress")["data"] == 0.0


def test_what_the_pipeline_hands_on_is_a_table(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    progress.over(Bundle({"Output": 0.5, "list": [1]}))
    show(progress)
    assert json.loads(prefect.of("outputs")["data"]) == [
        {"output": "Output", "value": "0.5"}, {"output": "list", "value": "[1]"},
    ]  # fmt: skip


def test_artifacts_are_a_page_with_links(
    progress: PipelineProgress, prefect: Prefect, rows: list[dict[str, Any]]
) -> None:
    rows += [
        {
            "task": "a|b", "name": "data", "type": "system.Dataset", "uri": "/x", "size": 1234,
            "mlflow": "artifacts/a b/data",
        },
        {"task": "c", "name": "m", "type": "system.Model", "uri": "s3://b/<k>", "size": None,
         "mlflow": None},
    ]  # fmt: skip
    show(progress)
    assert prefect.of("artifacts")["data"].splitlines()[2:] == [
        r"| a\|b | data | Dataset | 1,234 | [artifacts/a b/data]"
        "(http://mlflow/#/experiments/1/runs/abc/artifacts/artifacts/a%20b/data"
        "?workflowType=machine_learning) |",
        "| c | m | Model |  | `s3://b/&lt;k>` |",
    ]


def test_a_page_of_very_many_artifacts_is_cut(
    progress: PipelineProgress, prefect: Prefect, rows: list[dict[str, Any]]
) -> None:
    row = {"task": "a", "name": "b", "type": "t", "uri": "/x", "size": 1, "mlflow": None}
    rows += [row] * 300
    show(progress)
    lines = prefect.of("artifacts")["data"].splitlines()
    assert lines[-1] == "100 more are in `artifacts.json` in MLflow."


def ended(path: str = "a", kept: bool = False, **artifacts: Artifact) -> LeafResult:
    return LeafResult(path, Bundle({"x": 1}, artifacts), kept)


def test_what_a_task_hands_on_is_attached_to_its_task_run(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    found = Artifact("run/a/data", "/x", "system.Dataset", metadata={"rows": 3})
    progress.add_outputs(ended(data=found))
    show(progress)
    ((run, page),) = prefect.attached
    assert run == str(task_run_id(RUN, "a"))
    assert "| x | `1` |" in page
    assert '| data | system.Dataset | `/x` | `{"rows": 3}` |' in page


def test_short_parameters_alone_are_told_by_the_state(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    progress.add_outputs(ended())
    progress.add_outputs(LeafResult("b", Bundle({"long": "x" * 1000})))
    progress.add_outputs(LeafResult("nothing", Bundle()))
    show(progress)
    assert [run for run, _ in prefect.attached] == [str(task_run_id(RUN, "b"))]


def test_what_an_earlier_attempt_has_shown_is_not_shown_again(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    progress.add_outputs(ended(kept=True, data=Artifact("a/data", "/x")))
    show(progress)
    assert prefect.attached == []


def test_a_report_is_read_where_the_task_is(
    progress: PipelineProgress, prefect: Prefect, tmp_path: Path
) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"# It went *well*\n\xff")
    progress.add_outputs(ended(text=Artifact("a/text", str(path), "system.Markdown")))
    progress.add_outputs(ended("b", text=Artifact("b/text", "/gone", "system.Markdown")))
    show(progress)
    assert [page for _, page in prefect.attached][
        1
    ] == "# It went *well*\n\N{REPLACEMENT CHARACTER}"
    assert len(prefect.attached) == 3


@pytest.mark.parametrize("text", ["a|b", "a\\|b", "a\\\\|b", "|", "a\\", "a | b\\"])
def test_a_bar_does_not_end_a_cell(text: str) -> None:
    outputs = Bundle({text: text}, {"x": Artifact(text, text, "system.Model", {"k": text})})
    artifact = {
        "task": text, "name": text, "type": text, "size": 1, "mlflow": text, "uri": text
    }  # fmt: skip
    pages = [
        pipeline_progress.outputs_page(LeafResult("a", outputs)),
        pipeline_progress.artifacts_page([artifact, {**artifact, "mlflow": None}], "http://x?a"),
    ]
    for page in pages:
        for table in page.split("\n\n"):
            # An odd number of backslashes escapes a bar, wherever it stands (GitHub's rules).
            cells = [
                len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.strip().splitlines()
            ]
            assert len(set(cells)) == 1, table


def test_pages_are_bounded(progress: PipelineProgress, prefect: Prefect, tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("x" * 1_000_000)
    progress.add_outputs(
        LeafResult(
            "a",
            Bundle(
                {f"p{n}": "y" * 10_000 for n in range(1000)},
                {"text": Artifact("a/text", str(path), "system.Markdown")},
            ),
        )
    )
    show(progress)
    pages = [page for _, page in prefect.attached]
    assert len(pages[0]) <= 20_000
    assert 200_000 < len(pages[1]) < 200_100


def test_no_more_task_runs_than_so_many_get_one(
    progress: PipelineProgress, prefect: Prefect
) -> None:
    for number in range(300):
        progress.add_outputs(ended(f"t{number}", data=Artifact("x", "/x")))
    show(progress)
    assert len(prefect.attached) == 200


def test_a_prefect_that_is_away_ends_nothing(
    progress: PipelineProgress, prefect: Prefect, caplog: pytest.LogCaptureFixture
) -> None:
    prefect.broken = True
    show(progress, seen("a", TaskState.SUCCEEDED))
    assert "could not be shown" in caplog.text
