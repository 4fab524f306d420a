"""What the catalogue is told of nodes, over a catalogue that refuses some."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from kfp.pipeline_spec import pipeline_spec_pb2 as ir
from sqlalchemy.exc import DataError

from infra.errors import BadInputError
from pipelines.artifacts import Bundle
from pipelines.execution import Leaf, Seen
from pipelines.states import TaskState
from registry import catalogue, pipeline_nodes
from registry.pipeline_nodes import Node
from tasks.pipelines.recording import Recorder

RUN = "b3c0a3ce-0000-4000-8000-000000000000"


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Node]:
    """What was written; a database that takes no node with the output ``odd``."""
    written: dict[str, Node] = {}

    def put(nodes: Iterable[Node]) -> None:
        found = list(nodes)
        if any("odd" in node.outputs.get("parameters", {}) for node in found):
            raise DataError("INSERT secret", None, ValueError("no such text"))
        written.update({node.path: node for node in found})

    monkeypatch.setattr(pipeline_nodes, "of", lambda _: [])
    monkeypatch.setattr(pipeline_nodes, "put", put)
    monkeypatch.setattr(catalogue, "patiently", lambda do: do())
    return written


def leaf(path: str) -> Leaf:
    return Leaf(path, ir.PipelineTaskSpec(), "comp", Bundle())


def test_what_cannot_be_stored_hinders_no_other(rows: dict[str, Node]) -> None:
    recorder = Recorder(RUN)
    recorder.seen(Seen("running", "running", "task", TaskState.RUNNING))

    with ThreadPoolExecutor(2) as pool, recorder.writing():
        odd = pool.submit(recorder.done, leaf("odd"), "f", Bundle({"odd": 1}), TaskState.SUCCEEDED)
        fine = pool.submit(recorder.done, leaf("fine"), "f", Bundle({"x": 1}), TaskState.SUCCEEDED)
        assert fine.result(30) is None
        with pytest.raises(BadInputError) as raised:
            odd.result(30)
        recorder.done(leaf("later"), "f", Bundle(), TaskState.SUCCEEDED)

    assert raised.value.code == "OutputMalformed"
    assert "odd" in raised.value.message
    assert "no such text" in raised.value.message
    assert "secret" not in str(raised.value)
    assert set(rows) == {"running", "fine", "later"}


def test_of_several_written_at_once(rows: dict[str, Node]) -> None:
    recorder = Recorder(RUN)
    recorder.seen(Seen("told", "told", "task", TaskState.SUCCEEDED, outputs=Bundle({"odd": 1})))

    recorder.done(leaf("fine"), "f", Bundle(), TaskState.SUCCEEDED)

    assert set(rows) == {"fine"}
