"""What the nodes of a run tell each other, in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry import catalogue
from registry.runs import run_nodes
from registry.runs.run_nodes import NodeSlot


@pytest.fixture(autouse=True)
def _catalogue(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", postgresql)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


def test_a_slot_has_one_holder() -> None:
    slot = NodeSlot("run", 1, 0)

    assert slot.take("a", "10.0.0.1", {"retried": False})
    assert not slot.take("b", "10.0.0.2", {})
    assert slot.take("a", "10.0.0.1", {})
    assert NodeSlot("run", 2, 0).take("b", "10.0.0.2", {})  # another attempt is another slot
    assert run_nodes.look("run", 1)[0].host == "10.0.0.1"


def test_what_a_node_tells_is_read_by_the_others() -> None:
    first, second = NodeSlot("run", 1, 0), NodeSlot("run", 1, 1)
    first.take("a", "10.0.0.1", {"retried": True})
    second.take("b", "10.0.0.2", {})
    first.tell({"retried": True, "meeting": {"port": 7}})
    second.is_ready({"ports": [9]})

    found = run_nodes.look("run", 1)

    assert found[0].told == {"retried": True, "meeting": {"port": 7}}
    assert (found[0].ready, found[1].ready) == (None, {"ports": [9]})
    assert found[1].ended is None


def test_how_a_node_ended_is_kept() -> None:
    first, second = NodeSlot("run", 1, 0), NodeSlot("run", 1, 1)
    for slot in (first, second):
        slot.take("a", "host", {})
    first.end(code=-9, tail=("one", "two"))
    second.end(code=None, tail=(), error={"code": "DatasetMissing", "message": "m", "hint": "h"})

    found = run_nodes.look("run", 1)

    assert (found[0].code, found[0].tail, found[0].error) == (-9, ("one", "two"), {})
    assert found[0].ended is not None
    assert found[1].ended is not None
    assert found[0].ended <= found[1].ended
    assert found[1].error["code"] == "DatasetMissing"


def test_each_word_of_it_is_newer() -> None:
    slot = NodeSlot("run", 1, 0)
    slot.take("a", "host", {})
    before = run_nodes.look("run", 1)[0].heard

    slot.beat()

    assert run_nodes.look("run", 1)[0].heard > before


def test_a_removed_runs_nodes_are_forgotten() -> None:
    NodeSlot("run", 1, 0).take("a", "host", {})
    NodeSlot("other", 1, 0).take("a", "host", {})

    run_nodes.remove("run")

    assert run_nodes.look("run", 1) == {}
    assert list(run_nodes.look("other", 1)) == [0]
