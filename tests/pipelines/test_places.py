"""Where nodes are, told from their paths."""

from __future__ import annotations

import pytest

from pipelines import reading
from pipelines.places import Places
from tests.pipelines import corpus


def places(name: str) -> Places:
    return Places(reading.read_bytes(corpus.compiled(name), "pipeline.yaml"))


@pytest.fixture
def shown() -> Places:
    return places("shown")


def test_a_task_beside_others_waits_for_them_and_is_in_no_group(shown: Places) -> None:
    spot = shown.of("report")
    assert spot is not None
    assert (spot.group, spot.after) == ("", ("measure",))
    assert (spot.names, spot.iterations) == (("report",), ())


def test_a_task_of_a_nested_pipeline_is_in_its_group(shown: Places) -> None:
    spot = shown.of("inner/read")
    assert spot is not None
    assert (spot.group, spot.after) == ("inner", ("inner/write",))
    assert spot.names == ("inner", "read")


def test_an_iteration_with_one_task_is_that_task(shown: Places) -> None:
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
def test_what_is_not_in_the_pipeline_is_nowhere(shown: Places, path: str) -> None:
    assert shown.of(path) is None


def test_tasks_of_a_name_are_counted_wherever_they_are(shown: Places) -> None:
    assert [shown.times(name) for name in ("measure", "fit", "write", "inner", "none")] == [
        1, 1, 1, 0, 0,
    ]  # fmt: skip


def test_outputs_of_a_type_are_found(shown: Places) -> None:
    spot = shown.of("measure")
    assert spot is not None
    assert sorted(shown.outputs(spot.component, "system.Metrics")) == ["more", "scores"]
