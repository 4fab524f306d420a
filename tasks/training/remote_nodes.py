"""The nodes of a run that is spread over several machines, as one of them sees them.

The first node executes the run and decides how it ended; the others join it, and report to it.
They rendezvous in the catalogue, which each of them can reach: see :mod:`registry.runs.run_nodes`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from infra import tcp_ports
from infra.errors import ModelyardError, RunFailedError
from infra.workloads.exit_status import ExitCause, ExitStatus
from registry.flow_kinds import TRAIN
from registry.runs import run_nodes
from registry.runs.run_nodes import NodeSlot, RunNode
from tasks.resources import Resources
from tasks.training.nodes import Rendezvous

_INTERVAL_SECONDS = 1.0
_LONGEST_STEP = 3

# Nodes send a heartbeat every second, and count as lost after this long without one. The first
# node gets longer, since without it the others have nowhere to report to.
_LOST_SECONDS = 30.0
_FIRST_LOST_SECONDS = 90.0

# When one node's script fails, the scripts that communicate with it fail within moments.
_SETTLE_SECONDS = 3.0

_MASTER = "MODELYARD_MASTER"
_ADDRESS = "MODELYARD_POD_IP"

_logger = logging.getLogger("modelyard.nodes")


def own_address() -> str:
    """Address at which the other nodes reach this machine."""
    return os.environ.get(_ADDRESS) or socket.gethostbyname(socket.gethostname())


class TrainingNode(ABC):
    """This machine's node of a distributed run, and what it observes of the others.

    Attributes:
        slot: The slot that this process has claimed.
        nodes: The nodes that have joined, by number, as last read.
    """

    def __init__(self, slot: NodeSlot) -> None:
        """Represent ``slot``, which has been claimed; :meth:`start` starts the heartbeat."""
        self.slot = slot
        self.nodes: Mapping[int, RunNode] = {}
        self._seconds_silent: dict[int, float] = {}
        self._read_at = time.monotonic()
        self._done = threading.Event()
        self._read = threading.Condition()
        self._thread = threading.Thread(
            target=self._send_heartbeats, daemon=True, name="other nodes"
        )

    def start(self) -> None:
        """Start to send heartbeats and to read those of the other nodes."""
        self._thread.start()

    def close(self, ended: ExitStatus | None = None, error: ModelyardError | None = None) -> None:
        """Stop the heartbeat, and report how this node ended.

        Args:
            ended: How its script ended; None if it did not start, or was stopped.
            error: Why the node failed before its script could run.
        """
        self._done.set()
        self._thread.join(_INTERVAL_SECONDS + 5)
        self._report_end(ended, error)

    def _report_end(self, ended: ExitStatus | None, error: ModelyardError | None = None) -> None:
        exited = ended if ended and ended.cause is ExitCause.EXITED else None
        self.slot.end(
            code=exited.code if exited else None,
            tail=exited.tail if exited else (),
            error=error.as_dict() if error else None,
        )

    @abstractmethod
    def abort_reason(self) -> RunFailedError | ExitStatus | None:
        """Why this node must stop: the end of another node, or an error; None to continue."""

    @abstractmethod
    def rendezvous(self, resources: Resources, is_over: Callable[[], bool]) -> Rendezvous | None:
        """Wait until all nodes are ready; None if ``is_over`` returns true first.

        Raises:
            RunFailedError: If a node never joins, or fails before its script runs.
        """

    @abstractmethod
    def resolve_end(self, ended: ExitStatus, is_over: Callable[[], bool]) -> ExitStatus:
        """Combine the end of the local script with those that this node answers for.

        Args:
            ended: How the script ended on this node.
            is_over: Whether the run is stopped, or its time limit has passed.

        Raises:
            RunFailedError: If a node was lost, or failed before its script could run.
        """

    def _send_heartbeats(self) -> None:
        while not self._done.is_set():
            try:
                found = run_nodes.look(self.slot.flow_run_id, self.slot.attempt)
                self.slot.beat()
            except Exception:  # the edge of the loop: tried again
                _logger.exception("The other nodes could not be read")
            else:
                with self._read:
                    self._count_silence(found)
                    self.nodes = found
                    self._read.notify_all()
            self._done.wait(_INTERVAL_SECONDS)

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until ``until`` is true; it is called whenever the nodes were read."""
        with self._read:
            while not until():
                self._read.wait(_INTERVAL_SECONDS)

    def _count_silence(self, found: Mapping[int, RunNode]) -> None:
        """Add up the time during which this process read no new heartbeat of each node.

        One interval counts for a few seconds at most: in a longer one this machine was asleep or
        the database unavailable, and no heartbeat could be read.
        """
        now = time.monotonic()
        step = min(now - self._read_at, _LONGEST_STEP * _INTERVAL_SECONDS)
        self._read_at = now
        for number, node in found.items():
            before = self.nodes.get(number)
            silent = before is not None and before.heard == node.heard
            seconds = self._seconds_silent.get(number, 0.0)
            self._seconds_silent[number] = seconds + step if silent else 0.0

    def seconds_silent(self, node: RunNode) -> float:
        """Seconds without a heartbeat of ``node``, while this process could have read one."""
        return self._seconds_silent.get(node.number, 0.0)


