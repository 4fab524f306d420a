"""What a run's monitor leaves: series in MLflow, and the rows of its nodes."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy

from infra.workloads import process_group
from infra.workloads.process_group import ProcessSpec
from registry import tracking
from registry.mlflow_writer import MlflowWriter
from registry.runs import run_monitor, run_nodes
from registry.runs.run_monitor import RunMonitor
from registry.runs.run_nodes import NodeSlot
from registry.runs.run_views import RunView
from registry.tracking import Tracked

pytestmark = pytest.mark.usefixtures("mlflow")

_BURN = "import time\nwhile time.process_time() < 0.1: pass"


@pytest.fixture
def tracked(name: str) -> Tracked:
    experiment = tracking.ensure_experiment(name)
    return tracking.reopen_run(tracking.client().create_run(experiment).info.run_id)


@pytest.fixture
def slot() -> NodeSlot:
    return NodeSlot(str(uuid.uuid4()), 1, 0)


def _run(observer: process_group.ProcessObserver, folder: Path, *scripts: str) -> None:
    process_group.run(
        [
            ProcessSpec([sys.executable, "-c", script], {}, f"node {node}", node)
            for node, script in enumerate(scripts)
        ],
        cwd=folder, log=None, on_line=lambda *_: None, deadline=None,
        stop_requested=lambda: False, grace=1, observer=observer,
    )  # fmt: skip


def _last(run_id: str) -> dict[str, float]:
    return tracking.client().get_run(run_id).data.metrics


def _view(slot: NodeSlot, state: str, *, final: bool = True) -> RunView:
    ended = datetime.now(UTC) if final else None
    return RunView(
        id=slot.flow_run_id, name="r", flow="train", state=state, is_final=final, ended=ended
    )


def _nodes(slot: NodeSlot, state: str, *, final: bool = True) -> list[tuple[str, int | None]]:
    found = run_nodes.of_run(_view(slot, state, final=final))
    assert [one.rank for one in found] == list(range(len(found)))
    return [(one.state, one.exit_code) for one in found]


def test_each_node_has_series_and_a_row(tracked: Tracked, slot: NodeSlot, tmp_path: Path) -> None:
    with run_monitor.monitored(tracked, slot, pytest.fail) as monitor:
        _run(monitor.nodes(2), tmp_path, _BURN, f"{_BURN}\nraise SystemExit(3)")
    found = _last(tracked.run_id)
    (first, second) = run_nodes.of_run(_view(slot, "FAIL TRAIN"))

    parts = [found[f"system/{part}cpu_time_seconds"] for part in ("node-0/", "node-1/", "")]
    assert parts[0] > 0
    assert parts[1] > 0
    assert parts[2] == pytest.approx(parts[0] + parts[1], abs=0.01)
    assert (first.state, second.state, second.exit_code) == ("FAILED", "FAILED", 3)
    assert {first.machine, second.machine} == {socket.gethostname()}
    assert second.started
    assert second.ended
    assert second.started <= second.ended


def test_a_retry_continues_the_series_and_has_nodes_of_its_own(
    tracked: Tracked, slot: NodeSlot, tmp_path: Path
) -> None:
    for attempt in (1, 2):
        again = tracking.reopen_run(tracked.run_id)
        own = NodeSlot(slot.flow_run_id, attempt, 0)
        with run_monitor.monitored(again, own, pytest.fail) as monitor:
            _run(monitor.nodes(3 - attempt), tmp_path, *[_BURN] * (3 - attempt))
    history = tracking.client().get_metric_history(tracked.run_id, "system/cpu_time_seconds")

    assert len({one.step for one in history}) == len(history) >= 2
    assert _nodes(slot, "COMPLETE") == [("COMPLETE", 0)]


def test_components_have_series_up_to_a_limit_and_trials_runs_of_their_own(
    tracked: Tracked, slot: NodeSlot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_monitor, "_MOST_COMPONENTS", 1)
    trial = tracking.client().create_run(tracked.experiment_id).info.run_id
    writer = MlflowWriter(pytest.fail)

    def record(values: dict[str, float]) -> None:
        run_monitor.write(writer, trial, "", values)

    with run_monitor.monitored(tracked, slot, pytest.fail) as monitor:
        made: list[Callable[[RunMonitor], process_group.ProcessObserver]] = [
            lambda of: of.component("loop/1/a"), lambda of: of.component("b"),
            lambda of: of.component("loop/1/a"), lambda of: of.reported(record),
        ]  # fmt: skip
        for make in made:
            _run(make(monitor), tmp_path, _BURN)
    writer.close(10)
    found = _last(tracked.run_id)
    seconds = [found["system/cpu_time_seconds"], found["system/loop/1/a/cpu_time_seconds"]]

    assert not any(name.startswith("system/b/") for name in found)
    assert seconds[0] > 3 * seconds[1]
    assert _last(trial)["system/cpu_time_seconds"] > 0


def test_a_pod_of_several_has_series_under_its_number_and_the_rendezvous_its_row(
    tracked: Tracked, slot: NodeSlot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_NODES", "2")
    own = NodeSlot(slot.flow_run_id, 1, 1)
    with run_monitor.monitored(tracked, own, pytest.fail) as monitor:
        _run(monitor.nodes(1), tmp_path, _BURN)

    assert "system/node-1/cpu_time_seconds" in _last(tracked.run_id)
    assert "system/cpu_time_seconds" not in _last(tracked.run_id)
    assert run_nodes.of_run(_view(slot, "COMPLETE")) == []


def test_neither_mlflow_nor_the_catalogue_fails_a_run(
    tracked: Tracked, slot: NodeSlot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.ProgrammingError("insert", {}, Exception("no table"))

    monkeypatch.setattr(NodeSlot, "take", fail)
    warnings: list[str] = []
    with run_monitor.monitored(tracked, slot, warnings.append) as monitor:
        tracking.client().delete_run(tracked.run_id)
        _run(monitor.nodes(1), tmp_path, _BURN)

    assert "is deleted" in warnings[0]
    assert "The run's nodes could not be recorded" in caplog.text


@pytest.mark.parametrize(
    ("ends", "state", "final", "expected"),
    [
        ([None, None], "RUNNING", False, ["RUNNING", "RUNNING"]),
        ([None, 0], "COMPLETE IN PROGRESS", False, ["RUNNING", "COMPLETE"]),
        ([None, None], "FAIL TRAIN", True, ["FAILED", "LOST"]),
        ([0, 1], "FAIL TRAIN", True, ["FAILED", "FAILED"]),
        (["stopped", "stopped"], "STOPPED", True, ["STOPPED", "STOPPED"]),
        (["stopped", "error"], "FAIL TRAIN", True, ["FAILED", "FAILED"]),
    ],
)
def test_the_state_of_a_node(
    slot: NodeSlot, ends: list[int | str | None], state: str, final: bool, expected: list[str]
) -> None:
    for number, end in enumerate(ends):
        own = NodeSlot(slot.flow_run_id, 1, number)
        assert own.take("me", "10.0.0.1", {})
        if end is not None:
            error = {"code": "X"} if end == "error" else None
            own.end(code=end if isinstance(end, int) else None, tail=(), error=error)
    found = run_nodes.of_run(_view(slot, state, final=final))

    assert [one.state for one in found] == expected
    assert [one.ended is None for one in found] == [
        word in {"RUNNING", "LOST"} for word in expected
    ]


def test_a_node_of_a_cluster_names_its_pod_and_its_machine(
    slot: NodeSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_POD_NAME", "train-0-abc")
    monkeypatch.setenv("MODELYARD_MACHINE", "gpu-node-7")
    assert slot.take("uid", "10.0.0.1", {})
    (found,) = run_nodes.of_run(_view(slot, "RUNNING", final=False))

    shown = found.to_json()
    assert list(shown) == ["rank", "state", "machine", "pod", "started", "ended"]
    assert (shown["pod"], shown["machine"]) == ("train-0-abc", "gpu-node-7")


def test_a_pod_has_series_of_what_it_starts(tracked: Tracked) -> None:
    with run_monitor.pod_monitored(tracked.run_id, "pod-3", (), pytest.fail):
        subprocess.run([sys.executable, "-c", _BURN], check=True)
        before = _last(tracked.run_id)
    found = _last(tracked.run_id)

    assert found["system/pod-3/cpu_time_seconds"] > 0
    assert not any(name.startswith("system/cpu") for name in before | found)


def test_a_pod_whose_run_is_gone_works_without(mlflow: object) -> None:
    told: list[str] = []
    with run_monitor.pod_monitored("0" * 32, "pod-0", (), told.append):
        told.append("worked")

    assert "The pod's resource usage is not recorded: " in told[0]
    assert told[1:] == ["worked"]
