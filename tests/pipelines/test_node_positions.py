"""Where nodes are, told from their paths."""

from __future__ import annotations

import pytest

from pipelines import reading
from pipelines.node_positions import NodePositions
from tests.pipelines import corpus


def places(name: str) -> NodePositions:
    return NodePositions(reading.read_bytes(corpus.compiled(name), "pipeline.yaml"))


@pytest.fixture
def shown() -> NodePositions:
    return places("shown")


def test_a_task_beside_others_waits_for_them_and_is_in_no_group(shown: NodePositions) -> None:
    spot = shown.of("report")
    assert spot is not None
    assert (spot.group, spot.after) == ("", ("measure",))
    assert (spot.names, spot.iterations) == (("report",), ())


def test_a_task_of_a_nested_pipeline_is_in_its_group(shown: NodePositions) -> None:
    spot = shown.of("inner/read")
    assert spot is not None
    assert (spot.group, spot.after) == ("inner", ("inner/write",))
    assert spot.names == ("inner", "read")


def test_an_iteration_with_one_task_is_that_task(shown: NodePositions) -> None:
    iteration, task = shown.of("for-loop-1/2"), shown.of("for-loop-1/2/fit")
    assert iteration is not None
    assert task is not None
    assert iteration.only
    assert (task.group, task.iterations, task.only) == ("for-loop-1", (2,), False)


def test_an_iteration_of_a_loop_alone_is_that_loop() -> None:
    loops = places("nested_loops")
    outer, inner = loops.of("for-loop-1/4"), loops.of("for-loop-1/4/for-loop-3")
    assert outer is not None
    assert (outer.group, outer.only) == ("for-loop-1", True)  # it holds the inner loop only
    assert inner is not None
    assert inner.group == "for-loop-1"


@pytest.mark.parametrize(
    "path", ["", "nothing", "inner/nothing", "measure/0", "for-loop-1/x", "for-loop-1/0/fit/more"]
)
def test_what_is_not_in_the_pipeline_is_nowhere(shown: NodePositions, path: str) -> None:
    assert shown.of(path) is None


def test_tasks_of_a_name_are_counted_wherever_they_are(shown: NodePositions) -> None:
    assert [shown.times(name) for name in ("measure", "fit", "write", "inner", "none")] == [
        1, 1, 1, 0, 0,
    ]  # fmt: skip


def test_outputs_of_a_type_are_found(shown: NodePositions) -> None:
    spot = shown.of("measure")
    assert spot is not None
    assert sorted(shown.outputs(spot.component, "system.Metrics")) == ["more", "scores"]


def test_the_name_that_people_gave_is_told_beside_the_path() -> None:
    named = places("given_names")
    titles = {
        path: spot.title
        for path in (
            "exit-handler-1", "exit-handler-1/add", "exit-handler-1/for-loop-3",
            "exit-handler-1/for-loop-3/0", "exit-handler-1/for-loop-3/0/add-2",
            "exit-handler-1/for-loop-3/0/add-3",
        )
        if (spot := named.of(path))
    }  # fmt: skip
    assert titles == {
        "exit-handler-1": "guard", "exit-handler-1/add": "count / 세다 🎉 all",
        "exit-handler-1/for-loop-3": "each day", "exit-handler-1/for-loop-3/0": "",
        "exit-handler-1/for-loop-3/0/add-2": "per day", "exit-handler-1/for-loop-3/0/add-3": "",
    }  # fmt: skip
