"""What NVML reports of a run's GPUs, and what of it is the run's."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from infra.gpu_usage import GpuReader, GpuReading

_GONE = 2**22 + 1  # above the largest process id
_OWN = os.getpid()
_DEVICE = {
    "number": 1, "memory_total": 1000_000_000, "memory_used": 800_000_000, "utilization": 90.0,
    "power": 200.0, "power_limit": 400.0,
}  # fmt: skip


def _metrics(reading: GpuReading, pids: set[int] | None) -> tuple[float, float]:
    found = reading.metrics(pids)
    assert found["gpu_1_power_usage_watts"] == 200
    assert found["gpu_1_power_usage_percentage"] == 50
    assert found["gpu_1_memory_usage_percentage"] == found["gpu_1_memory_usage_megabytes"] / 10
    return found["gpu_1_memory_usage_megabytes"], found["gpu_1_utilization_percentage"]


@pytest.mark.parametrize(
    ("memory", "utilization", "pids", "expected"),
    [
        ({_OWN: 300_000_000, 1: 500_000_000}, {_OWN: 20.0, 1: 70.0}, {_OWN}, (300, 20)),
        ({1: 800_000_000}, {1: 90.0}, {_OWN}, (0, 0)),
        ({1: 800_000_000}, None, {_OWN}, (0, 0)),
        ({_OWN: 300_000_000}, None, {_OWN}, (300, 90)),
        ({_OWN: 300_000_000}, {}, {_OWN}, (300, 0)),
        ({_GONE: 800_000_000}, {_GONE: 90.0}, {_OWN}, (800, 90)),
        (None, None, {_OWN}, (800, 90)),
        ({_OWN: 1}, {_OWN: 1.0}, None, (800, 90)),
    ],
    ids=["own and another's", "another's", "another's, without utilization", "own, without",
         "own, idle", "of another namespace", "not reported", "of a container"],
)  # fmt: skip
def test_what_of_a_gpu_is_the_runs(
    memory: dict[int, int] | None,
    utilization: dict[int, float] | None,
    pids: set[int] | None,
    expected: tuple[float, float],
) -> None:
    given: Any = {**_DEVICE, "memory_by_process": memory, "utilization_by_process": utilization}

    assert _metrics(GpuReading(**given), pids) == expected


def test_a_gpu_that_reports_nothing_has_no_metrics() -> None:
    assert GpuReading(0).metrics({_OWN}) == {}


def test_without_a_driver_there_are_none() -> None:
    assert GpuReader().read(["0", "GPU-abc"]) == {}


def test_it_reads_what_nvml_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [
        SimpleNamespace(pid=pid, timeStamp=at, smUtil=percent)
        for pid, at, percent in ((7, 5, 10), (7, 6, 30), (0, 0, 99))
    ]
    asked: list[int] = []

    def utilization(_: Any, since: int) -> list[Any]:
        asked.append(since)
        if since:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return samples

    def unknown(_: Any) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name, answer in {
        "Init": lambda: None,
        "DeviceGetHandleByUUID": lambda uuid: uuid,
        "DeviceGetIndex": lambda _: 3,
        "DeviceGetMemoryInfo": lambda _: SimpleNamespace(total=100, used=50),
        "DeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=60),
        "DeviceGetPowerUsage": lambda _: 150_000,
        "DeviceGetEnforcedPowerLimit": unknown,
        "DeviceGetComputeRunningProcesses": lambda _: [SimpleNamespace(pid=7, usedGpuMemory=40)],
        "DeviceGetProcessUtilization": utilization,
    }.items():
        monkeypatch.setattr(pynvml, f"nvml{name}", answer)
    reader = GpuReader()
    first, second = (reader.read(["GPU-abc"])["GPU-abc"] for _ in range(2))

    assert first == GpuReading(3, 100, 50, 60, 150.0, None, {7: 40}, {7: 20.0})
    assert second.utilization_by_process == {}
    assert asked == [0, 6]
