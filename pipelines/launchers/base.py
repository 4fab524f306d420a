"""The one thing that is asked of a launcher: run a job to its end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Resources:
    """What a job asks for.

    Attributes:
        cpu: Cores at most; 0 is no limit.
        memory: Bytes at most; 0 is no limit.
        accelerator: The kind of accelerator, such as ``nvidia.com/gpu``; "" if none.
        accelerators: How many of it.
        cpu_request: Cores at least.
        memory_request: Bytes at least.
    """

    cpu: float = 0.0
    memory: int = 0
    accelerator: str = ""
    accelerators: int = 0
    cpu_request: float = 0.0
    memory_request: int = 0


@dataclass(frozen=True)
class Job:
    """One container to run, with nothing left to be filled in.

    Attributes:
        name: What people call it: the task's path in its run.
        image: The container's image.
        command: Its command, whose first word is the program; the image's own if empty.
        arguments: What follows the command.
        environment: Variables beside those that the launcher gives.
        folder: A folder of its own, which exists; its working folder, where it runs as a process.
        inputs: Local paths of artifacts that it reads.
        outputs: Local paths that it writes, files of parameters and artifacts; their parent
            folders exist.
        resources: What it asks for.
        kubernetes: The settings of Kubernetes, resolved; plain data.
        folders: Folders of a storage that it finds mounted: their URIs by absolute paths.
        seconds: It is stopped after so long; None is no limit.
        fetched: Inputs that are not on this machine: their URIs by their paths. Only a launcher
            that stages is given such, and fetches them where the job runs.
        sent: Folders that are sent when the job has ended well, without the files that are its
            outputs: their URIs by their paths. Likewise.
    """

    name: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    resources: Resources = field(default_factory=Resources)
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    fetched: Mapping[Path, str] = field(default_factory=dict)
    sent: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        code: Its exit status; negative: the signal that ended it.
        reason: Why it failed, for people; "" if it did not.
    """

    code: int
    reason: str = ""


class Launcher(ABC):
    """Runs jobs. Several threads may use one launcher at once.

    Attributes:
        stages: Whether its jobs run elsewhere, and it fetches and sends artifacts itself.
    """

    stages: ClassVar[bool] = False

    @abstractmethod
    def check(self, job: Job) -> None:
        """Refuse a job that this launcher can never run, before anything is started.

        Only the image, the command, the resources and the settings of Kubernetes are looked at.

        Raises:
            BadInputError: With the code ``ImageNotRunnable``, ``ResourcesUnavailable`` or
                ``PlatformUnsupported``.
        """

    def close(self) -> None:  # noqa: B027 (most keep nothing)
        """End what is kept between jobs. Jobs that run go on."""

    @abstractmethod
    def run(self, job: Job, log: Callable[[str], None], cancelled: threading.Event) -> Ended:
        """Run a job to its end; how it ended.

        When this returns, nothing of the job runs any more, whatever it has started.

        Args:
            job: The job.
            log: Told each line that it prints, without its end.
            cancelled: When set, the job is ended.

        Raises:
            ModelyardError: If it could not even be started.
        """
