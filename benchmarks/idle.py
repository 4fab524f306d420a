"""What an idle stack costs: processor time and memory, beside bare servers that idle as well.

Both sides idle at the same time, and processor time is counted, not time on a clock, so that a
machine with other work measures nearly the same. Memory is private: what would be free without
the process. Forks share pages that are private to none of them; so there is a second figure, in
which each process has its part of what it shares.
"""

from __future__ import annotations

import time

import psutil

from benchmarks import house, peers, usage
from benchmarks.house import House
from benchmarks.machine import Calm
from benchmarks.results import Comparison
from infra.home import Home
from infra.stack import client

REPETITIONS = 1
_SETTLING_SECONDS = 60.0
_SECONDS = 300.0
_ALLOWANCE_PERCENT = 1.0
_MOST_MIB = 600.0
_PEERS = "prefect server + mlflow server"
_FORKED = {"worker": "worker.sock", "scheduler": "scheduler.sock"}


def _processes(home: House) -> dict[str, list[psutil.Process]]:
    """Every process of the stack, by part; what is of none is the supervisor's."""
    status = client.status(Home(home.root))
    assert status is not None
    supervisor = psutil.Process(status["pid"])
    left = {one.pid: one for one in [supervisor, *supervisor.children(recursive=True)]}
    found: dict[str, list[psutil.Process]] = {}
    # These two are children of the fork server, and listen at sockets of their own.
    sockets = {str(Home(home.root).sockets / name): part for part, name in _FORKED.items()}
    for connection in psutil.net_connections("unix"):
        part = sockets.get(str(connection.laddr))
        if part and connection.pid in left:
            found.setdefault(part, []).append(left.pop(connection.pid))
    for part in status["parts"]:
        if part["pid"] in left:
            leash = left.pop(part["pid"])
            below = usage.tree(leash)
            rest = [left.pop(one.pid) for one in below if one.pid in left]
            found.setdefault(part["name"], []).extend([leash, *rest])
    return {**found, "supervisor": list(left.values())}


def _server_at(url: str) -> psutil.Process:
    """The process that listens; MLflow's job runners, which ours does not have, are beside it."""
    port = int(url.rpartition(":")[2])
    pids = {
        one.pid for one in psutil.net_connections("tcp")
        if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN
    }  # fmt: skip
    return psutil.Process(min(pid for pid in pids if pid))


def measure(repetitions: int, calm: Calm) -> list[Comparison]:
    """Idle for minutes; once, since it takes long and averages by itself."""
    del repetitions
    with (
        house.temporary() as home,
        peers.temporary_home() as first,
        peers.temporary_home() as second,
    ):
        home.up()
        with peers.prefect_server(first) as prefect, peers.mlflow_server(second) as mlflow:
            calm.wait()
            time.sleep(_SETTLING_SECONDS)
            parts = _processes(home)
            bare = [
                one for server in (prefect, mlflow) for one in usage.tree(_server_at(server.url))
            ]
            groups = {**parts, _PEERS: bare}
            before = {name: usage.seconds(group) for name, group in groups.items()}
            time.sleep(_SECONDS)
            shares = {
                name: (usage.seconds(group) - before[name]) / _SECONDS * 100
                for name, group in groups.items()
            }
            memory = {name: usage.mebibytes(group, "uss") for name, group in groups.items()}
            shared = {name: usage.mebibytes(group, "pss") for name, group in groups.items()}
    peer, peer_memory, peer_shared = (one.pop(_PEERS) for one in (shares, memory, shared))
    return [
        Comparison("share of a core, all parts", "%", [sum(shares.values())], [peer], _PEERS,
                   "the peers + 1 %", peer + _ALLOWANCE_PERCENT),
        *(Comparison(f"share of a core, {name}", "%", [share]) for name, share in shares.items()),
        Comparison("private memory, all parts", "MiB", [sum(memory.values())], [peer_memory],
                   _PEERS, "600 MiB", _MOST_MIB),
        *(Comparison(f"private memory, {name}", "MiB", [one]) for name, one in memory.items()),
        Comparison("memory with parts of what is shared, all parts", "MiB",
                   [sum(shared.values())], [peer_shared], _PEERS),
    ]  # fmt: skip
