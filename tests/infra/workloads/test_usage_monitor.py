"""What is sampled of a run's processes, while they run and when they have ended."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from infra.leash_client import LeashServer, LeashStarter, SpawnedLeash
from infra.process_usage import ProcessReader, TreeUsage
from infra.workloads import process_group, usage_monitor
from infra.workloads.process_group import ProcessSpec
from infra.workloads.usage_monitor import UsageLimits, UsageMonitor, _later, _Series

_BURN = """
import os, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""
# Half of it in a child that is gone at the end; it prints what the kernel counts for it.
_SCRIPT = f"""{_BURN}
burn(0.2)
if (pid := os.fork()) == 0:
    burn(0.2)
    os._exit(0)
os.waitpid(pid, 0)
print(sum(os.times()[:4]), os.times().elapsed, flush=True)
"""


class _Reports:
    """What was reported, by series."""

    def __init__(self) -> None:
        self.found: dict[str, list[Mapping[str, float]]] = {}

    def of(self, name: str) -> Any:
        return self.found.setdefault(name, []).append


@pytest.fixture
def reports() -> _Reports:
    return _Reports()


@pytest.fixture
def monitor(reports: _Reports) -> Iterator[UsageMonitor]:
    made = UsageMonitor(reports.of("run"))
    made.start()
    yield made
    made.close(5)


@pytest.fixture(params=["spawned", "forked"])
def start(request: pytest.FixtureRequest) -> Iterator[LeashStarter]:
    if request.param == "spawned":
        yield SpawnedLeash
        return
    with closing(LeashServer()) as server:
        yield server.start


def _run(
    monitor: UsageMonitor, script: str, folder: Path, start: LeashStarter = SpawnedLeash, *,
    report: Any = None, env: Mapping[str, str] = {}, name: str = "",
) -> list[str]:  # fmt: skip
    """Run a script as a component; what it printed."""
    lines: list[str] = []
    ended = process_group.run(
        [ProcessSpec([sys.executable, "-c", script], env, name)],
        cwd=folder, log=None, on_line=lambda _, line: lines.append(line), deadline=None,
        stop_requested=lambda: False, grace=1, start=start, observer=monitor.component(report),
    )  # fmt: skip
    assert ended.code == 0
    return lines


def test_it_is_the_processor_time_of_the_run_and_not_of_the_machine(
    monitor: UsageMonitor, reports: _Reports, start: LeashStarter, tmp_path: Path
) -> None:
    with Popen([sys.executable, "-c", f"{_BURN}\nburn(600)"], stdout=PIPE) as other:
        used = float(_run(monitor, _SCRIPT, tmp_path, start)[0].split()[0])
        other.kill()
    samples = reports.found["run"]
    times = [one["cpu_time_seconds"] for one in samples]

    assert times == sorted(times)
    assert 0.35 < used <= times[-1] + 0.01
    assert times[-1] < 1.2 * used + 0.1  # the interpreter's end, which the script cannot count
    # On a busy machine it has less than a core of the time, but the two agree.
    assert all(0 <= one.get("cpu_cores", 0) < 1.5 for one in samples)


def test_a_sample_has_memory_while_processes_run(
    monitor: UsageMonitor, reports: _Reports, tmp_path: Path
) -> None:
    script = "import signal; block = b'x' * (50 << 20); print(1, flush=True); signal.pause()"
    leash = SpawnedLeash([sys.executable, "-c", script], env={}, cwd=tmp_path, grace=1)
    leash.output.read(1)
    component = monitor.component(reports.of("task"))
    process = ProcessSpec([], {})
    component.on_started(process, leash)
    monitor.sample()
    leash.stop()
    leash.output.close()
    component.on_ended(process, leash, leash.wait())

    assert 50 < reports.found["task"][0]["system_memory_usage_megabytes"] < 150
    assert reports.found["task"][0]["system_memory_usage_percentage"] > 0
    assert "system_memory_usage_megabytes" not in reports.found["task"][-1]
    assert "cpu_time_seconds" in reports.found["task"][-1]


def test_a_process_that_is_shorter_than_an_interval_is_sampled(
    monitor: UsageMonitor, reports: _Reports, tmp_path: Path
) -> None:
    _run(monitor, f"{_BURN}\nburn(0.05)", tmp_path, report=reports.of("task"))

    for name in ("run", "task"):
        assert reports.found[name][-1]["cpu_time_seconds"] > 0
        assert max(one.get("cpu_cores", 0) for one in reports.found[name]) > 0


def test_the_whole_is_the_sum_of_what_ran(
    monitor: UsageMonitor, reports: _Reports, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        _run(monitor, f"{_BURN}\nburn(0.1)", tmp_path, report=reports.of(name))
    last = {name: found[-1]["cpu_time_seconds"] for name, found in reports.found.items()}

    assert last["run"] == pytest.approx(last["a"] + last["b"], abs=0.01)


def test_an_error_ends_neither_the_run_nor_the_monitor(
    monitor: UsageMonitor, reports: _Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(ProcessReader, "read_trees", fail)
    monkeypatch.setattr(usage_monitor, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(usage_monitor, "_OFTEN_SECONDS", 0.001)
    with caplog.at_level(logging.WARNING):
        _run(monitor, f"{_BURN}\nburn(0.1)", tmp_path, report=fail)

    assert [one.message for one in caplog.records] == [
        "The run's resource usage could not be read: no such luck"
    ]
    monkeypatch.undo()
    _run(monitor, f"{_BURN}\nburn(0.05)", tmp_path)
    assert reports.found["run"][-1]["cpu_time_seconds"] > 0


def test_what_is_counted_up_never_goes_down() -> None:
    before = TreeUsage(5.0, 100, 10, 20)
    now = _later(before, TreeUsage(4.0, 50, 12, 0))

    assert now == TreeUsage(5.0, 50, 12, 20)


def test_rates_are_of_the_time_since_the_last_sample() -> None:
    series = _Series(UsageLimits(cores=4, memory_bytes=1000_000_000), at=10.0)
    first = series.take(TreeUsage(1.0, 250_000_000, 3_000_000, 5_000_000), 12.0)
    noise = series.take(TreeUsage(1.01, 1), 12.01)
    second = series.take(TreeUsage(7.0, 1), 14.0, memory=False)

    assert first == {
        "cpu_time_seconds": 1.0, "cpu_cores": 0.5, "cpu_utilization_percentage": 12.5,
        "system_memory_usage_megabytes": 250.0, "system_memory_usage_percentage": 25.0,
        "disk_read_megabytes": 3.0, "disk_write_megabytes": 5.0,
    }  # fmt: skip
    assert noise.keys() & {"cpu_cores", "cpu_utilization_percentage"} == set()
    assert (second["cpu_cores"], second["cpu_utilization_percentage"]) == (3.0, 75.0)
    assert "system_memory_usage_megabytes" not in second
