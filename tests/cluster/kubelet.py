"""A node: it runs the pods that are bound to it, and tells the API how they are."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import volumes
from tests.cluster.addresses import Addresses
from tests.cluster.containers import Container
from tests.cluster.events import Teller
from tests.cluster.images import Images
from tests.cluster.pod_run import Ending, PodRun, disruption
from tests.cluster.pod_status import merged
from tests.cluster.processes import charged, resident, trees
from tests.cluster.quantities import requests
from tests.cluster.store import Missing, Store, now

VERSION = "v1.36.0"
_CORE = ("cpu", "memory", "ephemeral-storage", "pods")
_NODE_LOST = 255


@dataclass(frozen=True)
class NodeShape:
    """What a node has."""

    name: str
    cpu: str = "8"
    memory: str = "32Gi"
    storage: str = "100Gi"
    pods: int = 110
    devices: Mapping[str, int] = field(default_factory=dict)
    """Such as ``{"nvidia.com/gpu": 2}``."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Mapping[str, str], ...] = ()

    @property
    def allocatable(self) -> dict[str, str]:
        return {
            "cpu": self.cpu,
            "memory": self.memory,
            "ephemeral-storage": self.storage,
            "pods": str(self.pods),
            **{name: str(count) for name, count in self.devices.items()},
        }


@dataclass(frozen=True)
class Timing:
    """Seconds; those of a real cluster are in brackets."""

    tick: float = 0.2
    """Between two looks at memory, and from a failed pull to its back-off."""
    storage_tick: float = 1.0
    """Between two looks at storage (10)."""
    back_off: float = 0.5
    """Before the first repetition of what has failed (10)."""
    longest_back_off: float = 5.0
    """(300)"""
    lost: float = 0.5
    """Until a silent node counts as lost (50)."""
    evicted: float = 0.5
    """From then until its pods are deleted (300)."""


@dataclass
class Setting:
    """What all nodes of a cluster have in common."""

    store: Store
    folder: Path
    images: Images
    addresses: Addresses
    timing: Timing
    shares: dict[str, Path]
    claims: Callable[[str, str], Path | None]
    """The folder of a claim, by namespace and name."""
    hosts: Callable[[PodRun], str]
    service_environment: Mapping[str, str]
    account_files: Callable[[str, str], Mapping[str, bytes]] | None = None
    host_paths: bool = False


