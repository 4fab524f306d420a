"""Resources of the pods that predict: what an instance has less the basic use, divided."""

from __future__ import annotations

import math
from dataclasses import dataclass

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.workloads.base import ResourceRequest

_GIB = 2**30
_MIB = 2**20

# What the run takes itself, which plans, follows the pods and joins their results: its own pod's
# size on a cluster. A run with its libraries has 0.4 GiB resident.
BASIC_CPU = 0.5
BASIC_MEMORY_GIB = 2.0

# What any predictor needs: the scheduler's least share of a core, and memory for two interpreters
# with numpy, the batches between them, and the container that stages, whose limit is as large.
_LEAST_CPU = 0.1
_LEAST_MEMORY = 1 * _GIB
# What a shard has at most beside a server.
_SHARD_CPU = 1.0
_SHARD_MEMORY = 2 * _GIB


@dataclass(frozen=True)
class PodResources:
    """Resources of one pod.

    Attributes:
        cpu: Its cores.
        memory: Its memory in bytes.
        gpus: Its GPUs.
        idle_gpus: GPUs of its instance that no pod has.
    """

    cpu: float
    memory: int
    gpus: int = 0
    idle_gpus: int = 0

    def requested(self, shape: InstanceType) -> ResourceRequest:
        """The same as a workload requests them on an instance of a shape."""
        return ResourceRequest(
            cpu=self.cpu,
            memory=self.memory,
            accelerator=shape.gpu_resource,
            accelerators=self.gpus,
        )


@dataclass(frozen=True)
class SharedPod:
    """Resources of the containers of a pod with a server.

    Attributes:
        shard: Those of the shard.
        server: Those of the server.
    """

    shard: PodResources
    server: PodResources


def divide_instance(shape: InstanceType, nodes: int, pods: int) -> PodResources:
    """Divide instances among pods that are equal: each instance has pods / nodes, rounded up.

    Args:
        shape: Shape of an instance.
        nodes: How many instances there are.
        pods: How many pods there are.

    Raises:
        BadInputError: ``PodsTooFew``, if an instance would have none; ``PodsExceedGpus``, if an
            instance has fewer GPUs than pods.
    """
    if pods < nodes:
        raise BadInputError(
            f"pods: {pods} pods do not use {nodes} instances.",
            f"Set pods to {nodes} or more, or lower resources.nodes.",
            code="PodsTooFew",
        )
    each = math.ceil(pods / nodes)
    if shape.gpus and each > shape.gpus:
        raise BadInputError(
            f"pods: {each} pods of an instance do not share its {shape.gpus} GPUs; on a cluster a "
            "GPU is one pod's alone.",
            f"Set pods to {shape.gpus * nodes} or fewer, or choose a type with more GPUs.",
            code="PodsExceedGpus",
        )
    return PodResources(
        # What an instance does not have is refused by check(), with what there is.
        cpu=max(0, math.floor((shape.cpu - BASIC_CPU) * 1000 / each)) / 1000,
        memory=max(0, math.floor((shape.memory_gib - BASIC_MEMORY_GIB) * 1024 / each)) * _MIB,
        gpus=shape.gpus // each,
        idle_gpus=shape.gpus % each,
    )


def divide_pod(pod: PodResources) -> SharedPod:
    """Divide a pod between its shard, which reads and writes, and a server beside it.

    The shard has an eighth of the memory, from 1 to 2 GiB, and a quarter of the cores, at most
    one; the server has the rest and all GPUs.
    """
    cpu = min(_SHARD_CPU, math.floor(pod.cpu * 250) / 1000)
    memory = min(_SHARD_MEMORY, max(_LEAST_MEMORY, pod.memory // 8 // _MIB * _MIB))
    shard = PodResources(max(_LEAST_CPU, cpu), memory)
    rest = PodResources(
        max(0.0, round(pod.cpu - shard.cpu, 3)), max(0, pod.memory - memory), pod.gpus
    )
    return SharedPod(shard, rest)


def check(pod: PodResources, pods: int, model_bytes: int, *, has_server: bool = False) -> None:
    """Refuse pods that are too small for their model.

    Args:
        pod: What each pod has.
        pods: How many there are.
        model_bytes: Size of the model's files, which are in memory once it is loaded; 0 if
            unknown.
        has_server: Whether a server beside each shard loads the model.

    Raises:
        BadInputError: With the code ``PodsTooSmall``.
    """
    containers = 2 if has_server else 1
    cores = containers * _LEAST_CPU
    needed = containers * _LEAST_MEMORY + model_bytes
    if pod.cpu >= cores and pod.memory >= needed:
        return
    raise BadInputError(
        f"pods: each of {pods} has {pod.cpu:.2g} cores and {pod.memory / _GIB:.1f} GiB of memory; "
        f"the model needs {cores:g} cores and {needed / _GIB:.1f} GiB.",
        "Lower pods, or choose a larger resources.instance_type, or more resources.nodes.",
        code="PodsTooSmall",
    )
