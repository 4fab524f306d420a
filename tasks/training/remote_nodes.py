"""The other machines of a run that is spread over several, as one of them sees them.

The first node executes the run and decides how it ended; the others join it, and report. They
meet in the catalogue, which every one of them reaches anyway: see :mod:`registry.runs.run_nodes`.
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

from infra.errors import ModelyardError, RunFailedError
from infra.workloads.exit_status import ExitCause, ExitStatus
from registry.flow_kinds import TRAIN
from registry.runs import run_nodes
from registry.runs.run_nodes import Node, Seat
from tasks.resources import Resources
from tasks.training import nodes
from tasks.training.nodes import Meeting

_INTERVAL_SECONDS = 1.0
_LONGEST_STEP = 3

# A node says that it lives every second. So long after its last word its machine is given up; the
# first node gets longer, since without it the others have nobody to tell.
_LOST_SECONDS = 30.0
_FIRST_LOST_SECONDS = 90.0

# When one node's script fails, those of others that talk to it fail within moments.
_SETTLE_SECONDS = 3.0

_NODE = "MODELYARD_NODE"
_ATTEMPT = "MODELYARD_ATTEMPT"
_MASTER = "MODELYARD_MASTER"
_ADDRESS = "MODELYARD_POD_IP"
_HOLDER = "MODELYARD_POD_UID"

_logger = logging.getLogger("modelyard.nodes")


def own_seat(flow_run_id: str) -> Seat:
    """The node of the run that this machine is."""
    return Seat(flow_run_id, int(os.environ.get(_ATTEMPT, "1")), int(os.environ.get(_NODE, "0")))


def own_address() -> str:
    """This machine's address, for the other nodes."""
    return os.environ.get(_ADDRESS) or socket.gethostbyname(socket.gethostname())


def own_holder() -> str:
    """Who this process is among all that may want its seat."""
    return os.environ.get(_HOLDER) or f"{socket.gethostname()}-{os.getpid()}"


