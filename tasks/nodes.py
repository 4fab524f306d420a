"""The processes of a script on several nodes, and what tells them of each other.

Three ways, all at once where they do not exclude each other: torchrun with its rendezvous at the
first node; ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and
``MASTER_PORT`` as ``torch.distributed`` reads them; and TensorFlow's ``TF_CONFIG``. Locally a node
is a process group of this machine.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from infra.connection import clean_environment
from infra.errors import BadInputError
from infra.script import Process
from tasks.resources import Resources

_HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """``count`` different ports of loopback that nobody listens at now."""
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def check_torchrun(python: str) -> None:
    """Refuse an interpreter that cannot run torchrun.

    Raises:
        BadInputError: With the code ``TorchMissing``.
    """
    ask = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([python, "-c", ask], env=clean_environment()).returncode != 0:
        raise BadInputError(
            "torchrun is a part of PyTorch, which is not installed.",
            "Name torch in the requirements.txt beside the entry point, or install it here: "
            "make torch.",
            code="TorchMissing",
        )


def _devices(gpus: Sequence[str], nodes: int) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each node: its share of the GPUs, in order."""
    each = len(gpus) // nodes
    return [",".join(gpus[node * each : (node + 1) * each]) for node in range(nodes)]


def _name(node: int, local_rank: int, resources: Resources) -> str:
    """What the lines of a process begin with; nothing where there is only one."""
    if resources.torchrun or resources.processes_per_node == 1:
        return f"node {node}" if resources.nodes > 1 else ""
    return f"node {node} process {local_rank}"


def processes(
    command: Sequence[str],
    env: Mapping[str, str],
    resources: Resources,
    *,
    gpus: Sequence[str],
    join_seconds: int,
) -> list[Process]:
    """The processes to start on this machine for all nodes; the first is the chief.

    Args:
        command: The script's command line: an interpreter, a file and its arguments.
        env: The environment that all of them have.
        resources: How many, and how.
        gpus: Names of the GPUs that are the run's own, a multiple of the nodes.
        join_seconds: How long torchrun waits for all nodes.
    """
    visible = _devices(gpus, resources.nodes)
    pinned = [
        {**env, "CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        for devices in visible
    ]
    if resources.torchrun:
        return _torchrun(command, pinned, resources, join_seconds)
    if resources.processes == 1:
        return [Process(command, pinned[0])]
    return _plain(command, pinned, resources)


def _torchrun(
    command: Sequence[str], pinned: list[dict[str, str]], resources: Resources, join_seconds: int
) -> list[Process]:
    python, *script = command
    (port,) = free_ports(1)
    return [
        Process(
            [
                python, "-m", "torch.distributed.run",
                f"--nnodes={resources.nodes}",
                f"--nproc-per-node={resources.processes_per_node}",
                f"--node-rank={node}",
                f"--master-addr={_HOST}",
                f"--master-port={port}",
                f"--rdzv-conf=timeout={join_seconds}",
                "--max-restarts=0",
                *script,
            ],
            env,
            _name(node, 0, resources),
        )
        for node, env in enumerate(pinned)
    ]  # fmt: skip


def _plain(
    command: Sequence[str], pinned: list[dict[str, str]], resources: Resources
) -> list[Process]:
    each = resources.processes_per_node
    master, *workers = free_ports(1 + resources.processes)
    cluster = {"worker": [f"{_HOST}:{port}" for port in workers]}
    found = []
    for rank in range(resources.processes):
        node, local_rank = divmod(rank, each)
        variables = {
            "RANK": rank,
            "WORLD_SIZE": resources.processes,
            "LOCAL_RANK": local_rank,
            "LOCAL_WORLD_SIZE": each,
            "NODE_RANK": node,
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": master,
            "TF_CONFIG": json.dumps(
                {"cluster": cluster, "task": {"type": "worker", "index": rank}}
            ),
        }
        env = {**pinned[node], **{name: str(value) for name, value in variables.items()}}
        found.append(Process(command, env, _name(node, local_rank, resources)))
    return found