class HeadNode(TrainingNode):
    """The first node: it waits for the others, and decides for all of them."""

    def __init__(
        self, slot: NodeSlot, count: int, join_seconds: float, announced: Mapping[str, Any]
    ):
        """Represent the first of ``count`` nodes.

        Args:
            slot: Slot of node 0.
            count: Number of nodes of the run.
            join_seconds: How long the others may take to join.
            announced: Values that the others can read at once.
        """
        super().__init__(slot)
        self._count = count
        self._join_seconds = join_seconds
        self._announced = dict(announced)
        self._began = time.monotonic()

    def _others(self) -> list[RunNode]:
        return [self.nodes[number] for number in range(1, self._count) if number in self.nodes]

    def abort_reason(self) -> RunFailedError | ExitStatus | None:
        """The first failure of another node; of several, that of one that was killed."""
        if failed := self._first_failed():
            return _end_of(failed)
        for one in self._others():
            if one.error:
                return RunFailedError(
                    f"Node {one.number}: {one.error['message']}", one.error["hint"],
                    state=TRAIN.failure, code=one.error["code"],
                )  # fmt: skip
            if one.ended is None and self.seconds_silent(one) > _LOST_SECONDS:
                return RunFailedError(
                    f"Node {one.number} has sent no heartbeat for {_LOST_SECONDS:.0f} s.",
                    "Its machine or its network failed: retry the run.",
                    state=TRAIN.failure, code="NodeLost",
                )  # fmt: skip
        return None

    def _first_failed(self) -> RunNode | None:
        failed = [one for one in self._others() if one.ended is not None and one.code]
        return min(failed, key=lambda one: ((one.code or 0) > 0, one.ended), default=None)

    def _join_timeout(self) -> RunFailedError | None:
        missing = [str(number) for number in range(1, self._count) if number not in self.nodes]
        if not missing or time.monotonic() - self._began < self._join_seconds:
            return None
        return RunFailedError(
            f"After {self._join_seconds:g} s {len(missing)} of {self._count} nodes have not "
            f"joined: {', '.join(missing)}.",
            "Check why their pods are pending, or ask for fewer nodes. MODELYARD_JOIN_SECONDS is "
            "the time to join.",
            state=TRAIN.failure,
            code="NodeNeverJoined",
        )

    def rendezvous(self, resources: Resources, is_over: Callable[[], bool]) -> Rendezvous | None:
        """Wait for the other nodes, and announce the addresses of the rendezvous."""
        problem: RunFailedError | ExitStatus | None = None
        over = False

        def decided() -> bool:
            nonlocal problem, over
            over = is_over()
            problem = self.abort_reason() or self._join_timeout()
            ready = [one for one in self._others() if one.ready is not None]
            return over or problem is not None or len(ready) == self._count - 1

        self.wait(decided)
        if over:
            return None
        if isinstance(problem, RunFailedError):
            raise problem
        port, *own = tcp_ports.free_ports(1 + resources.processes_per_node, own_address())
        ports = {0: own} | {one.number: (one.ready or {})["ports"] for one in self._others()}
        hosts = {0: own_address()} | {one.number: one.host for one in self._others()}
        announced = {
            "host": os.environ.get(_MASTER) or own_address(),
            "port": port,
            "workers": [f"{hosts[n]}:{port}" for n in sorted(hosts) for port in ports[n]],
        }
        self.announce(meeting=announced)
        return _rendezvous(announced, self.slot)

    def announce(self, **values: Any) -> None:
        """Publish values to the other nodes, beside those announced before."""
        self._announced.update(values)
        self.slot.tell(self._announced)

    def resolve_end(self, ended: ExitStatus, is_over: Callable[[], bool]) -> ExitStatus:
        """Combine the ends of all nodes; waits for the others if the local script succeeded."""
        if ended.cause is not ExitCause.EXITED:
            return self._end_elsewhere(ended) if not is_over() else ended
        if ended.code:
            return self._first_failure(ended)
        self.wait(lambda: is_over() or self.abort_reason() is not None or self._all_ended())
        return self._end_elsewhere(ended)

    def _all_ended(self) -> bool:
        return sum(one.ended is not None for one in self._others()) == self._count - 1

    def _end_elsewhere(self, ended: ExitStatus) -> ExitStatus:
        problem = self.abort_reason()
        if isinstance(problem, RunFailedError):
            raise problem
        return problem or ended

    def _first_failure(self, ended: ExitStatus) -> ExitStatus:
        """The failure that caused the others, given that the local script failed."""
        failed_at, settled = run_nodes.now(), time.monotonic() + _SETTLE_SECONDS
        self.wait(lambda: self.abort_reason() is not None or time.monotonic() > settled)
        other = self._first_failed()
        if other is None:
            return ended
        killed = (other.code or 0) < 0 <= ended.code
        return _end_of(other) if killed or (other.ended or 0.0) < failed_at else ended


