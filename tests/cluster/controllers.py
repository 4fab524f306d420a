"""What makes a cluster of stored objects: the controllers, and the scheduler."""

from __future__ import annotations

from tests.cluster.claim_controller import ClaimController
from tests.cluster.job_controller import JobController
from tests.cluster.node_controller import NodeController
from tests.cluster.scheduling import Scheduler
from tests.cluster.store import Store


class Controllers:
    """All controllers of the cluster, on the running event loop.

    Args:
        store: The objects of the cluster.
        back_off: Seconds before a Job's failed pod is replaced (10 in a real cluster).
        evicted: Seconds from a node's loss until its pods are deleted (300).
    """

    def __init__(self, store: Store, *, back_off: float = 0.1, evicted: float = 0.5) -> None:
        self.scheduler = Scheduler(store)
        self.nodes = NodeController(store, evicted)
        self._every = (
            self.scheduler,
            JobController(store, back_off),
            ClaimController(store),
            self.nodes,
        )

    async def start(self) -> None:
        """Begin."""
        for one in self._every:
            one.start()

    async def stop(self) -> None:
        """End."""
        for one in self._every:
            await one.stop()
