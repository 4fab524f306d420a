"""Usage of NVIDIA's GPUs, as NVML reports it: of each device, and of each process on it."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import pynvml

_MEGABYTE = 1e6


@dataclass(frozen=True)
class GpuReading:
    """One GPU at one time. What the GPU does not report is None.

    Attributes:
        number: Its number on this machine.
        memory_total: Its memory in bytes.
        memory_used: Memory in use, by whomever, in bytes.
        utilization: Percentage of the time in which a kernel ran, of whomever.
        power: Power in watts.
        power_limit: Power limit in watts.
        memory_by_process: Memory in use in bytes, by process id.
        utilization_by_process: Percentage of the time in which a kernel of a process ran, by
            process id.
    """

    number: int
    memory_total: int | None = None
    memory_used: int | None = None
    utilization: float | None = None
    power: float | None = None
    power_limit: float | None = None
    memory_by_process: Mapping[int, int] | None = None
    utilization_by_process: Mapping[int, float] | None = None

    def metrics(self, pids: Collection[int] | None) -> dict[str, float]:
        """Metrics of the processes ``pids``, named ``gpu_NUMBER_...``; of the whole GPU if None.

        Power is always the whole GPU's. So is all else if NVML names none of this machine's
        processes, as in a container.
        """
        found: dict[str, float | None] = {"power_usage_watts": self.power}
        if self.power is not None and self.power_limit:
            found["power_usage_percentage"] = self.power / self.power_limit * 100
        memory: float | None = self.memory_used
        utilization = self.utilization
        known = self.memory_by_process
        if pids is not None and known and any(map(psutil.pid_exists, known)):
            memory = sum(used for pid, used in known.items() if pid in pids)
            of_processes = self.utilization_by_process
            if of_processes is not None:
                utilization = sum(of_processes.get(pid, 0.0) for pid in pids)
            elif not known.keys() & set(pids):
                utilization = 0.0
        found["utilization_percentage"] = utilization
        if memory is not None:
            found["memory_usage_megabytes"] = memory / _MEGABYTE
            if self.memory_total:
                found["memory_usage_percentage"] = memory / self.memory_total * 100
        return {
            f"gpu_{self.number}_{name}": round(value, 1)
            for name, value in found.items()
            if value is not None
        }


class GpuReader:
    """Reads GPUs by their names in ``CUDA_VISIBLE_DEVICES``; one reader per monitor."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._read_until: dict[str, int] = {}

    def read(self, names: Iterable[str]) -> dict[str, GpuReading]:
        """Readings by name, without the GPUs that NVML does not know."""
        found = {name: self._read(name) for name in names}
        return {name: reading for name, reading in found.items() if reading}

    def _read(self, name: str) -> GpuReading | None:
        try:
            handle = self._handle(name)
            number = pynvml.nvmlDeviceGetIndex(handle)
        except pynvml.NVMLError:
            return None
        memory = _reported(pynvml.nvmlDeviceGetMemoryInfo, handle)
        rates = _reported(pynvml.nvmlDeviceGetUtilizationRates, handle)
        power = _reported(pynvml.nvmlDeviceGetPowerUsage, handle)
        limit = _reported(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        processes = _reported(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
        sizes = processes and {one.pid: one.usedGpuMemory for one in processes}
        return GpuReading(
            number=number,
            memory_total=memory and memory.total,
            memory_used=memory and memory.used,
            utilization=rates and rates.gpu,
            power=None if power is None else power / 1000,
            power_limit=None if limit is None else limit / 1000,
            memory_by_process=None if not sizes or None in sizes.values() else sizes,
            utilization_by_process=self._by_process(name, handle),
        )

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            pynvml.nvmlInit()
            by_index = name.isdecimal()
            self._handles[name] = (
                pynvml.nvmlDeviceGetHandleByIndex(int(name))
                if by_index
                else pynvml.nvmlDeviceGetHandleByUUID(name)
            )
        return self._handles[name]

    def _by_process(self, name: str, handle: Any) -> dict[int, float] | None:
        """Mean utilization of each process since the last reading; None if it is not reported."""
        since = self._read_until.get(name, 0)
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(handle, since)
        except pynvml.NVMLError as error:
            # Success without samples, too, is raised.
            idle = error.value in {pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND}
            return {} if idle else None  # no process has run a kernel since
        by_process: dict[int, list[int]] = defaultdict(list)
        for sample in samples:
            if sample.timeStamp > since:
                by_process[sample.pid].append(sample.smUtil)
                self._read_until[name] = max(sample.timeStamp, self._read_until.get(name, 0))
        return {pid: sum(values) / len(values) for pid, values in by_process.items()}


def _reported(ask: Any, handle: Any) -> Any:
    """What a GPU reports; None for what it does not: not every one knows its power."""
    with contextlib.suppress(pynvml.NVMLError):
        return ask(handle)
    return None
