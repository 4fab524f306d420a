"""The whole cluster: its state, its API over HTTP, its controllers and its nodes."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.controllers import Controllers
from tests.cluster.garbage import Garbage
from tests.cluster.rights import ADMIN, User
from tests.cluster.server import Server
from tests.cluster.store import Store

_PATIENCE = 60
T = TypeVar("T")


class Cluster:
    """A cluster in a thread of this process, from `start` (or `with`) to `stop`.

    Args:
        folder: Of the kubeconfigs, and of what nodes keep.
        port: To listen on; 0 takes a free one.
        nodes: Makes the nodes, of the store and a folder of their own; without it no pod is run,
            and no Job makes any.
    """

    def __init__(
        self, folder: Path, *, port: int = 0, nodes: Callable[[Store, Path], Any] | None = None
    ) -> None:
        self.folder = folder
        self.store = Store()
        self.server = Server(self.store)
        self.parts: dict[str, Any] = {"garbage": Garbage(self.store)}
        if nodes is not None:
            self.parts["controllers"] = Controllers(self.store)
            self.parts["nodes"] = nodes(self.store, folder / "nodes")
            self.server.logs = self.parts["nodes"].logs
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster")

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Of the API."""
        return self.server.url

    def start(self) -> Path:
        """Begins; returns a kubeconfig of somebody who may do everything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self.do(self._start())
        return self.kubeconfig(ADMIN)

    async def _start(self) -> None:
        await self.server.start(self._port)
        for part in self.parts.values():
            await _waited(part.start())

    def stop(self) -> None:
        """Ends everything."""
        try:
            self.do(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_PATIENCE)
            self._loop.close()

    async def _stop(self) -> None:
        for part in reversed(self.parts.values()):
            await _waited(part.stop())
        await self.server.stop()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the cluster's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """The result of a function of the store (or another part), called in its loop."""

        async def called() -> T:
            return function(*arguments, **named)

        return self.do(called())

    def kubeconfig(self, user: User, namespace: str = "default") -> Path:
        """Writes the kubeconfig of a user, who is let in with it from now on."""
        token = secrets.token_hex(16)
        self.server.rights.tokens[token] = user
        path = self.folder / f"kubeconfig-{user.name.replace(':', '-')}"
        path.write_text(json.dumps(kubeconfig(self.url, token, namespace)))
        path.chmod(0o600)
        return path


def kubeconfig(url: str, token: str, namespace: str) -> dict[str, Any]:
    """A kubeconfig with one context, "test"."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [
            {
                "name": "test",
                "context": {"cluster": "test", "user": "test", "namespace": namespace},
            }
        ],
    }


async def _waited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result
