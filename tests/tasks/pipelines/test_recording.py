"""What the catalogue knows of a run's nodes, at every moment at which the run could be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kfp.pipeline_spec import pipeline_spec_pb2 as ir
from sqlalchemy.exc import DataError

from infra.errors import BadInputError
from infra.home import Home
from pipelines.artifacts import Bundle
from pipelines.execution import Leaf, NodeStatus
from pipelines.states import TaskState
from registry import catalogue
from registry.pipelines import pipeline_nodes
from registry.pipelines.pipeline_nodes import PipelineNode
from tasks.pipelines.recording import Recorder
from tests.processes import eventually
from tests.registry.conftest import new_database

RUN = "a run"


@pytest.fixture(autouse=True)
def _database(database_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


def _leaf(path: str = "a") -> Leaf:
    return Leaf(path, ir.PipelineTaskSpec(), "comp", Bundle({"x": 1}))


def _seen(state: TaskState, path: str = "a") -> NodeStatus:
    return NodeStatus(path, path, "task", state)


def _states() -> dict[str, str]:
    return {node.path: node.state for node in pipeline_nodes.of(RUN)}


def _ended_well(*paths: str) -> None:
    """Have tasks end well in an attempt that is over."""
    recorder = Recorder(RUN)
    for path in paths:
        recorder.done(_leaf(path), f"print of {path}", Bundle({"y": path}), TaskState.SUCCEEDED)


def test_a_task_that_counts_as_done_is_in_the_catalogue() -> None:
    with (recorder := Recorder(RUN)).writing():
        recorder.done(_leaf(), "p", Bundle({"y": 2}), TaskState.SUCCEEDED)
        assert _states() == {"a": "SUCCEEDED"}
    assert Recorder(RUN).kept(_leaf(), "p") == Bundle({"y": 2})
    assert Recorder("another").cached("p") == Bundle({"y": 2})
    assert Recorder("another").cached("q") is None


def test_what_is_seen_is_written_soon_and_at_the_end() -> None:
    recorder = Recorder(RUN)
    with recorder.writing():
        recorder.on_node_changed(_seen(TaskState.RUNNING))
        eventually(lambda: _states() == {"a": "RUNNING"}, "the node is written")
        recorder.on_node_changed(_seen(TaskState.FAILED))
    assert _states() == {"a": "FAILED"}


def test_what_ended_well_stays_so_until_it_must_run_again() -> None:
    _ended_well("a", "b", "c")
    recorder = Recorder(RUN)
    with recorder.writing():
        for path in ("a", "b", "c"):
            recorder.on_node_changed(_seen(TaskState.WAITING, path))
        recorder.on_node_changed(_seen(TaskState.RUNNING, "a"))
        assert recorder.kept(_leaf("a"), "print of a") == Bundle({"y": "a"})
        recorder.on_node_changed(_seen(TaskState.RUNNING, "b"))
        assert recorder.kept(_leaf("b"), "another print") is None
        recorder.on_node_changed(_seen(TaskState.CANCELLED, "c"))
    assert _states() == {"a": "SUCCEEDED", "b": "RUNNING", "c": "SUCCEEDED"}


def test_many_that_end_together_are_all_written(monkeypatch: pytest.MonkeyPatch) -> None:
    put, batches = pipeline_nodes.put, []
    everybody = threading.Event()

    def slowly(nodes: Iterable[PipelineNode]) -> None:
        nodes = list(nodes)
        batches.append(len(nodes))
        if nodes:
            everybody.wait(10)
        put(nodes)

    monkeypatch.setattr(pipeline_nodes, "put", slowly)
    recorder = Recorder(RUN)
    with ThreadPoolExecutor(50) as pool, recorder.writing():
        futures = [
            pool.submit(recorder.done, _leaf(f"{n}"), f"{n}", Bundle(), TaskState.SUCCEEDED)
            for n in range(50)
        ]
        eventually(lambda: len(recorder._waiting) + sum(batches) >= 50, "all of them wait")
        assert not any(one.done() for one in futures)
        everybody.set()
        for one in futures:
            one.result(timeout=60)
        assert set(_states().values()) == {"SUCCEEDED"}
        assert len(_states()) == 50
    assert len([one for one in batches if one]) < 10


def test_whoever_waits_is_told_that_it_could_not_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = pipeline_nodes.put
    answers: list[Callable[[], None]] = []

    def broken(nodes: Iterable[PipelineNode]) -> None:
        nodes = list(nodes)
        if nodes and answers:
            answers.pop()()
        put(nodes)

    def fail() -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(pipeline_nodes, "put", broken)
    recorder = Recorder(RUN)
    with recorder.writing():
        answers.append(fail)
        with pytest.raises(RuntimeError, match="no room"):
            recorder.done(_leaf(), "p", Bundle(), TaskState.SUCCEEDED)
        recorder.done(_leaf("b"), "q", Bundle(), TaskState.SUCCEEDED)
    assert _states()["b"] == "SUCCEEDED"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, PipelineNode]:
    """What was written; a database that takes no node with the output ``odd``."""
    written: dict[str, PipelineNode] = {}

    def put(nodes: Iterable[PipelineNode]) -> None:
        found = list(nodes)
        if any("odd" in node.outputs.get("parameters", {}) for node in found):
            raise DataError("INSERT secret", None, ValueError("no such text"))
        written.update({node.path: node for node in found})

    monkeypatch.setattr(pipeline_nodes, "of", lambda _: [])
    monkeypatch.setattr(pipeline_nodes, "put", put)
    monkeypatch.setattr(catalogue, "retry_transient", lambda do: do())
    return written


def test_what_cannot_be_stored_hinders_no_other(rows: dict[str, PipelineNode]) -> None:
    recorder = Recorder(RUN)
    recorder.on_node_changed(_seen(TaskState.RUNNING, "running"))

    with ThreadPoolExecutor(2) as pool, recorder.writing():
        odd = pool.submit(
            recorder.done, _leaf("odd"), "f", Bundle({"odd": 1}), TaskState.SUCCEEDED
        )
        fine = pool.submit(
            recorder.done, _leaf("fine"), "f", Bundle({"x": 1}), TaskState.SUCCEEDED
        )
        assert fine.result(30) is None
        with pytest.raises(BadInputError) as raised:
            odd.result(30)
        recorder.done(_leaf("later"), "f", Bundle(), TaskState.SUCCEEDED)

    assert raised.value.code == "OutputMalformed"
    assert "odd" in raised.value.message
    assert "no such text" in raised.value.message
    assert "secret" not in str(raised.value)
    assert set(rows) == {"running", "fine", "later"}


def test_of_several_written_at_once(rows: dict[str, PipelineNode]) -> None:
    recorder = Recorder(RUN)
    recorder.on_node_changed(
        NodeStatus("told", "told", "task", TaskState.SUCCEEDED, outputs=Bundle({"odd": 1}))
    )

    recorder.done(_leaf("fine"), "f", Bundle(), TaskState.SUCCEEDED)

    assert set(rows) == {"fine"}
