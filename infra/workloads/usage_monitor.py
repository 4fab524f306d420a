"""Monitor of what the processes of a run use, as a whole and by component.

It samples only what the run has started, never the machine. In a container, the whole is what the
container uses.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psutil

from infra.container_usage import Container
from infra.gpu_usage import GpuReader, GpuReading
from infra.leash_client import Leash
from infra.process_usage import ProcessReader, TreeUsage, reaped_seconds
from infra.workloads.process_group import ProcessSpec

# Receives metrics by name.
Report = Callable[[Mapping[str, float]], object]

# A short process is sampled as well; then often, then seldom enough for days.
_FIRST_SECONDS = 0.2
_OFTEN_SECONDS = 1.0
_SELDOM_SECONDS = 10.0
_OFTEN_UNTIL_SECONDS = 60.0

# The kernel counts processor time in hundredths of a second: a rate over less is noise.
_SHORTEST_SECONDS = 0.1
_MEGABYTE = 1e6

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UsageLimits:
    """What the run may use at most.

    Attributes:
        cores: Cores.
        memory_bytes: Bytes of memory.
    """

    cores: float
    memory_bytes: int

    @classmethod
    def of(cls, container: Container | None) -> UsageLimits:
        """That of the container, where it has limits, or else of this machine."""
        cores = container and container.cores()
        memory = container and container.memory_bytes()
        usable = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        )
        return cls(cores or float(usable or 1), memory or int(psutil.virtual_memory().total))


@dataclass
class _Tree:
    """A process tree that runs.

    Attributes:
        pid: Its leash.
        gpus: Its GPUs, as in ``CUDA_VISIBLE_DEVICES``.
        usage: Its usage as last read.
    """

    pid: int
    gpus: tuple[str, ...]
    usage: TreeUsage = field(default_factory=TreeUsage)


@dataclass
class _Series:
    """Series of samples: what was used of what is counted up, and the time of the last sample.

    Attributes:
        limits: What may be used at most.
        at: ``time.monotonic()`` of the last sample, or of the start.
        cpu_seconds: Processor time at that sample.
        sampled: Whether there was one.
    """

    limits: UsageLimits
    at: float
    cpu_seconds: float = 0.0
    sampled: bool = False

    def take(self, usage: TreeUsage, at: float, *, memory: bool = True) -> dict[str, float]:
        """Metrics of a sample, without those of memory if nothing runs any more."""
        found = {
            "cpu_time_seconds": usage.cpu_seconds,
            "disk_read_megabytes": usage.read_bytes / _MEGABYTE,
            "disk_write_megabytes": usage.written_bytes / _MEGABYTE,
        }
        passed = at - self.at
        if passed >= _SHORTEST_SECONDS or (not self.sampled and passed > 0):
            cores = max(0.0, usage.cpu_seconds - self.cpu_seconds) / passed
            found["cpu_cores"] = cores
            found["cpu_utilization_percentage"] = cores / self.limits.cores * 100
            self.at, self.cpu_seconds, self.sampled = at, usage.cpu_seconds, True
        if memory:
            found["system_memory_usage_megabytes"] = usage.memory_bytes / _MEGABYTE
            share = usage.memory_bytes / self.limits.memory_bytes
            found["system_memory_usage_percentage"] = share * 100
        return {name: round(value, 3) for name, value in found.items()}


class ComponentUsage:
    """Usage of one component of a run: a node, a task, a trial. It observes its processes."""

    def __init__(self, monitor: UsageMonitor, report: Report | None) -> None:
        """Belong to ``monitor``, and report to ``report``; None for the whole alone."""
        self._monitor = monitor
        self.report = report
        self.trees: dict[int, _Tree] = {}
        self.ended = TreeUsage()
        self.series: _Series | None = None

    def on_started(self, process: ProcessSpec, leash: Leash) -> None:
        """Sample the process from now on."""
        gpus = process.env.get("CUDA_VISIBLE_DEVICES", "")
        names = tuple(name for name in gpus.split(",") if name)
        with self._monitor.guarded():
            self._monitor.add(self, _Tree(leash.pid, names))

    def on_ended(self, process: ProcessSpec, leash: Leash, code: int) -> None:
        """Sample the process for the last time."""
        with self._monitor.guarded():
            self._monitor.remove(self, leash.pid, leash.cpu_seconds)

    def usage(self) -> TreeUsage:
        """Usage as last read, of what has ended as well."""
        return _sum([self.ended, *(tree.usage for tree in self.trees.values())])


class UsageMonitor:
    """Samples the components of a run in a thread, as long as any of their processes runs.

    Nothing that it does fails the run: the first error is logged, and sampling goes on.
    """

    def __init__(self, report: Report, container: Container | None = None) -> None:
        """Prepare; :meth:`start` starts the thread.

        Args:
            report: Receives the metrics of the whole run.
            container: The container that is the run's own; None if the run is only its processes.
        """
        self._report = report
        self._container = container
        self._limits = UsageLimits.of(container)
        self._running: list[ComponentUsage] = []
        self._ended = TreeUsage()
        self._series: _Series | None = None
        self._processes = ProcessReader()
        self._gpus = GpuReader()
        self._network = psutil.net_io_counters() if container else None
        self._due: float | None = None
        self._began = 0.0
        self._closed = False
        self._warned = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, daemon=True, name="usage")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Stop; waits ``seconds`` for the thread at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def component(self, report: Report | None) -> ComponentUsage:
        """Make a component, which reports its own metrics to ``report``."""
        return ComponentUsage(self, report)

    @contextlib.contextmanager
    def observing_descendants(self, gpus: Sequence[str]) -> Iterator[None]:
        """Sample what this process has started, within the context.

        Args:
            gpus: The GPUs that it uses, as in ``CUDA_VISIBLE_DEVICES``.
        """
        component = self.component(None)
        self.add(component, _Tree(os.getpid(), tuple(gpus)))
        try:
            yield
        finally:
            self.remove(component, os.getpid(), reaped_seconds(os.getpid()))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Log an error within the context instead of raising it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (the edge of the monitor)
            level = logging.DEBUG if self._warned else logging.WARNING
            _logger.log(level, "The run's resource usage could not be read: %s", error)
            self._warned = True

    def add(self, component: ComponentUsage, tree: _Tree) -> None:
        """Sample ``tree`` as a part of ``component``."""
        whole = self._whole()
        with self._changed:
            now = time.monotonic()
            if self._series is None:
                self._began = now
                self._series = _Series(self._limits, now, whole.cpu_seconds if whole else 0.0)
            component.series = component.series or _Series(self._limits, now)
            if component not in self._running:
                self._running.append(component)
            component.trees[tree.pid] = tree
            first = now + _FIRST_SECONDS
            self._due = first if self._due is None else min(self._due, first)
            self._changed.notify()

    def remove(self, component: ComponentUsage, pid: int, cpu_seconds: float) -> None:
        """Sample a tree that has ended for the last time, given all the time that it has used."""
        whole = self._whole()
        with self._changed:
            now = time.monotonic()
            tree = component.trees.pop(pid)
            seconds = max(cpu_seconds, tree.usage.cpu_seconds)
            over = replace(tree.usage, cpu_seconds=seconds, memory_bytes=0, pids=frozenset())
            component.ended = _sum([component.ended, over])
            self._ended = _sum([self._ended, over])
            if component.trees:
                return
            self._running.remove(component)
            if component.report and component.series:
                component.report(component.series.take(component.usage(), now, memory=False))
            if not self._running and self._series:
                self._due = None
                self._report(self._series.take(whole or self._ended, now, memory=False))

    def sample(self) -> None:
        """Read all trees now, and report them."""
        with self._lock:
            trees = [tree for one in self._running for tree in one.trees.values()]
        usages = self._processes.read_trees([tree.pid for tree in trees])
        gpus = self._gpus.read({name for tree in trees for name in tree.gpus})
        whole = self._whole()
        with self._lock:
            now = time.monotonic()
            for one in self._running:
                for tree in one.trees.values():
                    tree.usage = _later(tree.usage, usages.get(tree.pid, tree.usage))
                if one.report and one.series and one.usage().pids:
                    one.report(one.series.take(one.usage(), now) | self._of_gpus(gpus, [one]))
            if self._running and self._series:
                whole = whole or _sum([self._ended, *(one.usage() for one in self._running)])
                found = self._series.take(whole, now) | self._of_gpus(gpus, self._running)
                self._report(found | self._of_network())

    def _whole(self) -> TreeUsage | None:
        """Usage of the container; None without one."""
        return self._container.usage() if self._container else None

    def _of_gpus(
        self, gpus: Mapping[str, GpuReading], components: Sequence[ComponentUsage]
    ) -> dict[str, float]:
        trees = [tree for one in components for tree in one.trees.values()]
        names = {name for tree in trees for name in tree.gpus}
        pids = frozenset[int]().union(*(tree.usage.pids for tree in trees))
        # A container does not see the process ids that NVML reports, and has its GPUs for itself.
        own = None if self._container else pids
        found: dict[str, float] = {}
        for name in names & gpus.keys():
            found |= gpus[name].metrics(own)
        return found

    def _of_network(self) -> dict[str, float]:
        """Traffic of the container, whose network is its own."""
        if self._network is None:
            return {}
        now = psutil.net_io_counters()
        return {
            "network_receive_megabytes": (now.bytes_recv - self._network.bytes_recv) / _MEGABYTE,
            "network_transmit_megabytes": (now.bytes_sent - self._network.bytes_sent) / _MEGABYTE,
        }

    def _work(self) -> None:
        while self._wait():
            with self.guarded():
                self.sample()
            with self._lock:
                now = time.monotonic()
                often = now - self._began < _OFTEN_UNTIL_SECONDS
                seconds = _OFTEN_SECONDS if often else _SELDOM_SECONDS
                self._due = now + seconds if self._running else None

    def _wait(self) -> bool:
        """Wait until a sample is due; False when the monitor is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._due is not None and self._due <= now:
                    return True
                self._changed.wait(None if self._due is None else self._due - now)
        return False


def _sum(usages: Sequence[TreeUsage]) -> TreeUsage:
    return TreeUsage(
        cpu_seconds=sum(one.cpu_seconds for one in usages),
        memory_bytes=sum(one.memory_bytes for one in usages),
        read_bytes=sum(one.read_bytes for one in usages),
        written_bytes=sum(one.written_bytes for one in usages),
        pids=frozenset[int]().union(*(one.pids for one in usages)),
    )


def _later(before: TreeUsage, now: TreeUsage) -> TreeUsage:
    """A reading after ``before``: what is counted up never goes down.

    A process that was reaped between the readings of two files may be in neither of them.
    """
    return replace(
        now,
        cpu_seconds=max(before.cpu_seconds, now.cpu_seconds),
        read_bytes=max(before.read_bytes, now.read_bytes),
        written_bytes=max(before.written_bytes, now.written_bytes),
    )
