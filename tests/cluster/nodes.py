"""The nodes of the small cluster: they run the pods that are bound to them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster import pod_logs
from tests.cluster.addresses import Addresses, entries, hosts
from tests.cluster.images import Images
from tests.cluster.kubelet import Kubelet, NodeShape, Setting, Timing
from tests.cluster.pod_logs import LogRefused, Part
from tests.cluster.pod_run import PodRun
from tests.cluster.store import Missing, Store

__all__ = ["LogRefused", "NodeShape", "Nodes", "Timing"]


class Nodes:
    """All nodes, and the network between their pods.

    Args:
        store: The objects of the cluster.
        folder: Where pods and claims have their files. What is in it goes when the nodes stop.
        images: What can be pulled; a test may add to its table later.
        shapes: The nodes at the start.
        shares: Folders that NFS servers export, by ``server:path``.
        service_environment: The variables of the service ``kubernetes``, for every container.
        account_files: The files of a service account, by namespace and name, for pods that do
            not refuse them.
        host_paths: Whether pods may have folders of this machine.
        timing: How patient the cluster is.

    It needs the right to make mounts and namespaces: root.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        images: Images | None = None,
        shapes: Iterable[NodeShape] = (NodeShape("node-a"),),
        *,
        shares: Mapping[str, Path] | None = None,
        service_environment: Mapping[str, str] | None = None,
        account_files: Callable[[str, str], Mapping[str, bytes]] | None = None,
        host_paths: bool = False,
        timing: Timing | None = None,
    ) -> None:
        self.store, self.folder = store, folder
        self.images = images or Images()
        self.timing = timing or Timing()
        self._shapes = list(shapes)
        self._setting = Setting(
            store=store,
            folder=folder / "nodes",
            images=self.images,
            addresses=Addresses(),
            timing=self.timing,
            shares=dict(shares or {}),
            claims=self.claim,
            hosts=self._hosts,
            service_environment=dict(service_environment or {}),
            account_files=account_files,
            host_paths=host_paths,
        )
        self.kubelets: dict[str, Kubelet] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have the nodes join, and take the pods that are bound to them."""
        for shape in self._shapes:
            self.add(shape)
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End every process of every pod, and remove their files."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.gather(*(kubelet.stop() for kubelet in self.kubelets.values()))
        self.kubelets.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, shape: NodeShape) -> Kubelet:
        """Have another node."""
        kubelet = self.kubelets[shape.name] = Kubelet(shape, self._setting)
        kubelet.start()
        return kubelet

    async def take_away(self, name: str) -> None:
        """Have a node no more: the machine is gone, and its Node object too."""
        kubelet = self.kubelets.pop(name)
        await kubelet.stop()
        with contextlib.suppress(Missing):
            self.store.delete("Node", None, name)

    def claim(self, namespace: str, name: str) -> Path | None:
        """The folder of a bound claim; None where it is not bound."""
        found = self.store.find("PersistentVolumeClaim", namespace, name)
        if found is None or (found.get("status") or {}).get("phase") != "Bound":
            return None
        folder = self.folder / "claims" / found["metadata"]["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o1777)
        return folder

    def run_of(self, namespace: str, name: str) -> PodRun | None:
        """The pod of a name, as it runs on its node."""
        found = self.store.find("Pod", namespace, name)
        if found is None:
            return None
        kubelet = self.kubelets.get(found["spec"].get("nodeName", ""))
        return kubelet.runs.get(found["metadata"]["uid"]) if kubelet else None

    async def logs(
        self, pod: Mapping[str, Any], container: str = "", options: Mapping[str, Any] | None = None
    ) -> AsyncIterator[bytes]:
        """What a container has said: its lines, each with its end.

        Args:
            pod: The Pod object.
            container: May be left out where there is one only.
            options: As a request for a log has them: follow, previous, timestamps, tailLines,
                sinceSeconds, sinceTime.

        Raises:
            LogRefused: There is no such log, or its node cannot be reached.
        """
        part = Part.of(options or {})
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
        if not node:
            raise LogRefused(400, f'pod "{name}" does not have a host assigned')
        kubelet = self.kubelets.get(node)
        if kubelet is None or not kubelet.online:
            raise LogRefused(
                500,
                f'Get "https://{node}:10250/containerLogs/{pod["metadata"]["namespace"]}/{name}/'
                f'{container}": dial tcp {node}:10250: connect: no route to host',
            )
        run = kubelet.runs.get(pod["metadata"]["uid"])
        if run is None:
            raise LogRefused(400, f'container "{container}" in pod "{name}" is not available')
        one = pod_logs.container_of(run, container)
        path = pod_logs.file_of(run, one, part)
        number = one.restarts
        async for line in pod_logs.lines(
            path, part, lambda: kubelet.online and one.is_running and one.restarts == number
        ):
            yield line

    def _hosts(self, run: PodRun) -> str:
        return hosts(run.pod, run.address, run.hostname, self._known)

    @property
    def _known(self) -> list[tuple[str, str, str]]:
        return entries(self.store.each("Service"), self.store.each("Pod"))

    async def _watch(self) -> None:
        kinds = ("Pod", "Service", "PersistentVolumeClaim")
        known: list[tuple[str, str, str]] = []
        async for change, kind, obj in self.store.watch(kinds):
            if kind == "Pod":
                kubelet = self.kubelets.get(obj["spec"].get("nodeName", ""))
                if kubelet is not None:
                    kubelet.take(change, obj)
            elif kind == "PersistentVolumeClaim":
                if change == "DELETED":
                    shutil.rmtree(self.folder / "claims" / obj["metadata"]["uid"], True)
                continue
            fresh = self._known
            if fresh != known:
                known = fresh
                self._write_hosts()

    def _write_hosts(self) -> None:
        for kubelet in self.kubelets.values():
            for run in kubelet.runs.values():
                if not run.over and (run.folder / "hosts").exists():
                    run.write_hosts()
