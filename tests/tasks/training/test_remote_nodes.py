"""Several machines of one run: threads here, each with a home of its own, and a real catalogue."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra import site, tcp_ports
from infra.errors import BadInputError, RunFailedError
from infra.home import Home
from infra.settings import Settings
from infra.workloads.exit_status import ExitCause, ExitStatus
from registry import catalogue
from registry.runs import run_nodes
from registry.runs.run_nodes import NodeSlot, RunNode
from tasks.run_directory import RunDirectory
from tasks.training import remote_nodes, script_execution, training_steps
from tasks.training.remote_nodes import HeadNode, TrainingNode, WorkerNode
from tasks.training.script_execution import ScriptContext
from tasks.training.training_request import Training
from tests.registry.conftest import new_database

_RANKS = """
import json, os
print(os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"],
      len(set(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"])))
"""
_DIES = """
import os, sys, time
if os.environ["RANK"] == "1":
    print("not I")
    {how}
time.sleep(600)
"""


@pytest.fixture(scope="module")
def _database(database_home: Home) -> str:
    return new_database(database_home)


@pytest.fixture(autouse=True)
def _catalogue(_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", _database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MODELYARD_POD_IP", "127.0.0.1")
    monkeypatch.setattr(remote_nodes, "_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(remote_nodes, "_SETTLE_SECONDS", 1.0)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


@contextlib.contextmanager
def _told(lines: list[str], names: Sequence[str]) -> Iterator[Callable[[int, str], None]]:
    yield lambda number, line: lines.append(f"[{names[number]}] {line}")


class Machine:
    """One node, with a home of its own."""

    def __init__(self, folder: Path, node: TrainingNode) -> None:
        self.home = Home(folder)
        self.home.make()
        self.node = node
        self.lines: list[str] = []
        self.stopped = threading.Event()
        self.deadline: float | None = None

    def run(self, request: Training) -> ExitStatus:
        settings = Settings(home=self.home.root, min_free_mib=1, stop_grace_seconds=0.3)
        run_dir = RunDirectory(self.home.runs / "run")
        prepared = training_steps.prepare(
            request, run_dir, self.home, settings, retried=False, log=lambda _: None
        )
        context = ScriptContext(
            home=self.home, settings=settings, flow_run_id="run", mlflow_run_id="mlflow",
            holder="the test", logger=logging.getLogger("tests"), deadline=self.deadline,
            stop_requested=self.stopped.is_set, node=self.node,
        )  # fmt: skip
        ended: ExitStatus | None = None
        try:
            ended = script_execution.run(
                request, prepared, run_dir, context, lambda names: _told(self.lines, names)
            )
        finally:
            self.node.close(ended)
        return ended


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    return str(request.node.nodeid)


@pytest.fixture
def first(tmp_path: Path, run_id: str) -> Iterator[Machine]:
    slot = NodeSlot(run_id, 1, 0)
    assert slot.take("zero", "127.0.0.1", {})
    head = HeadNode(slot, 2, 10, {"retried": False})
    head.start()
    yield Machine(tmp_path / "zero", head)
    head.close()


@pytest.fixture
def second(tmp_path: Path, run_id: str) -> Iterator[Machine]:
    slot = NodeSlot(run_id, 1, 1)
    assert slot.take("one", "127.0.0.1", {})
    worker = WorkerNode(slot)
    worker.start()
    yield Machine(tmp_path / "one", worker)
    worker.close()


@pytest.fixture
def asked(given: Callable[..., Training]) -> Callable[..., Training]:
    def made(text: str, **resources: Any) -> Training:
        request = given(resources={"nodes": 2, **resources})
        Path(request.algorithm.uri, "train.py").write_text(text)
        return request

    return made


def _both(first: Machine, second: Machine, request: Training) -> tuple[Any, Any]:
    with ThreadPoolExecutor(2) as pool:
        started = [pool.submit(one.run, request) for one in (first, second)]
    return tuple(one.exception() or one.result() for one in started)  # type: ignore[return-value]


def test_they_meet_and_each_runs_its_own_processes(
    first: Machine, second: Machine, asked: Callable[..., Training]
) -> None:
    ended = _both(first, second, asked(_RANKS, processes_per_node=2))

    assert [(one.cause, one.code) for one in ended] == [(ExitCause.EXITED, 0)] * 2
    (port,) = {line.split()[-2] for line in first.lines + second.lines}
    assert sorted(first.lines) == [
        f"[node 0 process {rank}] {rank} 4 {port} 4" for rank in range(2)
    ]
    assert sorted(second.lines) == [
        f"[node 1 process {rank - 2}] {rank} 4 {port} 4" for rank in range(2, 4)
    ]


def test_what_the_first_tells_is_heard(first: Machine, second: Machine) -> None:
    head, worker = first.node, second.node
    assert isinstance(head, HeadNode)
    assert isinstance(worker, WorkerNode)

    head.announce(mlflow_run_id="mlflow")

    assert worker.wait_announced("mlflow_run_id", lambda: False) == "mlflow"
    assert worker.wait_announced("nothing", lambda: True) is None


@pytest.mark.parametrize(
    ("how", "code"), [("sys.exit(5)", 5), ("os.kill(os.getpid(), 9)", -9)], ids=["exit", "kill"]
)
def test_one_nodes_death_ends_all_with_its_reason(
    first: Machine, second: Machine, asked: Callable[..., Training], how: str, code: int
) -> None:
    zero, _ = _both(first, second, asked(_DIES.format(how=how)))

    assert (zero.cause, zero.code, zero.process) == (ExitCause.EXITED, code, "node 1")
    assert "not I" in zero.tail


def test_the_first_to_fail_is_the_reason_wherever_it_was(
    first: Machine, second: Machine, asked: Callable[..., Training]
) -> None:
    text = "import os, sys, time\nif os.environ['RANK'] == '0':\n    sys.exit(3)\ntime.sleep(600)"

    zero, one = _both(first, second, asked(text))

    assert (zero.code, zero.process) == (3, "node 0")
    assert one.cause is ExitCause.STOPPED


@pytest.mark.parametrize(
    ("codes", "other_first", "reason"),
    [((1, 5), True, 1), ((1, 5), False, 0), ((1, -9), False, 1), ((-9, 5), False, 0)],
    ids=["the other", "this", "killed", "both"],
)
def test_of_two_that_fail_the_first_is_the_reason_however_late_it_is_seen(
    first: Machine, second: Machine, monkeypatch: pytest.MonkeyPatch,
    codes: tuple[int, int], other_first: bool, reason: int,
) -> None:  # fmt: skip
    head, worker = first.node, second.node
    own, other = (ExitStatus(code, tail=(f"of {n}",)) for n, code in enumerate(codes))
    now = run_nodes.now

    def failed_between() -> float:
        if other_first:
            worker.resolve_end(other, lambda: False)
            return now()
        at = now()
        worker.resolve_end(other, lambda: False)
        return at

    monkeypatch.setattr(run_nodes, "now", failed_between)
    found = head.resolve_end(own, lambda: False)

    assert (found.code, found.tail) == (codes[reason], (f"of {reason}",))


def test_what_took_long_after_a_failure_does_not_make_it_later(
    second: Machine, run_id: str
) -> None:
    worker = second.node
    worker.resolve_end(ExitStatus(5), lambda: False)
    told = run_nodes.look(run_id, 1)[1]

    worker.close(ExitStatus(5))

    assert run_nodes.look(run_id, 1)[1].ended == told.ended
    assert told.code == 5


def test_a_stop_at_the_first_node_ends_all(
    first: Machine, second: Machine, asked: Callable[..., Training]
) -> None:
    threading.Timer(1.0, first.stopped.set).start()

    zero, one = _both(first, second, asked("import time; time.sleep(600)"))

    assert (zero.cause, one.cause) == (ExitCause.STOPPED, ExitCause.STOPPED)


def test_a_node_that_cannot_do_its_part_tells_why(
    first: Machine, second: Machine, asked: Callable[..., Training]
) -> None:
    second.node.close(error=BadInputError("No data.", "Give some.", code="DatasetMissing"))

    with pytest.raises(RunFailedError, match=r"Node 1: No data\. Give some\.") as raised:
        first.run(asked(_RANKS))

    assert raised.value.code == "DatasetMissing"


def test_a_node_that_never_joins_is_named(first: Machine, asked: Callable[..., Training]) -> None:
    first.node._join_seconds = 0.2  # type: ignore[attr-defined]

    with pytest.raises(RunFailedError, match=r"1 of 2 nodes have not joined: 1\.") as raised:
        first.run(asked(_RANKS))

    assert raised.value.code == "NodeNeverJoined"


def test_a_node_that_falls_silent_is_lost(
    first: Machine, second: Machine, asked: Callable[..., Training],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(remote_nodes, "_LOST_SECONDS", 0.5)
    second.node._done.set()  # it says nothing more

    with pytest.raises(RunFailedError, match="Node 1 has sent no heartbeat") as raised:
        first.run(asked(_RANKS))

    assert raised.value.code == "NodeLost"


def test_the_time_is_over_while_it_waits(first: Machine, asked: Callable[..., Training]) -> None:
    first.deadline = time.monotonic() + 0.3
    request = asked(_RANKS).model_copy(update={"max_minutes": 0.005})

    with pytest.raises(RunFailedError, match="waited for its other nodes") as raised:
        first.run(request)

    assert raised.value.code == "Timeout"


class TestSilence:
    """How long the first node has listened to another one in vain."""

    @pytest.fixture(autouse=True)
    def _joining(self, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote_nodes, "_INTERVAL_SECONDS", 1.0)
        self.now = 100.0
        monkeypatch.setattr(remote_nodes.time, "monotonic", lambda: self.now)
        self.head = HeadNode(NodeSlot(run_id, 1, 0), 2, 10_000, {})
        self.heard = 0.0

    def _look(self, seconds: float, *, heard: bool) -> float:
        """Look again after so many seconds; the silence of the other node."""
        self.now += seconds
        self.heard += heard
        node = RunNode(1, "host", {}, None, self.heard, None, None, (), {})
        self.head._count_silence({1: node})
        self.head.nodes = {1: node}
        return self.head.seconds_silent(node)

    def test_it_grows_with_each_look_and_ends_with_a_word(self) -> None:
        assert self._look(1, heard=True) == 0
        assert [self._look(1, heard=False) for _ in range(3)] == [1, 2, 3]
        assert self._look(1, heard=True) == 0

    def test_time_in_which_this_machine_slept_is_none(self) -> None:
        self._look(1, heard=True)

        assert self._look(3600, heard=False) < 5
        assert self.head.abort_reason() is None

    def test_a_node_that_stays_silent_is_lost_all_the_same(self) -> None:
        self._look(1, heard=True)
        for _ in range(40):
            self._look(1, heard=False)

        assert isinstance(self.head.abort_reason(), RunFailedError)


def test_a_node_that_is_taken_is_refused(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_POD_UID", "mine")
    NodeSlot(run_id, 1, 0).take("somebody", "host", {})

    with pytest.raises(remote_nodes.NodeTakenError):
        remote_nodes.open_head_node(run_id, 2, 10, retried=False)


def test_a_machine_knows_whether_it_is_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not site.has_several_pods()
    monkeypatch.setenv("MODELYARD_NODES", "3")
    monkeypatch.setenv("MODELYARD_NODE", "2")
    monkeypatch.setenv("MODELYARD_ATTEMPT", "4")

    assert site.has_several_pods()
    assert run_nodes.own_slot("run") == NodeSlot("run", 4, 2)


def test_the_ports_are_of_the_address_that_is_told() -> None:
    assert len(set(tcp_ports.free_ports(3, "127.0.0.1"))) == 3
