"""Specification of a run's attempt on a cluster, and of its placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from infra.instance_types import InstanceType

RUN_COMMAND = ("python", "-P", "-m", "modelyard.run_pod")
EVERY_MOUNT = "*"


@dataclass(frozen=True)
class Placement:
    """Resources and placement that a run requests of a cluster.

    Attributes:
        shape: The shape of one node.
        nodes: How many pods run it together, 1 or more.
        image: The container image; the cluster's where it is empty.
        boot_storage_gib: Ephemeral storage of the container, in GiB; 0 requests none.
        data_storage_gib: Size of the volume that holds the run's home, in GiB; 0 sets no bound.
        mounts: Ids of the network folders to mount; ``("*",)`` is all of the cluster's.
        seconds: The run's own time limit; None for none.
        allow_cpu: Whether it may run without GPUs where the cluster has none of the kind.
        makes_jobs: Whether it creates Jobs itself, as a pipeline does for its components.
    """

    shape: InstanceType
    nodes: int = 1
    image: str = ""
    boot_storage_gib: float = 0
    data_storage_gib: float = 0
    mounts: tuple[str, ...] = ()
    seconds: float | None = None
    allow_cpu: bool = False
    makes_jobs: bool = False

    @property
    def gpus(self) -> int:
        """Number of GPUs of all the run's nodes."""
        return self.shape.gpus * self.nodes


@dataclass(frozen=True, kw_only=True)
class AttemptSpec:
    """Specification of one attempt of one run.

    Attributes:
        flow_run_id: Prefect's id of the run.
        attempt: The attempt's number, from 1.
        pool: The work pool that the run came through.
        flow: The flow's name.
        run_name: The run's name; any string.
        experiment: The experiment's name; any string, empty for none.
        schedule: The id of the schedule that started it; empty for none.
        slot: The schedule's slot; any string, empty without a schedule.
        placement: Its resources and placement.
        priority_class: Priority class of its pods; the cluster's where it is empty.
        command: The container's command.
        env: Environment variables beside those that the manifest sets; no secrets.
        part: Whether it is a run, or one component of a pipeline's run.
    """

    flow_run_id: str
    attempt: int
    pool: str
    flow: str
    run_name: str
    placement: Placement
    experiment: str = ""
    schedule: str = ""
    slot: str = ""
    priority_class: str = ""
    command: tuple[str, ...] = RUN_COMMAND
    env: Mapping[str, str] = field(default_factory=dict)
    part: Literal["run", "component"] = "run"
