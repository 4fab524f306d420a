"""What happens to pods whose node is silent, tainted or no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from tests.cluster.control_loop import ControlLoop
from tests.cluster.events import Teller
from tests.cluster.pod_run import disruption
from tests.cluster.pod_status import merged
from tests.cluster.scheduling import tolerates
from tests.cluster.store import Missing, Store

_OVER = ("Succeeded", "Failed")


class NodeController(ControlLoop):
    """Deletes pods from nodes with a NoExecute taint, and pods whose node is gone.

    A pod that tolerates the taint stays; with ``tolerationSeconds``, so long.
    """

    def __init__(self, store: Store, evicted: float = 0.5) -> None:
        super().__init__()
        self._store = store
        self._evicted = evicted
        self._teller = Teller(store, "taint-eviction-controller")

    async def _go_on(self) -> None:
        async for change, kind, obj in self._store.watch(("Node", "Pod")):
            if change == "DELETED":
                if kind == "Node":
                    self._orphan(obj["metadata"]["name"])
                continue
            name = obj["metadata"]["name"] if kind == "Node" else obj["spec"].get("nodeName")
            if name:
                self._look(name, None if kind == "Node" else obj["metadata"]["uid"])

    def _pods(self, node: str) -> list[dict[str, Any]]:
        return [
            pod
            for pod in self._store.list("Pod", fields=f"spec.nodeName={node}")
            if (pod.get("status") or {}).get("phase") not in _OVER
        ]

    def _look(self, name: str, uid: str | None) -> None:
        node = self._store.find("Node", None, name)
        if node is None:
            return
        taints = [one for one in node["spec"].get("taints") or [] if one["effect"] == "NoExecute"]
        if not taints and uid is not None and uid not in self._due:
            return
        for pod in self._pods(name):
            if uid in (None, pod["metadata"]["uid"]):
                self._judge(pod, taints)

    def _judge(self, pod: Mapping[str, Any], taints: list[dict[str, Any]]) -> None:
        uid = pod["metadata"]["uid"]
        waits = [wait for taint in taints if (wait := self._wait(pod, taint)) is not None]
        if not waits:
            if uid in self._due:
                self._due.pop(uid).cancel()
        elif uid not in self._due and "deletionTimestamp" not in pod["metadata"]:
            loop = asyncio.get_running_loop()
            self._due[uid] = loop.call_later(min(waits), self._evict, pod)

    def _wait(self, pod: Mapping[str, Any], taint: Mapping[str, Any]) -> float | None:
        """Seconds that a pod may stay; None as long as it likes."""
        matching = [one for one in pod["spec"].get("tolerations") or [] if tolerates([one], taint)]
        if matching:
            seconds = [one["tolerationSeconds"] for one in matching if "tolerationSeconds" in one]
            return min(*seconds, self._evicted) if seconds else None
        # What the API server lets every pod tolerate for a while.
        lasting = taint["key"] in (
            "node.kubernetes.io/unreachable",
            "node.kubernetes.io/not-ready",
        )
        return self._evicted if lasting else 0.0

    def _evict(self, pod: Mapping[str, Any]) -> None:
        meta = pod["metadata"]
        self._due.pop(meta["uid"], None)
        told = "Taint manager: deleting due to NoExecute taint"
        with contextlib.suppress(Missing):
            found = self._store.read("Pod", meta["namespace"], meta["name"])
            if found["metadata"]["uid"] != meta["uid"]:
                return
            disrupt(self._store, found, "DeletionByTaintManager", told)
            self._teller.tell(
                found, "TaintManagerEviction",
                f"Marking for deletion Pod {meta['namespace']}/{meta['name']}",
            )  # fmt: skip
            self._store.delete("Pod", meta["namespace"], meta["name"], uid=meta["uid"])

    def _orphan(self, node: str) -> None:
        """End pods whose node is gone; nobody else would."""
        for pod in self._pods(node):
            meta = pod["metadata"]
            told = "PodGC: node no longer exists"
            with contextlib.suppress(Missing):
                disrupt(self._store, pod, "DeletionByPodGC", told, phase="Failed")
                self._store.delete("Pod", meta["namespace"], meta["name"], grace=0)


def disrupt(
    store: Store, pod: Mapping[str, Any], reason: str, message: str, **status: Any
) -> None:
    """Write into a pod's status that somebody ends it."""
    meta, known = pod["metadata"], pod.get("status") or {}
    held = merged(known.get("conditions") or [], [disruption(reason, message)])
    told = {**known, "conditions": held, **status}
    store.set_status("Pod", meta["namespace"], meta["name"], told)
