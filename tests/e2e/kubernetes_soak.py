"""Disturb a cluster at random while trainings go on in it, and count what became of them.

``python -m tests.e2e.kubernetes_soak [--times 100] [--seed N]``. The worker is killed and started
again, the API server goes away or answers with errors, pods are killed, evicted and deleted, Jobs
are deleted, nodes are lost and come back, and people stop runs and try them again. The promise:
every run that was accepted ends in a named state, each time by what befell it and by nothing else;
no script begins twice in a try, and none of a complete run has not begun; and nothing goes on in
the cluster that no run asks for.
"""

from __future__ import annotations

import argparse
import collections
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from infra.kubernetes import names
from tests.e2e import cluster_stack
from tests.e2e.cluster_stack import ClusterStack
from tests.e2e.stack import SLOWEST

_AT_ONCE = 4
_RETRIES = 2
_RETRY_CHANCE = 0.5
# What a run may die of here. Its script by itself never fails.
_REASONS = {"OOMKilled", "Evicted", "NodeLost", "Gone"}
_ENDED = {"COMPLETE", "FAIL TRAIN", "STOPPED", "CREATE FAILED", "TIMED OUT"}


@dataclass
class Tally:
    """What happened.

    Attributes:
        done: How often each disturbance was.
        ends: How many runs ended how.
        stuck: Runs that did not end.
        retried: How often a run was tried again.
        strange: Runs that ended for no reason that was given them.
        twice: Runs whose script began more than once a try, and complete ones whose never did.
        left: What went on in the cluster when all runs had ended.
    """

    done: collections.Counter[str] = field(default_factory=collections.Counter)
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    retried: collections.Counter[str] = field(default_factory=collections.Counter)
    stuck: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether the promise was kept, by runs of which some were left in peace."""
        broken = self.stuck or self.strange or self.twice or self.left
        return not broken and self.ends["COMPLETE"] > 0


class Disturber:
    """Does to a cluster what befalls clusters.

    Attributes:
        befell: How often a run was given a reason to end.
    """

    def __init__(self, stack: ClusterStack, chance: random.Random) -> None:
        self._stack = stack
        self._chance = chance
        self.befell: collections.Counter[str] = collections.Counter()
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
        self._befalls(one for one in self._stack.pods() if one["metadata"]["name"] == pod)
        if how == "delete":
            self._stack.delete("Pod", pod)
        else:
            self._stack.pod_dies(how, pod)
        return f"pod: {how}"

    def _job(self, _: list[str]) -> str:
        jobs = self._stack.jobs()
        if not jobs:
            return "nothing"
        job = self._chance.choice(jobs)
        self._befalls([job])
        self._stack.delete("Job", job["metadata"]["name"])
        return "Job deleted"

    def _node(self, _: list[str]) -> str:
        if self._lost:
            self._stack.node_comes_back(self._lost.pop())
            return "node back"
        node = self._chance.choice(self._stack.nodes())
        self._stack.lose_node(node, processes_go_on=self._chance.random() < 0.5)
        self._lost.append(node)
        self._befalls(one for one in self._stack.pods() if one["spec"].get("nodeName") == node)
        return "node lost"

    def _stop(self, going: list[str]) -> str:
        if not going:
            return "nothing"
        run = self._chance.choice(going)
        self.befell[run] += 1
        self._stack.ask("runs", "stop", run, timeout=400)
        return "run stopped"

    def _befalls(self, things: Iterable[dict[str, Any]]) -> None:
        self.befell.update(thing["metadata"]["labels"][names.FLOW_RUN] for thing in things)


def soak(times: int, seed: int, pause: tuple[float, float] = (0.5, 4.0)) -> Tally:
    """Disturb ``times`` times; the tally."""
    chance, tally = random.Random(seed), Tally()
    with cluster_stack.running() as stack:
        disturber = Disturber(stack, chance)
        ran = stack.data / "ran"
        ran.mkdir()
        ran.chmod(0o777)  # pods are other users
        accepted: list[str] = []
        for number in range(times):
            _retry(stack, accepted, chance, tally)
            going = _going(stack, accepted)
            while len(going) < _AT_ONCE:
                seconds = chance.uniform(0, 12)
                name = f"run-{len(accepted)}"
                asked = {"folder": "/nas/data/ran", "name": name, "seconds": seconds}
                # Only a NAS that a run's parameters name is mounted in its pod.
                kept = f"nas://data:/checkpoints/{name}"
                accepted.append(
                    stack.submit("counted", hyperparameters=asked, checkpoint_uri=kept)
                )
                going.append(accepted[-1])
            time.sleep(chance.uniform(*pause))
            done = disturber.disturb(going)
            tally.done[done] += 1
            print(f"{number + 1}/{times} {done}; {len(accepted)} runs", flush=True)
        disturber.mend()
        _judge(stack, accepted, disturber.befell, tally)
    return tally


def _rows(stack: ClusterStack) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in stack.do("runs", "list", "-n", "10000")}


def _going(stack: ClusterStack, accepted: list[str]) -> list[str]:
    rows = _rows(stack)
    return [run for run in accepted if rows[run]["state"] not in _ENDED]


def _retry(stack: ClusterStack, accepted: list[str], chance: random.Random, tally: Tally) -> None:
    """Try some of the runs again that did not end well."""
    rows = _rows(stack)
    for run in accepted:
        again = rows[run]["state"] in _ENDED - {"COMPLETE"} and tally.retried[run] < _RETRIES
        if again and chance.random() < _RETRY_CHANCE:
            stack.do("runs", "retry", run)
            tally.retried[run] += 1


def _judge(
    stack: ClusterStack, accepted: list[str], befell: collections.Counter[str], tally: Tally
) -> None:
    deadline = time.monotonic() + SLOWEST * 150
    while _going(stack, accepted) and time.monotonic() < deadline:
        time.sleep(1)
    rows = _rows(stack)
    for number, run in enumerate(accepted):
        state, why = rows[run]["state"], ""
        if state not in _ENDED:
            tally.stuck.append(f"{run} {state}")
        elif state not in {"COMPLETE", "STOPPED"}:
            shown = stack.show(run)
            why = shown["detail"]
            if why not in _REASONS:
                tally.strange.append(f"{run} {state} {why} {shown['message'][:300]}")
        if tally.retried[run] + (state != "COMPLETE") > befell[run]:
            tally.strange.append(
                f"{run} {state}, {tally.retried[run]} retries, {befell[run]} blows"
            )
        tally.ends[f"{state} {why}".strip()] += 1
        mark = stack.data / "ran" / f"run-{number}"
        begun = mark.read_text().count("began") if mark.exists() else 0
        if begun > 1 + tally.retried[run] or (begun == 0 and state == "COMPLETE"):
            tally.twice.append(f"{run} began {begun} times")
    deadline = time.monotonic() + SLOWEST * 30
    while stack.going() and time.monotonic() < deadline:
        time.sleep(1)
    tally.left = stack.going()


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
