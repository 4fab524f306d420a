"""CPU, memory, disk, network and GPU of this machine, by the names of MLflow's system metrics."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psutil
import pynvml

_MEGABYTE = 1e6


class SystemSampler:
    """Samples this machine: processor since the last sample, network since the sampler began."""

    def __init__(self) -> None:
        self._network = psutil.net_io_counters()
        self._gpus = _gpus()
        psutil.cpu_percent()  # the first call begins the interval of the next one

    def sample(self) -> dict[str, float]:
        """Values by name, such as ``cpu_utilization_percentage``."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
        network = psutil.net_io_counters()
        found = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_available_megabytes": disk.free / _MEGABYTE,
        }
        for number, gpu in enumerate(self._gpus):
            found |= {f"gpu_{number}_{name}": value for name, value in _sample_gpu(gpu).items()}
        received = network.bytes_recv - self._network.bytes_recv
        sent = network.bytes_sent - self._network.bytes_sent
        return {
            **{name: round(value, 1) for name, value in found.items()},
            "network_receive_megabytes": received / _MEGABYTE,
            "network_transmit_megabytes": sent / _MEGABYTE,
        }


def _gpus() -> list[Any]:
    """Handles of this machine's GPUs of NVIDIA's; none without their driver."""
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _sample_gpu(gpu: Any) -> dict[str, float]:
    """What a GPU reports: not every one knows its power or its utilization."""
    found: dict[str, float] = {}
    with contextlib.suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
        found["memory_usage_percentage"] = memory.used / memory.total * 100
        found["memory_usage_megabytes"] = memory.used / _MEGABYTE
    with contextlib.suppress(pynvml.NVMLError):
        found["utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
    with contextlib.suppress(pynvml.NVMLError):
        used = pynvml.nvmlDeviceGetPowerUsage(gpu)
        limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu)
        found["power_usage_watts"] = used / 1000
        found["power_usage_percentage"] = used / limit * 100
    return found