class WorkerNode(TrainingNode):
    """A node that is not the first: it follows the first one, and reports to it."""

    def head(self) -> RunNode | None:
        """The first node as last read; None before."""
        return self.nodes.get(0)

    def abort_reason(self) -> RunFailedError | ExitStatus | None:
        """STOPPED if the first node has ended or is lost; it reports the run's end itself."""
        head = self.head()
        gone = head is not None and (
            head.ended is not None or self.seconds_silent(head) > _FIRST_LOST_SECONDS
        )
        return ExitStatus(0, cause=ExitCause.STOPPED) if gone else None

    def wait_announced(self, name: str, is_over: Callable[[], bool]) -> Any:
        """Wait for a value that the first node announces; None if the run ends before."""

        def found() -> Any:
            head = self.head()
            return head.told.get(name) if head else None

        self.wait(lambda: is_over() or self.abort_reason() is not None or found() is not None)
        return found()

    def rendezvous(self, resources: Resources, is_over: Callable[[], bool]) -> Rendezvous | None:
        """Report that this node is ready, and wait for the addresses of the rendezvous."""
        ports = tcp_ports.free_ports(resources.processes_per_node, own_address())
        self.slot.is_ready({"ports": ports})
        announced = self.wait_announced("meeting", is_over)
        return None if announced is None else _rendezvous(announced, self.slot)

    def resolve_end(self, ended: ExitStatus, is_over: Callable[[], bool]) -> ExitStatus:
        """Report the end of the local script at once; the first node decides the run's end.

        It must not wait for :meth:`close`: the first node may be about to fail because of it.
        """
        if ended.cause is ExitCause.EXITED:
            self._report_end(ended)
        return ended


def _end_of(node: RunNode) -> ExitStatus:
    return ExitStatus(node.code or 0, tail=node.tail, process=f"node {node.number}")


def _rendezvous(announced: Mapping[str, Any], slot: NodeSlot) -> Rendezvous:
    local = range(slot.number, slot.number + 1)
    return Rendezvous(local, announced["host"], announced["port"], tuple(announced["workers"]))


class NodeTakenError(RuntimeError):
    """Another process is this node of the run."""


def open_head_node(
    flow_run_id: str, count: int, join_seconds: float, **announced: Any
) -> HeadNode:
    """Claim the first node of a run, and start its heartbeat.

    Args:
        flow_run_id: The run.
        count: Number of its nodes.
        join_seconds: How long the others may take to join.
        **announced: Values that the others can read at once.

    Raises:
        NodeTakenError: If another process is the first node.
    """
    slot = run_nodes.own_slot(flow_run_id)
    if not slot.take(run_nodes.own_holder(), own_address(), announced):
        raise NodeTakenError(slot)
    head = HeadNode(slot, count, join_seconds, announced)
    head.start()
    return head
