"""A small cluster inside one test, without its HTTP: its objects, controllers and nodes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.controllers import Controllers
from tests.cluster.garbage import Garbage
from tests.cluster.images import Image, Images
from tests.cluster.nodes import Nodes, NodeShape, Timing
from tests.cluster.store import Store
from tests.cluster.troubles import Troubles

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="containers need mounts, and root")
PATIENCE = 20.0
QUICK = Timing(tick=0.05, storage_tick=0.1, back_off=0.1, longest_back_off=0.4, lost=0.1)
IMAGE = Image(env={"PATH": "/usr/local/bin:/usr/bin:/bin"}, user=1000)


class Small:
    """What a test has in hand."""

    def __init__(self, store: Store, nodes: Nodes) -> None:
        self.store, self.nodes = store, nodes
        self.trouble = Troubles(store, nodes)

    def pod(self, name: str, script: str = "true", /, **spec: Any) -> dict[str, Any]:
        """Make a pod of one container that runs a shell script."""
        container = {
            "name": "run", "image": "shell:1", "command": ["sh", "-c", script],
            **spec.pop("container", {}),
        }  # fmt: skip
        meta = {"name": name, **spec.pop("metadata", {})}
        body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        body |= {"containers": [container], **spec}
        return self.store.create("Pod", {"metadata": meta, "spec": body})

    def job(self, name: str, script: str = "true", /, **spec: Any) -> dict[str, Any]:
        """Make a Job whose pods run a shell script."""
        container = {"name": "run", "image": "shell:1", "command": ["sh", "-c", script]}
        pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
        pod |= {"containers": [container], **spec.pop("pod", {})}
        body = {"backoffLimit": 0, "template": {"spec": pod}, **spec}
        return self.store.create("Job", {"metadata": {"name": name}, "spec": body})

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.store.find(kind, "default", name)

    def status(self, name: str, kind: str = "Pod") -> dict[str, Any]:
        return (self.find(kind, name) or {}).get("status") or {}

    def state(self, name: str, container: str = "run") -> dict[str, Any]:
        """What a container of a pod does."""
        status = self.status(name)
        every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        return next((one["state"] for one in every if one["name"] == container), {})

    def conditions(self, name: str, kind: str = "Pod") -> dict[str, dict[str, Any]]:
        return {one["type"]: one for one in self.status(name, kind).get("conditions") or []}

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        return self.store.list("Pod", "default", labels=f"job-name={job}")

    def events(self, name: str) -> dict[str, str]:
        """The last message of each reason that was told of an object."""
        return {
            one["reason"]: one["message"]
            for one in self.store.list("Event", "default")
            if one["involvedObject"]["name"] == name
        }

    async def until(self, what: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """The first true answer, asked whenever the cluster has changed."""
        async with asyncio.timeout(patience):
            while True:
                seen = self.store.revision
                if answer := what():
                    return answer
                await self.store.changed(seen)

    async def phase(self, name: str, *wanted: str) -> dict[str, Any]:
        """A pod's status, when it is in one of the phases."""
        await self.until(lambda: self.status(name).get("phase") in wanted)
        return self.status(name)

    async def ended(self, name: str) -> dict[str, Any]:
        """A pod's status when it has ended."""
        return await self.phase(name, "Succeeded", "Failed")

    async def said(self, name: str, container: str = "", **options: Any) -> str:
        """What a pod's container has said."""
        pod = self.store.read("Pod", "default", name)
        parts = [part async for part in self.nodes.logs(pod, container, options)]
        return b"".join(parts).decode()

    async def told(self, name: str, script: str = "true", /, **spec: Any) -> str:
        """What a pod says that is made, and must succeed."""
        self.pod(name, script, **spec)
        status = await self.ended(name)
        text = await self.said(name)
        assert status["phase"] == "Succeeded", (status, text)
        return text


@asynccontextmanager
async def cluster(
    shapes: Iterable[NodeShape] = (NodeShape("node-a"),),
    images: Mapping[str, Image] | None = None,
    timing: Timing = QUICK,
    **options: Any,
) -> AsyncIterator[Small]:
    """A cluster that runs while the block does."""
    store = Store()
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        nodes = Nodes(
            store, Path(folder) / "nodes", Images({"shell:1": IMAGE, **(images or {})}), shapes,
            timing=timing, **options,
        )  # fmt: skip
        controllers, garbage = Controllers(store, back_off=0.05, evicted=0.2), Garbage(store)
        await nodes.start()
        await controllers.start()
        garbage.start()
        try:
            yield Small(store, nodes)
        finally:
            await garbage.stop()
            await controllers.stop()
            await nodes.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, within a limit."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
