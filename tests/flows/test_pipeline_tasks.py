"""The nodes of a pipeline run as Prefect is told of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.states import Running

from flows import pipeline_tasks
from flows.pipeline_tasks import TaskRuns, has_whole_line, outputs_line, state_of
from pipelines import reading
from pipelines.artifacts import Bundle
from pipelines.execution import NodeStatus
from pipelines.node_positions import NodePositions
from pipelines.states import TaskResult, TaskState
from registry.pipelines.pipeline_nodes import task_run_id
from tests.pipelines import corpus

RUN = str(uuid4())
PLACES = NodePositions(reading.read_bytes(corpus.compiled("shown"), "pipeline.yaml"))


class Prefect:
    """What Prefect was told, in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.broken = False

    def emit(self, **event: Any) -> None:
        if self.broken:
            raise OSError("away")
        run = event["task_run"].model_copy(deep=True)
        self.events.append({**event, "task_run": run})

    def states(self, path: str) -> list[str]:
        return [
            event["validated_state"].name
            for event in self.events
            if event["task_run"].name == path
        ]

    def last(self, path: str) -> Any:
        return [one["task_run"] for one in self.events if one["task_run"].name == path][-1]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    made = Prefect()
    monkeypatch.setattr(pipeline_tasks, "emit_task_run_state_change_event", made.emit)
    return made


@pytest.fixture
def runs(prefect: Prefect) -> Iterator[TaskRuns]:
    made = TaskRuns(RUN, PLACES, 4)
    yield made
    made.close()


def seen(path: str, state: TaskState, kind: str = "task", **more: Any) -> NodeStatus:
    return NodeStatus(path, path.rpartition("/")[2], kind, state, **more)


def test_a_task_begins_and_ends(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("measure", TaskState.WAITING))
    runs.on_node_changed(seen("measure", TaskState.RUNNING))
    runs.on_node_changed(seen("measure", TaskState.SUCCEEDED, outputs=Bundle({"Output": 0.5})))
    runs.close()
    assert prefect.states("measure") == ["Running", "Completed"]
    run, state = prefect.last("measure"), prefect.events[-1]["validated_state"]
    assert run.id == task_run_id(RUN, "measure") == state.state_details.task_run_id
    assert str(run.flow_run_id) == RUN
    assert run.start_time < run.end_time
    assert run.total_run_time == run.end_time - run.start_time
    assert state.message == "Output = 0.5"
    assert prefect.events[-1]["initial_state"].name == "Running"


@pytest.mark.parametrize(
    ("state", "name", "kind"),
    [
        (TaskState.SUCCEEDED, "Completed", "COMPLETED"),
        (TaskState.CACHED, "Cached", "COMPLETED"),
        (TaskState.SKIPPED, "Skipped", "COMPLETED"),
        (TaskState.FAILED, "Failed", "FAILED"),
        (TaskState.OMITTED, "Omitted", "CANCELLED"),
        (TaskState.CANCELLED, "Cancelled", "CANCELLED"),
    ],
)
def test_each_end_has_its_word(
    runs: TaskRuns, prefect: Prefect, state: TaskState, name: str, kind: str
) -> None:
    runs.on_node_changed(seen("measure", state, reason="for a reason"))
    runs.close()
    (event,) = prefect.events
    found = event["validated_state"]
    assert (found.name, found.type.value) == (name, kind)
    assert "for a reason" in found.message
    assert event["task_run"].start_time == event["task_run"].end_time  # else it looks as running


def test_every_state_of_a_task_has_a_word() -> None:
    for state in TaskState:
        told = state_of(seen("measure", state))
        assert (told is None) == (state == TaskState.WAITING)


def test_what_is_tried_again_is_one_task_run(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("measure", TaskState.RUNNING))
    runs.on_node_changed(seen("measure", TaskState.WAITING, attempt=2))
    runs.on_node_changed(seen("measure", TaskState.RUNNING, attempt=2))
    runs.on_node_changed(seen("measure", TaskState.SUCCEEDED, attempt=2))
    runs.close()
    assert prefect.states("measure") == ["Running", "AwaitingRetry", "Retrying", "Completed"]
    assert prefect.last("measure").run_count == 2
    stamps = [event["validated_state"].timestamp for event in prefect.events]
    assert stamps == sorted(set(stamps))


