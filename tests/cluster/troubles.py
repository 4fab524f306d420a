"""What goes wrong in clusters, on request of a test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from tests.cluster.kubelet import NodeShape
from tests.cluster.node_controller import disrupt
from tests.cluster.nodes import Nodes
from tests.cluster.pod_run import PodRun
from tests.cluster.pod_status import merged
from tests.cluster.store import Missing, Store

_UNREACHABLE = "node.kubernetes.io/unreachable"
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


class NotRunning(Exception):
    """The pod that a trouble is meant for does not run."""


class Troubles:
    """Each method makes one thing go wrong, or right again."""

    def __init__(self, store: Store, nodes: Nodes) -> None:
        self._store, self._nodes = store, nodes

    def break_image(self, image: str, reason: str) -> None:
        """Let every pull of an image fail, with the runtime's ``reason``."""
        self._nodes.images.broken[image] = reason
        for kubelet in self._nodes.kubelets.values():
            kubelet.pulled.discard(image)

    def mend_image(self, image: str) -> None:
        """Let an image be pulled again."""
        self._nodes.images.broken.pop(image, None)

    def slow_image(self, image: str, seconds: float) -> None:
        """Let each pull of an image take so long, also where it was pulled before."""
        self._nodes.images.slow[image] = seconds
        for kubelet in self._nodes.kubelets.values():
            kubelet.pulled.discard(image)

    def kill(
        self, namespace: str, pod: str, container: str = "", *, code: int = 137, reason: str = ""
    ) -> None:
        """End a container's processes at once; it looks as if they ended with ``code``.

        Raises:
            NotRunning: It does not run.
        """
        run = self._run(namespace, pod)
        hit = [one for one in run.every if one.running and container in ("", one.name)]
        if not hit:
            raise NotRunning(f"no container of {namespace}/{pod} runs")
        for one in hit:
            one.end(reason, code)

    def out_of_memory(self, namespace: str, pod: str, container: str = "") -> None:
        """End a container's processes as the kernel does when they have too much memory.

        Raises:
            NotRunning: It does not run.
        """
        self.kill(namespace, pod, container, code=137, reason="OOMKilled")

    def evict(
        self, namespace: str, pod: str, message: str = "The node was low on resource: memory. "
    ) -> None:
        """Have a pod's node end it, because it needs what the pod has.

        Raises:
            NotRunning: It does not run.
        """
        run = self._run(namespace, pod)
        run.kubelet.evict(run, message)

    def _run(self, namespace: str, pod: str) -> PodRun:
        run = self._nodes.run_of(namespace, pod)
        if run is None or run.over:
            raise NotRunning(f"{namespace}/{pod} does not run")
        return run

    async def lose_node(self, name: str, *, processes_go_on: bool = False) -> None:
        """Have a node fall silent. After a while it is not ready, and its pods are deleted.

        They stay in deletion until the node is back, or somebody deletes them by force.
        """
        kubelet = self._nodes.kubelets[name]
        if processes_go_on:
            kubelet.go_offline()
        else:
            await kubelet.reboot()
        await asyncio.sleep(self._nodes.timing.lost)
        node = self._store.read("Node", None, name)
        told = {
            "status": "Unknown", "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
        }  # fmt: skip
        kinds = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
        status = node["status"]
        held = merged(status["conditions"], [{"type": kind, **told} for kind in kinds])
        self._store.set_status("Node", None, name, {**status, "conditions": held})
        for pod in self._store.list("Pod", fields=f"spec.nodeName={name}"):
            self._say_unready(pod)
        self._taint(name, _UNREACHABLE, ("NoSchedule", "NoExecute"))

    def _say_unready(self, pod: dict[str, Any]) -> None:
        status = pod.get("status") or {}
        ready = {"type": "Ready", "status": "False", "reason": "NodeNotReady"}
        held = merged(status.get("conditions") or [], [ready])
        meta = pod["metadata"]
        with contextlib.suppress(Missing):
            told = {**status, "conditions": held}
            self._store.set_status("Pod", meta["namespace"], meta["name"], told)

    def find_node(self, name: str) -> None:
        """Have a lost node come back: it catches up with what was asked of it meanwhile."""
        self._untaint(name, _UNREACHABLE)
        self._nodes.kubelets[name].go_online()
        self._nodes.kubelets[name].say_ready()

    def cordon(self, name: str) -> None:
        """Let a node have no new pods."""
        self._store.patch("Node", None, name, {"spec": {"unschedulable": True}})
        self._taint(name, _UNSCHEDULABLE, ("NoSchedule",))

    def uncordon(self, name: str) -> None:
        """Let a node have pods again."""
        self._store.patch("Node", None, name, {"spec": {"unschedulable": None}})
        self._untaint(name, _UNSCHEDULABLE)

    def drain(self, name: str) -> None:
        """Cordon a node, and evict its pods through the API."""
        self.cordon(name)
        for pod in self._store.list("Pod", fields=f"spec.nodeName={name}"):
            meta = pod["metadata"]
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                disrupt(self._store, pod, "EvictionByEvictionAPI", "Eviction API: evicting")
                self._store.delete("Pod", meta["namespace"], meta["name"], uid=meta["uid"])

    def add_node(self, shape: NodeShape) -> None:
        """Have another node join."""
        self._nodes.add(shape)

    async def remove_node(self, name: str) -> None:
        """Have a node go for good, with all that runs on it."""
        await self._nodes.take_away(name)

    def hold(self, kind: str, namespace: str | None, name: str) -> None:
        """Give an object a finalizer that nobody takes away."""
        held = self._store.read(kind, namespace, name)["metadata"].get("finalizers") or []
        changes = {"metadata": {"finalizers": [*held, "tests.cluster/held"]}}
        self._store.patch(kind, namespace, name, changes)

    def let_go(self, kind: str, namespace: str | None, name: str) -> None:
        """Take that finalizer away again."""
        held = self._store.read(kind, namespace, name)["metadata"].get("finalizers") or []
        left = [one for one in held if one != "tests.cluster/held"]
        self._store.patch(kind, namespace, name, {"metadata": {"finalizers": left or None}})

    def _taint(self, name: str, key: str, effects: tuple[str, ...]) -> None:
        held = self._store.read("Node", None, name)["spec"].get("taints") or []
        new = [{"key": key, "effect": effect} for effect in effects]
        taints = [one for one in held if one["key"] != key] + new
        self._store.patch("Node", None, name, {"spec": {"taints": taints}})

    def _untaint(self, name: str, key: str) -> None:
        held = self._store.read("Node", None, name)["spec"].get("taints") or []
        taints = [one for one in held if one["key"] != key]
        self._store.patch("Node", None, name, {"spec": {"taints": taints or None}})