class Kubelet:
    """One node's agent. It is on the event loop that made it."""

    def __init__(self, shape: NodeShape, setting: Setting) -> None:
        self.shape, self.setting = shape, setting
        self.name = shape.name
        self.store, self.images = setting.store, setting.images
        self.addresses, self.timing = setting.addresses, setting.timing
        self.service_environment = setting.service_environment
        self.account_files = setting.account_files
        self.hosts = setting.hosts
        self.folder = setting.folder / shape.name
        self.address = setting.addresses.fresh()
        self.allocatable = shape.allocatable
        self.teller = Teller(setting.store, "kubelet", shape.name)
        self.pulled: set[str] = set()
        self.online = True
        """Whether the API and the node hear each other."""
        self.runs: dict[str, PodRun] = {}
        self._unheard: set[str] = set()
        self._free = {name: list(range(count)) for name, count in shape.devices.items()}
        self._watchers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Join the cluster."""
        self.join()
        self._watchers = [
            asyncio.create_task(self._watch_memory()),
            asyncio.create_task(self._watch_storage()),
        ]

    def join(self) -> None:
        """Make the node known, and ready."""
        if self.store.find("Node", None, self.name) is None:
            self.store.create("Node", self._node())
        else:
            self.say_ready()

    async def stop(self) -> None:
        """End everything that runs here, and say nothing of it."""
        self.online = False
        for watcher in self._watchers:
            watcher.cancel()
        await self.kill_all()
        for watcher in self._watchers:
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def kill_all(self, cause: str = "", code: int | None = None) -> None:
        """End all pods' processes at once, and wait for that."""
        runs = list(self.runs.values())
        for run in runs:
            run.kill(cause, code)
        await asyncio.gather(*(run.task for run in runs), return_exceptions=True)

    def _node(self) -> dict[str, Any]:
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        if count := self.shape.devices.get("nvidia.com/gpu"):
            labels |= {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(count)}
        spec: dict[str, Any] = {}
        if self.shape.taints:
            spec["taints"] = [dict(one) for one in self.shape.taints]
        return {
            "metadata": {"name": self.name, "labels": {**labels, **self.shape.labels}},
            "spec": spec,
            "status": self._status([]),
        }

    def _status(self, old: list[dict[str, Any]]) -> dict[str, Any]:
        conditions = [
            _condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            _condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            _condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            _condition("Ready", "True", "KubeletReady"),
        ]
        return {
            "capacity": self.allocatable,
            "allocatable": self.allocatable,
            "conditions": merged(old, conditions),
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.name},
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "containerd://2.2.0",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "Linux",
                "systemUUID": "",
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }

    def say_ready(self) -> None:
        """Write the node's own status, as each of its heartbeats does."""
        node = self.store.find("Node", None, self.name)
        if node is not None:
            old = node.get("status", {}).get("conditions", [])
            self.store.set_status("Node", None, self.name, self._status(old))

    def take(self, change: str, pod: Mapping[str, Any]) -> None:
        """Do what a change of a pod of this node asks for."""
        uid = pod["metadata"]["uid"]
        run = self.runs.get(uid)
        if not self.online:
            return
        if change == "DELETED":
            if run is not None:
                run.end(Ending(), 0)
                self._forget_when_over(run)
            return
        if run is None:
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                self.runs[uid] = run = PodRun(self, pod)
            else:
                return
        run.pod["metadata"] = pod["metadata"]
        if "deletionTimestamp" in pod["metadata"]:
            if run.over:
                self._remove(run)
            else:
                run.end(Ending(), pod["metadata"].get("deletionGracePeriodSeconds") or 0)

    def _forget_when_over(self, run: PodRun) -> None:
        if run.over:
            self._forget(run)

    def _forget(self, run: PodRun) -> None:
        self.runs.pop(run.uid, None)
        volumes.clear(run.folder)

    def finished(self, run: PodRun) -> None:
        """A pod's containers are gone."""
        if not self.online:
            return
        found = self._known(run)
        if found is None:
            self._forget(run)
        elif "deletionTimestamp" in found["metadata"]:
            self._remove(run)

    def _remove(self, run: PodRun) -> None:
        with contextlib.suppress(Missing):
            self.store.remove("Pod", run.namespace, run.name)

    def _known(self, run: PodRun) -> dict[str, Any] | None:
        found = self.store.find("Pod", run.namespace, run.name)
        return found if found is not None and found["metadata"]["uid"] == run.uid else None

    def report(self, run: PodRun) -> None:
        """Write a pod's status, if the API can be reached and still has the pod."""
        if not self.online:
            self._unheard.add(run.uid)
            return
        found = self._known(run)
        if found is None:
            return
        known = (found.get("status") or {}).get("phase")
        if known in ("Succeeded", "Failed") and not run.over:
            return  # somebody else has ended it; a pod never comes back from that
        self.store.set_status("Pod", run.namespace, run.name, run.status())

    def go_offline(self) -> None:
        """Hear nothing of the API any more, and say nothing to it."""
        self.online = False

    def go_online(self) -> None:
        """Catch up with what has happened meanwhile."""
        self.online = True
        self.join()
        for run in list(self.runs.values()):
            found = self._known(run)
            if found is None:
                self.take("DELETED", run.pod)
                continue
            if run.uid in self._unheard:
                self.report(run)
            self.take("MODIFIED", found)
        self._unheard.clear()
        for pod in self.store.list("Pod", fields=f"spec.nodeName={self.name}"):
            self.take("ADDED", pod)

    async def assign(self, run: PodRun) -> bool:
        """Give a pod's containers the devices that they ask for; whether there are so many.

        Those of pods that are ending are waited for.
        """
        for one in run.every:
            for name, amount in requests(one.spec).items():
                if name in _CORE or name not in self._free:
                    continue
                while amount > len(self._free[name]) and self._some_end():
                    await run.pause(0.02)
                free = self._free[name]
                if amount > len(free):
                    message = (
                        f"Allocate failed due to requested number of devices unavailable for "
                        f"{name}. Requested: {int(amount)}, Available: {len(free)}, which is "
                        "unexpected"
                    )
                    run.tell("UnexpectedAdmissionError", message, "Warning")
                    run.end(Ending("UnexpectedAdmissionError", f"Pod was rejected: {message}"), 0)
                    return False
                one.devices[name] = [free.pop(0) for _ in range(int(amount))]
        return not run.stop.is_set()

    def _some_end(self) -> bool:
        return any(run.stop.is_set() and not run.over for run in self.runs.values())

    def release(self, run: PodRun) -> None:
        """Take a pod's devices back."""
        for one in run.every:
            for name, numbers in one.devices.items():
                self._free[name] = sorted([*self._free[name], *numbers])
            one.devices = {}

    def outside(self, run: PodRun) -> volumes.Outside:
        """What a pod's volumes may be made of."""
        return volumes.Outside(
            run.look_up,
            self.setting.shares,
            lambda name: self.setting.claims(run.namespace, name),
            self.setting.host_paths,
        )

    def evict(self, run: PodRun, message: str, grace: float = 0) -> None:
        """End a pod because the node has too little of something."""
        run.tell("Evicted", message, "Warning")
        condition = disruption("TerminationByKubelet", message)
        run.end(Ending("Evicted", message, (condition,)), grace)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(self.timing.tick)
            limited: dict[int, Container] = {}
            for run in self.runs.values():
                for one in run.every:
                    if one.running and one.running.first and one.memory_limit:
                        limited[one.running.first] = one
            if not limited:
                continue
            for first, pids in trees(limited).items():
                one = limited[first]
                if resident(pids) > one.memory_limit and charged(pids) > one.memory_limit:
                    one.end("OOMKilled", 137)

    async def _watch_storage(self) -> None:
        while True:
            await asyncio.sleep(self.timing.storage_tick)
            for run in list(self.runs.values()):
                if run.stop.is_set() or run.over:
                    continue
                if message := run.storage():
                    self.evict(run, message)

    async def reboot(self) -> None:
        """End all processes as a power cut does; the API hears of it when the node is back."""
        self.go_offline()
        await self.kill_all("Unknown", _NODE_LOST)


def _condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    told = {"type": kind, "status": status, "reason": reason, "lastHeartbeatTime": now()}
    return told | {
        "message": f"kubelet has {reason}"
        if kind != "Ready"
        else "kubelet is posting ready status"
    }
