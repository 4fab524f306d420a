from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry import catalogue
from registry.pipelines import pipeline_nodes
from registry.pipelines.pipeline_nodes import PipelineNode


@pytest.fixture
def _catalogue(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


@pytest.mark.usefixtures("_catalogue")
def test_nodes_are_told_whole_one_by_one_and_in_brief() -> None:
    held = {"parameters": {"x": 1}, "artifacts": {}}
    first = PipelineNode("r", "a", "a", "task", "FAILED", "no luck", 2, "f", held, held, 1.0, 2.0)
    second = PipelineNode("r", "b", "b", "task", "WAITING")
    pipeline_nodes.put([second, first, PipelineNode("other", "a", "a", "task", "RUNNING")])

    assert pipeline_nodes.of("r") == [first, second]
    assert pipeline_nodes.one("r", "a") == first
    assert pipeline_nodes.one("r", "c") is None
    assert pipeline_nodes.in_brief("r") == [
        PipelineNode("r", "a", "a", "task", "FAILED", "no luck", 2, "f", {}, {}, 1.0, 2.0), second,
    ]  # fmt: skip


@pytest.mark.usefixtures("_catalogue")
def test_nodes_are_told_as_they_were_last_seen_and_can_be_forgotten() -> None:
    pipeline_nodes.put([PipelineNode("r", "a", "a", "task", "RUNNING")])
    pipeline_nodes.put([PipelineNode("r", "a", "a", "task", "SUCCEEDED")])

    assert [node.state for node in pipeline_nodes.of("r")] == ["SUCCEEDED"]
    pipeline_nodes.remove("r")
    assert pipeline_nodes.of("r") == []


@pytest.mark.usefixtures("_catalogue")
def test_the_result_has_the_names_that_people_gave() -> None:
    pipeline_nodes.put(
        [
            PipelineNode("r", "", "whole", "pipeline", "SUCCEEDED"),
            PipelineNode("r", "loop", "each day", "loop", "SUCCEEDED"),
            PipelineNode("r", "loop/0", "loop[0]", "iteration", "SUCCEEDED"),
            PipelineNode("r", "loop/0/a", "a", "task", "SUCCEEDED"),
            PipelineNode("r", "loop/0/a-2", "greet", "task", "SUCCEEDED"),
        ]
    )
    tasks = pipeline_nodes.result("r", "m")["tasks"]

    assert {task["name"]: task["title"] for task in tasks} == {
        "loop": "each day", "loop/0": "", "loop/0/a": "", "loop/0/a-2": "greet",
    }  # fmt: skip
