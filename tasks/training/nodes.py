"""Processes of a distributed script, and the environment through which they find each other.

They run under torchrun with its rendezvous at the first node, or with ``RANK``, ``WORLD_SIZE``,
``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` for ``torch.distributed``
and ``TF_CONFIG`` for TensorFlow. On one machine every node is a process group of it; on a cluster
this machine is one of the nodes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra import tcp_ports
from infra.connection import user_environment
from infra.workloads.process_group import ProcessSpec
from tasks.resources import Resources, torch_missing

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Rendezvous:
    """Addresses by which the processes of a run find each other.

    Attributes:
        local: Numbers of the nodes that run on this machine.
        host: Address of the first node.
        port: Port of the rendezvous on the first node.
        workers: ``HOST:PORT`` of each process, by rank; no port is used twice.
    """

    local: range
    host: str
    port: int
    workers: tuple[str, ...]


def local_rendezvous(resources: Resources) -> Rendezvous:
    """Choose the addresses of a rendezvous whose nodes all run on this machine."""
    port, *ports = tcp_ports.free_ports(1 + resources.processes, _HOST)
    workers = tuple(f"{_HOST}:{one}" for one in ports)
    return Rendezvous(range(resources.nodes), _HOST, port, workers)


def check_torchrun(python: str) -> None:
    """Refuse an interpreter that cannot run torchrun.

    Raises:
        BadInputError: With the code ``TorchMissing``.
    """
    ask = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    if subprocess.run([python, "-c", ask], env=user_environment()).returncode != 0:
        raise torch_missing()


def _devices(gpus: Sequence[str], local: range) -> dict[int, str]:
    """``CUDA_VISIBLE_DEVICES`` of each local node: an equal share of the GPUs, in order."""
    each = len(gpus) // len(local)
    shares = (gpus[first * each : (first + 1) * each] for first in range(len(local)))
    return {node: ",".join(share) for node, share in zip(local, shares, strict=True)}


def _name(node: int, local_rank: int, resources: Resources) -> str:
    """Prefix of a process's output lines; "" for the only process."""
    if resources.torchrun or resources.processes_per_node == 1:
        return f"node {node}" if resources.nodes > 1 else ""
    return f"node {node} process {local_rank}"


def plan_processes(
    command: Sequence[str],
    env: Mapping[str, str],
    resources: Resources,
    rendezvous: Rendezvous,
    *,
    gpus: Sequence[str],
    join_seconds: int,
) -> list[ProcessSpec]:
    """Plan the processes of this machine; the first of the first node is the chief.

    Args:
        command: Command line of the script: an interpreter, a file and its arguments.
        env: Environment that all processes share.
        resources: Number of nodes and processes, and whether torchrun starts them.
        rendezvous: The local nodes, and the addresses of all.
        gpus: Names of the GPUs held on this machine; a multiple of the local nodes.
        join_seconds: How long torchrun waits for all nodes.
    """
    pinned = {
        node: {**env, "CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        for node, devices in _devices(gpus, rendezvous.local).items()
    }
    if resources.torchrun:
        return _torchrun(command, pinned, resources, rendezvous, join_seconds)
    if resources.processes == 1:
        return [ProcessSpec(command, pinned[0])]
    return _plain(command, pinned, resources, rendezvous)


def _torchrun(
    command: Sequence[str],
    pinned: Mapping[int, dict[str, str]],
    resources: Resources,
    rendezvous: Rendezvous,
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
                f"--master-addr={rendezvous.host}",
                f"--master-port={rendezvous.port}",
                f"--rdzv-conf=timeout={join_seconds}",
                "--max-restarts=0",
                *script,
            ],
            env,
            _name(node, 0, resources),
            node,
        )
        for node, env in pinned.items()
    ]  # fmt: skip


def _plain(
    command: Sequence[str],
    pinned: Mapping[int, dict[str, str]],
    resources: Resources,
    rendezvous: Rendezvous,
) -> list[ProcessSpec]:
    each = resources.processes_per_node
    cluster = {"worker": list(rendezvous.workers)}
    planned = []
    for node, env in pinned.items():
        for local_rank in range(each):
            rank = node * each + local_rank
            variables = {
                "RANK": rank,
                "WORLD_SIZE": resources.processes,
                "LOCAL_RANK": local_rank,
                "LOCAL_WORLD_SIZE": each,
                "NODE_RANK": node,
                "MASTER_ADDR": rendezvous.host,
                "MASTER_PORT": rendezvous.port,
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": rank}}
                ),
            }
            ranked = {**env, **{name: str(value) for name, value in variables.items()}}
            name = _name(node, local_rank, resources)
            planned.append(ProcessSpec(command, ranked, name, node))
    return planned