class OtherNodes(ABC):
    """The other nodes of a run."""

    def __init__(self, seat: Seat) -> None:
        """See the others from ``seat``, which has been taken; begin with :meth:`begin`."""
        self.seat = seat
        self.nodes: Mapping[int, Node] = {}
        self._unheard: dict[int, float] = {}
        self._looked_at = time.monotonic()
        self._done = threading.Event()
        self._looked = threading.Condition()
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="other nodes")

    def begin(self) -> None:
        """Begin to say that this node lives, and to look at the others."""
        self._thread.start()

    def close(self, ended: ExitStatus | None = None, error: ModelyardError | None = None) -> None:
        """Say how this node ended, and nothing more.

        Args:
            ended: How its script did; None if it did not come to that, or was ended.
            error: Why it could not do its part.
        """
        self._done.set()
        self._thread.join(_INTERVAL_SECONDS + 5)
        self._say_ended(ended, error)

    def _say_ended(self, ended: ExitStatus | None, error: ModelyardError | None = None) -> None:
        exited = ended if ended and ended.cause is ExitCause.EXITED else None
        self.seat.end(
            code=exited.code if exited else None,
            tail=exited.tail if exited else (),
            error=error.as_dict() if error else None,
        )

    @abstractmethod
    def trouble(self) -> RunFailedError | ExitStatus | None:
        """Why this node must not go on: another one's end, or an error; None if it may."""

    @abstractmethod
    def meet(self, resources: Resources, give_up: Callable[[], bool]) -> Meeting | None:
        """Wait until all nodes are ready; None if ``give_up`` says so before.

        Raises:
            RunFailedError: If one of them never is, or cannot do its part.
        """

    @abstractmethod
    def conclude(self, ended: ExitStatus, give_up: Callable[[], bool]) -> ExitStatus:
        """How the script ended on all nodes that this one answers for.

        Args:
            ended: How it ended here.
            give_up: Whether the run is stopped, or its time is over.

        Raises:
            RunFailedError: If a node was lost or could not do its part.
        """

    def _go_on(self) -> None:
        while not self._done.is_set():
            try:
                found = run_nodes.look(self.seat.flow_run_id, self.seat.attempt)
                self.seat.beat()
            except Exception:  # the edge of the loop: the next turn may do better
                _logger.exception("The other nodes could not be looked at")
            else:
                with self._looked:
                    self._count_silence(found)
                    self.nodes = found
                    self._looked.notify_all()
            self._done.wait(_INTERVAL_SECONDS)

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait until what is known of the nodes, or something else, makes ``until`` true."""
        with self._looked:
            while not until():
                self._looked.wait(_INTERVAL_SECONDS)

    def _count_silence(self, found: Mapping[int, Node]) -> None:
        """Count for how long this process has looked at each node without a new word of it.

        A look stands for a few seconds at most: between two that are further apart this machine
        was asleep or the database away, and nothing could be heard.
        """
        now = time.monotonic()
        step = min(now - self._looked_at, _LONGEST_STEP * _INTERVAL_SECONDS)
        self._looked_at = now
        for number, node in found.items():
            before = self.nodes.get(number)
            silent = before is not None and before.heard == node.heard
            self._unheard[number] = self._unheard.get(number, 0.0) + step if silent else 0.0

    def silence(self, node: Node) -> float:
        """Seconds for which this process has listened to a node in vain."""
        return self._unheard.get(node.number, 0.0)


class Joining(OtherNodes):
    """The first node's view: it waits for the others, and answers for all of them."""

    def __init__(self, seat: Seat, count: int, join_seconds: float, told: Mapping[str, Any]):
        """Take part as the first of ``count`` nodes.

        Args:
            seat: Node 0.
            count: How many there are in all.
            join_seconds: How long the others may take to appear.
            told: What they are told at once.
        """
        super().__init__(seat)
        self._count = count
        self._join_seconds = join_seconds
        self._told = dict(told)
        self._began = time.monotonic()

    def _others(self) -> list[Node]:
        return [self.nodes[number] for number in range(1, self._count) if number in self.nodes]

    def trouble(self) -> RunFailedError | ExitStatus | None:
        """The first failure of another node: of several, that of one that was killed."""
        if failed := self._first_failed():
            return _ended(failed)
        for one in self._others():
            if one.error:
                return RunFailedError(
                    f"Node {one.number}: {one.error['message']}", one.error["hint"],
                    state=TRAIN.failure, code=one.error["code"],
                )  # fmt: skip
            if one.ended is None and self.silence(one) > _LOST_SECONDS:
                return RunFailedError(
                    f"Node {one.number} has not been heard of for {_LOST_SECONDS:.0f} s.",
                    "Its machine or its network is gone: retry the run.",
                    state=TRAIN.failure, code="NodeLost",
                )  # fmt: skip
        return None

    def _first_failed(self) -> Node | None:
        failed = [one for one in self._others() if one.ended is not None and one.code]
        return min(failed, key=lambda one: ((one.code or 0) > 0, one.ended), default=None)

    def _never_joined(self) -> RunFailedError | None:
        missing = [str(number) for number in range(1, self._count) if number not in self.nodes]
        if not missing or time.monotonic() - self._began < self._join_seconds:
            return None
        return RunFailedError(
            f"After {self._join_seconds:g} s {len(missing)} of {self._count} nodes have not "
            f"joined: {', '.join(missing)}.",
            "See what their pods wait for, or ask for fewer; MODELYARD_JOIN_SECONDS is how long "
            "they are waited for.",
            state=TRAIN.failure,
            code="NodeNeverJoined",
        )

    def meet(self, resources: Resources, give_up: Callable[[], bool]) -> Meeting | None:
        """Wait for the others, and tell them where all meet."""
        problem: RunFailedError | ExitStatus | None = None
        gave_up = False

        def decided() -> bool:
            nonlocal problem, gave_up
            gave_up = give_up()
            problem = self.trouble() or self._never_joined()
            ready = [one for one in self._others() if one.ready is not None]
            return gave_up or problem is not None or len(ready) == self._count - 1

        self.wait(decided)
        if gave_up:
            return None
        if isinstance(problem, RunFailedError):
            raise problem
        port, *own = nodes.free_ports(1 + resources.processes_per_node, own_address())
        ports = {0: own} | {one.number: (one.ready or {})["ports"] for one in self._others()}
        hosts = {0: own_address()} | {one.number: one.host for one in self._others()}
        meeting = {
            "host": os.environ.get(_MASTER) or own_address(),
            "port": port,
            "workers": [f"{hosts[n]}:{port}" for n in sorted(hosts) for port in ports[n]],
        }
        self.seat.tell({**self._told, "meeting": meeting})
        return _meeting(meeting, self.seat)

    def tell(self, **told: Any) -> None:
        """Tell the others, beside what they were told."""
        self._told.update(told)
        self.seat.tell(self._told)

    def conclude(self, ended: ExitStatus, give_up: Callable[[], bool]) -> ExitStatus:
        """How the script ended on all nodes; waits for the others where it ended well here."""
        if ended.cause is not ExitCause.EXITED:
            return self._told_by_another(ended) if not give_up() else ended
        if ended.code:
            return self._first_of_all(ended)
        self.wait(lambda: give_up() or self.trouble() is not None or self._all_ended())
        return self._told_by_another(ended)

    def _all_ended(self) -> bool:
        return sum(one.ended is not None for one in self._others()) == self._count - 1

    def _told_by_another(self, ended: ExitStatus) -> ExitStatus:
        problem = self.trouble()
        if isinstance(problem, RunFailedError):
            raise problem
        return problem or ended

    def _first_of_all(self, ended: ExitStatus) -> ExitStatus:
        """Whose failure ended the others, where it failed here."""
        failed_at, settled = run_nodes.now(), time.monotonic() + _SETTLE_SECONDS
        self.wait(lambda: self.trouble() is not None or time.monotonic() > settled)
        other = self._first_failed()
        if other is None:
            return ended
        killed = (other.code or 0) < 0 <= ended.code
        return _ended(other) if killed or (other.ended or 0.0) < failed_at else ended