def test_states_of_one_instant_stay_in_their_order(
    runs: TaskRuns, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = Running().timestamp
    real = pipeline_tasks.state_of

    def at_once(node: NodeStatus) -> Any:
        state = real(node)
        assert state is not None
        state.timestamp = instant
        return state

    monkeypatch.setattr(pipeline_tasks, "state_of", at_once)
    runs.on_node_changed(seen("measure", TaskState.RUNNING))
    runs.on_node_changed(seen("measure", TaskState.SUCCEEDED))
    runs.close()
    first, last = (event["validated_state"].timestamp for event in prefect.events)
    assert first < last  # Prefect drops what is not newer than what it has


def test_a_retry_of_the_run_goes_on_with_the_same_task_run(
    runs: TaskRuns, prefect: Prefect
) -> None:
    runs.on_node_changed(seen("measure", TaskState.FAILED))
    runs.close()
    again = TaskRuns(RUN, PLACES, 4)
    again.on_node_changed(seen("measure", TaskState.RUNNING))
    again.close()
    assert len({event["task_run"].id for event in prefect.events}) == 1


def inputs(run: Any) -> dict[str, list[Any]]:
    return {name: [one.id for one in given] for name, given in run.task_inputs.items()}


def test_edges_lead_to_what_a_task_waits_for(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("report", TaskState.RUNNING))
    runs.close()
    assert inputs(prefect.last("report")) == {"after": [task_run_id(RUN, "measure")]}


def test_groups_are_parents_and_say_what_they_are(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("inner", TaskState.RUNNING, "dag"))
    runs.on_node_changed(seen("inner/read", TaskState.RUNNING))
    runs.on_node_changed(seen("inner", TaskState.SUCCEEDED, "dag"))
    runs.close()
    assert prefect.states("inner") == ["Running", "Completed"]
    assert prefect.last("inner").tags == ["dag"]
    assert inputs(prefect.last("inner/read")) == {
        "__parents__": [task_run_id(RUN, "inner")], "after": [task_run_id(RUN, "inner/write")],
    }  # fmt: skip
    assert prefect.last("inner/read").tags == []  # a tag would have Prefect ask for its limit


def test_a_task_run_is_called_by_its_path_and_the_name_that_people_gave(prefect: Prefect) -> None:
    places = NodePositions(reading.read_bytes(corpus.compiled("given_names"), "pipeline.yaml"))
    runs = TaskRuns(RUN, places, 4)
    paths = {
        "exit-handler-1": "exit-handler-1 (guard)",
        "exit-handler-1/for-loop-3/1": "exit-handler-1/for-loop-3/1",
        "exit-handler-1/for-loop-3/1/add-2": "exit-handler-1/for-loop-3/1/add-2 (per day)",
        "exit-handler-1/for-loop-3/1/add-3": "exit-handler-1/for-loop-3/1/add-3",
    }
    for path in paths:
        runs.on_node_changed(seen(path, TaskState.RUNNING))
    runs.close()
    told = {event["task_run"].dynamic_key: event["task_run"] for event in prefect.events}
    assert {path: run.name for path, run in told.items()} == paths
    assert {path: run.id for path, run in told.items()} == {
        path: task_run_id(RUN, path) for path in paths
    }


def test_an_iteration_of_one_task_is_no_group(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("for-loop-1/0", TaskState.RUNNING, "iteration"))
    runs.on_node_changed(seen("for-loop-1/0/fit", TaskState.RUNNING))
    runs.close()
    assert prefect.states("for-loop-1/0") == []
    parent = task_run_id(RUN, "for-loop-1")
    assert inputs(prefect.last("for-loop-1/0/fit")) == {"__parents__": [parent]}


def test_the_pipeline_itself_is_the_flow_run(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("", TaskState.SUCCEEDED, "pipeline"))
    runs.close()
    assert prefect.events == []


def test_what_an_interrupted_run_leaves_is_cancelled(runs: TaskRuns, prefect: Prefect) -> None:
    runs.on_node_changed(seen("inner", TaskState.RUNNING, "dag"))
    runs.close()
    assert prefect.states("inner") == ["Running", "Cancelled"]


def test_a_prefect_that_is_away_ends_nothing(runs: TaskRuns, prefect: Prefect) -> None:
    prefect.broken = True
    runs.on_node_changed(seen("measure", TaskState.RUNNING))
    future = runs.submit(lambda: TaskResult(TaskState.SUCCEEDED))
    assert future.result(30).state == TaskState.SUCCEEDED
    runs.close()


def test_leaves_run_at_once(runs: TaskRuns) -> None:
    both = threading.Barrier(2, timeout=30)

    def wait() -> TaskResult:
        both.wait()
        return TaskResult(TaskState.SUCCEEDED)

    futures = [runs.submit(wait) for _ in range(2)]
    assert [future.result(30).state for future in futures] == [TaskState.SUCCEEDED] * 2


def test_lines_are_those_of_the_task_run(runs: TaskRuns) -> None:
    extra = runs.logger("measure").extra
    assert extra is not None
    assert extra["task_run_id"] == str(task_run_id(RUN, "measure"))
    assert extra["flow_run_id"] == RUN


def test_outputs_are_told_in_a_line_of_bounded_length() -> None:
    few = Bundle({"a": "text", "b": [1, {"c": None}]})
    assert outputs_line(few) == 'a = text, b = [1, {"c": null}]'
    assert has_whole_line(few)
    many = Bundle({"a": "x" * 1000})
    assert len(outputs_line(many)) < 320
    assert not has_whole_line(many)


def test_what_prefect_cannot_store_is_not_told_to_it() -> None:
    told = outputs_line(Bundle({"a": "x\0", "b": ["\ud800"]}))
    assert told == 'a = x\N{REPLACEMENT CHARACTER}, b = ["\N{REPLACEMENT CHARACTER}"]'
