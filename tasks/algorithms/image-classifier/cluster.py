"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from settings import TrainingError
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Cluster:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0. Only 0 prints and writes.
        world: How many there are.
        device: What it computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print ``line``, once."""
        if self.leads:
            print(line, flush=True)

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def spread(self, tensors: Iterator[Tensor]) -> None:
        """Overwrite ``tensors`` with those of process 0."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share(self, value: T) -> T:
        """``value`` of process 0."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, 0, device=self.device)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """``value`` of every process."""
        found = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(found, value)
        return found


@contextmanager
def joined() -> Iterator[Cluster]:
    """This process as a member; where nobody started several, as the only one."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cluster = Cluster(rank, world, _device(int(os.environ.get("LOCAL_RANK", "0"))))
    if world == 1:
        yield cluster
        return
    dist.init_process_group("nccl" if cluster.device.type == "cuda" else "gloo")
    yield cluster
    dist.destroy_process_group()  # not after an error: others may wait for ever in a collective


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise TrainingError(
            f"There are more processes than GPUs ({gpus}) here. Start at most one for each GPU."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
