"""What is wanted of a cluster: the place of a run, and one attempt of it, whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from infra.instance_types import InstanceType

RUN_COMMAND = ("python", "-P", "-m", "modelyard.run_pod")
EVERY_MOUNT = "*"


@dataclass(frozen=True)
class Placement:
    """What a run's parameters ask of a cluster.

    Attributes:
        shape: The shape of one node.
        nodes: How many pods run it together, 1 or more.
        image: The container image; the cluster's where it is empty.
        boot_storage_gib: Room on the node's disk for what the container writes and logs, in GiB;
            0 asks for nothing.
        data_storage_gib: Size of the volume that holds the run's home, in GiB; 0 sets no bound.
        mounts: Ids of the network folders to have; all that the cluster has if it is ``("*",)``.
        seconds: The run's own limit; none if it is None.
        allow_cpu: Whether it may do without GPUs where the cluster has none such.
        makes_jobs: Whether it makes Jobs itself, as a pipeline does for its components.
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
        """How many GPUs the run has in all its nodes."""
        return self.shape.gpus * self.nodes


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One attempt of one run.

    Attributes:
        flow_run_id: Prefect's id of the run.
        attempt: The attempt's number, from 1.
        pool: The work pool that the run came through.
        flow: The flow's name.
        run_name: What the run is called; any text.
        experiment: The experiment's name, if the run has one; any text.
        schedule: The id of the schedule that started it, if one did.
        slot: The schedule's slot, if a schedule started it; any text.
        placement: What is asked of the cluster.
        priority_class: Of its pods; the cluster's where it is empty.
        command: What the container runs.
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
