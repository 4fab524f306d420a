"""Disturb a cluster at random while trainings go on in it, and count what became of them.

``python -m tests.e2e.kubernetes_soak [--times 100] [--seed N]``. The worker is killed and started
again, the API server goes away or answers with errors, pods are killed, evicted and deleted, Jobs
are deleted, nodes are lost and come back, and people stop runs. The promise: every run that was
accepted ends in a named state, no script begins twice, and nothing goes on in the cluster that
no run asks for.
"""

from __future__ import annotations

import argparse
import collections
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.e2e import cluster_stack
from tests.e2e.cluster_stack import ClusterStack
from tests.e2e.stack import SLOWEST

_AT_ONCE = 4
_ENDED = {"COMPLETE", "FAIL TRAIN", "STOPPED", "CREATE FAILED", "TIMED OUT"}


@dataclass
class Tally:
    """What happened."""

    done: collections.Counter[str] = field(default_factory=collections.Counter)
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    stuck: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept."""
        return not (self.stuck or self.twice or self.left)


class Disturber:
    """Does to a cluster what befalls clusters."""

    def __init__(self, stack: ClusterStack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance
        self._lost: list[str] = []
        self._kinds: list[Callable[[list[str]], str]] = [
            self._worker, self._worker, self._outage, self._errors, self._pod, self._pod,
            self._job, self._node, self._stop, self._stop,
        ]  # fmt: skip

    def disturb(self, going: list[str]) -> str:
        """Do one thing; what it was."""
        return self._chance.choice(self._kinds)(going)

    def mend(self) -> None:
        """Give back what is away."""
        for node in self._lost:
            self._stack.node_comes_back(node)
        self._lost.clear()
        self._stack.clear_faults()

    def _worker(self, _: list[str]) -> str:
        self._stack.kill_worker()
        time.sleep(self._chance.uniform(0, 3))
        self._stack.start_worker()
        return "worker killed"

    def _outage(self, _: list[str]) -> str:
        self._stack.outage(self._chance.uniform(2, 12))
        return "API away"

    def _errors(self, _: list[str]) -> str:
        kind = self._chance.choice(["answer", "close", "drop", "hang"])
        code = self._chance.choice([429, 500, 503])
        self._stack.fault(kind=kind, code=code, times=self._chance.randint(1, 5))
        return f"API faulty: {kind}"

    def _pod(self, _: list[str]) -> str:
        pods = self._stack.going()
        if not pods:
            return "nothing"
        pod, how = self._chance.choice(pods), self._chance.choice(["oom", "evict", "delete"])
        if how == "delete":
            self._stack.delete("Pod", pod)
        else:
            self._stack.pod_dies(how, pod)
        return f"pod: {how}"

    def _job(self, _: list[str]) -> str:
        jobs = self._stack.jobs()
        if not jobs:
            return "nothing"
        self._stack.delete("Job", self._chance.choice(jobs)["metadata"]["name"])
        return "Job deleted"

    def _node(self, _: list[str]) -> str:
        if self._lost:
            self._stack.node_comes_back(self._lost.pop())
            return "node back"
        node = self._chance.choice(self._stack.nodes())
        self._stack.lose_node(node, processes_go_on=self._chance.random() < 0.5)
        self._lost.append(node)
        return "node lost"

    def _stop(self, going: list[str]) -> str:
        if not going:
            return "nothing"
        self._stack.ask("runs", "stop", self._chance.choice(going), timeout=400)
        return "run stopped"


def soak(times: int, seed: int, pause: tuple[float, float] = (0.5, 4.0)) -> Tally:
    """Disturb ``times`` times; the tally."""
    chance, tally = random.Random(seed), Tally()
    with cluster_stack.running() as stack:
        disturber = Disturber(stack, chance)
        (stack.data / "ran").mkdir(mode=0o777)
        accepted: list[str] = []
        for number in range(times):
            going = _going(stack, accepted)
            while len(going) < _AT_ONCE:
                seconds = chance.uniform(0, 12)
                asked = {"folder": "/nas/data/ran", "seconds": seconds}
                accepted.append(stack.submit("counted", hyperparameters=asked))
                going.append(accepted[-1])
            time.sleep(chance.uniform(*pause))
            done = disturber.disturb(going)
            tally.done[done] += 1
            print(f"{number + 1}/{times} {done}; {len(accepted)} runs", flush=True)
        disturber.mend()
        _judge(stack, accepted, tally)
    return tally


def _going(stack: ClusterStack, accepted: list[str]) -> list[str]:
    states = {row["id"]: row["state"] for row in stack.do("runs", "list", "-n", "10000")}
    return [run for run in accepted if states.get(run) not in _ENDED]


def _judge(stack: ClusterStack, accepted: list[str], tally: Tally) -> None:
    deadline = time.monotonic() + SLOWEST * 150
    while _going(stack, accepted) and time.monotonic() < deadline:
        time.sleep(1)
    states = {row["id"]: row["state"] for row in stack.do("runs", "list", "-n", "10000")}
    tally.states.update(states[run] for run in accepted)
    tally.stuck = [f"{run} {states[run]}" for run in accepted if states[run] not in _ENDED]
    deadline = time.monotonic() + SLOWEST * 30
    while stack.going() and time.monotonic() < deadline:
        time.sleep(1)
    tally.left = stack.going()
    begun = {one.name: one.read_text().count("began") for one in (stack.data / "ran").iterdir()}
    tally.twice = [name for name, count in begun.items() if count > 1]


def main() -> None:
    """Soak and print the tally; exit status 1 if the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    tally = soak(arguments.times, arguments.seed)
    print(tally)
    raise SystemExit(0 if tally.kept else 1)


if __name__ == "__main__":
    main()