class Joined(OtherNodes):
    """The view of a node that is not the first: it does as the first says, and reports."""

    def first(self) -> Node | None:
        """What is known of the first node."""
        return self.nodes.get(0)

    def trouble(self) -> RunFailedError | ExitStatus | None:
        """Whether the first node has ended or is gone; how it ended is told there."""
        first = self.first()
        gone = first is not None and (
            first.ended is not None or self.silence(first) > _FIRST_LOST_SECONDS
        )
        return ExitStatus(0, cause=ExitCause.STOPPED) if gone else None

    def told(self, what: str, give_up: Callable[[], bool]) -> Any:
        """Wait for something that the first node tells; None if the run is over before."""

        def found() -> Any:
            first = self.first()
            return first.told.get(what) if first else None

        self.wait(lambda: give_up() or self.trouble() is not None or found() is not None)
        return found()

    def meet(self, resources: Resources, give_up: Callable[[], bool]) -> Meeting | None:
        """Say that this node is ready, and wait until the first one says where all meet."""
        ports = nodes.free_ports(resources.processes_per_node, own_address())
        self.seat.is_ready({"ports": ports})
        meeting = self.told("meeting", give_up)
        return None if meeting is None else _meeting(meeting, self.seat)

    def conclude(self, ended: ExitStatus, give_up: Callable[[], bool]) -> ExitStatus:
        """How the script ended here: whatever it was, the first node decides.

        It is told at once: the first node may be about to fail of it.
        """
        if ended.cause is ExitCause.EXITED:
            self._say_ended(ended)
        return ended


def _ended(node: Node) -> ExitStatus:
    return ExitStatus(node.code or 0, tail=node.tail, process=f"node {node.number}")


def _meeting(told: Mapping[str, Any], seat: Seat) -> Meeting:
    here = range(seat.number, seat.number + 1)
    return Meeting(here, told["host"], told["port"], tuple(told["workers"]))


class SeatTakenError(RuntimeError):
    """Somebody else is this node of the run."""


def open_first(flow_run_id: str, count: int, join_seconds: float, **told: Any) -> Joining:
    """Become the first node of a run.

    Raises:
        SeatTakenError: If somebody else is.
    """
    seat = own_seat(flow_run_id)
    if not seat.take(own_holder(), own_address(), told):
        raise SeatTakenError(seat)
    joining = Joining(seat, count, join_seconds, told)
    joining.begin()
    return joining
