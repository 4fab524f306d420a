"""The processes of a script on several nodes, and what tells them of each other.

Three ways, all at once where they do not exclude each other: torchrun with its rendezvous at the
first node; ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and
``MASTER_PORT`` as ``torch.distributed`` reads them; and TensorFlow's ``TF_CONFIG``. On one machine
every node is a process group of it; on a cluster this machine is one of the nodes.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from infra.connection import user_environment
from infra.errors import BadInputError
from infra.workloads.process_group import ProcessSpec
from tasks.resources import Resources

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Meeting:
    """How the processes of a run find each other, and which of its nodes are here.

    Attributes:
        here: The numbers of the nodes that this machine is.
        host: The first node's address.
        port: A free port of it, where all meet.
        workers: An address with a port of its own for each process, by rank: ``HOST:PORT``.
    """

    here: range
    host: str
    port: int
    workers: tuple[str, ...]


def free_ports(count: int, host: str = _HOST) -> list[int]:
    """``count`` different ports of this machine's address ``host`` that nobody listens at now."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def on_this_machine(resources: Resources) -> Meeting:
    """The meeting of nodes that are all here."""
    port, *ports = free_ports(1 + resources.processes)
    workers = tuple(f"{_HOST}:{one}" for one in ports)
    return Meeting(range(resources.nodes), _HOST, port, workers)


def check_torchrun(python: str) -> None:
    """Refuse an interpreter that cannot run torchrun.

    Raises:
        BadInputError: With the code ``TorchMissing``.
    """
    ask = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([python, "-c", ask], env=user_environment()).returncode != 0:
        raise BadInputError(
            "torchrun is a part of PyTorch, which is not installed.",
            "Name torch in the requirements.txt beside the entry point, or install it here: "
            "make torch.",
            code="TorchMissing",
        )


def _devices(gpus: Sequence[str], here: range) -> dict[int, str]:
    """``CUDA_VISIBLE_DEVICES`` of each node that is here: its share of the GPUs, in order."""
    each = len(gpus) // len(here)
    shares = (gpus[first * each : (first + 1) * each] for first in range(len(here)))
    return {node: ",".join(share) for node, share in zip(here, shares, strict=True)}


def _name(node: int, local_rank: int, resources: Resources) -> str:
    """What the lines of a process begin with; nothing where there is only one."""
    if resources.torchrun or resources.processes_per_node == 1:
        return f"node {node}" if resources.nodes > 1 else ""
    return f"node {node} process {local_rank}"


def processes(
    command: Sequence[str],
    env: Mapping[str, str],
    resources: Resources,
    meeting: Meeting,
    *,
    gpus: Sequence[str],
    join_seconds: int,
) -> list[ProcessSpec]:
    """The processes to start on this machine; the first of the first node is the chief.

    Args:
        command: The script's command line: an interpreter, a file and its arguments.
        env: The environment that all of them have.
        resources: How many, and how.
        meeting: Which nodes are here, and where all of them meet.
        gpus: Names of the GPUs that are the run's own here, a multiple of the nodes that are.
        join_seconds: How long torchrun waits for all nodes.
    """
    pinned = {
        node: {**env, "CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        for node, devices in _devices(gpus, meeting.here).items()
    }
    if resources.torchrun:
        return _torchrun(command, pinned, resources, meeting, join_seconds)
    if resources.processes == 1:
        return [ProcessSpec(command, pinned[0])]
    return _plain(command, pinned, resources, meeting)


def _torchrun(
    command: Sequence[str],
    pinned: Mapping[int, dict[str, str]],
    resources: Resources,
    meeting: Meeting,
    join_seconds: int,
) -> list[ProcessSpec]:
    python, *script = command
    return [
        ProcessSpec(
            [
                python, "-m", "torch.distributed.run",
                f"--nnodes={resources.nodes}",
                f"--nproc-per-node={resources.processes_per_node}",
                f"--node-rank={node}",
                f"--master-addr={meeting.host}",
                f"--master-port={meeting.port}",
                f"--rdzv-conf=timeout={join_seconds}",
                "--max-restarts=0",
                *script,
            ],
            env,
            _name(node, 0, resources),
        )
        for node, env in pinned.items()
    ]  # fmt: skip


def _plain(
    command: Sequence[str],
    pinned: Mapping[int, dict[str, str]],
    resources: Resources,
    meeting: Meeting,
) -> list[ProcessSpec]:
    each = resources.processes_per_node
    cluster = {"worker": list(meeting.workers)}
    found = []
    for node, env in pinned.items():
        for local_rank in range(each):
            rank = node * each + local_rank
            variables = {
                "RANK": rank,
                "WORLD_SIZE": resources.processes,
                "LOCAL_RANK": local_rank,
                "LOCAL_WORLD_SIZE": each,
                "NODE_RANK": node,
                "MASTER_ADDR": meeting.host,
                "MASTER_PORT": meeting.port,
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": rank}}
                ),
            }
            told = {name: str(value) for name, value in variables.items()}
            found.append(ProcessSpec(command, {**env, **told}, _name(node, local_rank, resources)))
    return found
