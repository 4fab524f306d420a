"""Workloads and the interface of their backends."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from infra.workloads.environment_spec import EnvironmentSpec
from infra.workloads.exit_status import ExitStatus
from infra.workloads.process_group import UNOBSERVED, ProcessObserver

# A line of output, without its end.
Log = Callable[[str], object]

# Variables of a container without GPUs: where NVIDIA's runtime is the node's default, it gives all
# of them to an image that does not say otherwise.
NO_GPUS: Mapping[str, str] = MappingProxyType({"NVIDIA_VISIBLE_DEVICES": "void"})

# Hint of the errors of workloads that cannot run as processes.
CONTAINER_HINT = "Run it as a container: with Docker, or on a cluster."


@dataclass(frozen=True)
class ResourceRequest:
    """Compute resources of a workload.

    Attributes:
        cpu: Limit in cores; 0 is none.
        memory: Limit in bytes; 0 is none.
        accelerator: Kind of accelerator, such as ``nvidia.com/gpu``; "" if none.
        accelerators: How many of it.
        cpu_request: Cores to reserve.
        memory_request: Bytes to reserve.
        devices: Names of this machine's accelerators that it has, so many; any if empty.
    """

    cpu: float = 0.0
    memory: int = 0
    accelerator: str = ""
    accelerators: int = 0
    cpu_request: float = 0.0
    memory_request: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sidecar:
    """A container beside a workload's own, from before that begins until it has ended.

    Both have the loopback interface and a folder in common; it sees nothing else of the workload,
    and has none of the platform's credentials. It is started again if it ends. What it prints,
    and how it ended, is in the workload's log, each line after its name.

    Attributes:
        name: Its name: lower-case letters, digits and ``-``.
        image: The container's image.
        command: Its command.
        folder: The common folder, to which both may write: an absolute path, at which both see it
            and which is not below the workload's own. It is gone with the workload.
        environment: Its variables.
        resources: Its compute resources, beside those of the workload.
        shared_memory: Bytes of its ``/dev/shm``, which count as memory once they are used; 0 for
            the default of containers.
    """

    name: str
    image: str
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    resources: ResourceRequest = field(default_factory=ResourceRequest)
    shared_memory: int = 0

    @property
    def prefix(self) -> str:
        """What its lines in the workload's log begin with."""
        return f"{self.name}: "


@dataclass(frozen=True)
class Workload:
    """Specification of one container, or of the process in its place.

    Attributes:
        name: Its name for people, such as a task's path in its run.
        image: The container's image.
        command: Its command, whose first word is the program; the image's own if empty.
        arguments: What follows the command.
        folder: A folder of its own, which exists: the working folder on this machine.
        environment: Variables beside those that the backend sets.
        python: Packages of a process, whose ``python3`` and ``pip`` come first in PATH; None for
            the machine's own programs alone. A container has those of its image.
        inputs: Local paths of artifacts that it reads.
        outputs: Local paths that it writes, files of parameters and artifacts; their parent
            folders exist.
        resources: Its compute resources.
        ports: Ports that it listens on, which clients on this machine reach at 127.0.0.1.
        kubernetes: Parts of a pod, resolved; plain data.
        folders: Folders of a storage to mount: their URIs by absolute paths.
        seconds: Time limit; None for one that runs until it is stopped.
        fetched: Inputs that are not on this machine: their URIs by their paths. Only a backend
            that stages is given such, and fetches them where the workload runs.
        sent: Folders to send when the workload has succeeded, without the files that are its
            outputs: their URIs by their paths. Likewise.
        is_platform: Whether it is Modelyard's own program, in an image of Modelyard's: it has the
            platform's settings and its credentials of the storage, which it must not hand on to
            what it starts. Likewise.
        sidecar: A container beside it; None for none. Likewise.
    """

    name: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    resources: ResourceRequest = field(default_factory=ResourceRequest)
    kubernetes: Mapping[str, Any] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    fetched: Mapping[Path, str] = field(default_factory=dict)
    sent: Mapping[Path, str] = field(default_factory=dict)
    python: EnvironmentSpec | None = None
    ports: tuple[int, ...] = ()
    is_platform: bool = False
    sidecar: Sidecar | None = None


class Backend(ABC):
    """Backend that runs workloads, to their end or until they are stopped.

    Several threads may use one backend at once. When a workload's end is reported nothing of it
    runs any more, whatever it has started. A workload ends with its backend's process, too.

    Attributes:
        stages: Whether workloads run elsewhere, and the backend fetches and sends artifacts
            itself.
        observe: Returns the observer of a workload's processes, by the workload's name. Backends
            that start no processes of this machine do not call it.
    """

    stages: ClassVar[bool] = False
    observe: Callable[[str], ProcessObserver] = staticmethod(lambda _: UNOBSERVED)

    @abstractmethod
    def check(self, workload: Workload) -> None:
        """Refuse a workload that this backend can never run, before anything is started.

        Only the image, the command, the resources and the parts of a pod are looked at.

        Raises:
            BadInputError: With the code ``ImageNotRunnable``, ``ResourcesUnavailable`` or
                ``PlatformUnsupported``.
        """

    @abstractmethod
    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a workload to its end.

        Args:
            workload: The workload.
            log: Receives each line of its output.
            cancelled: When set, the workload is stopped.

        Raises:
            ModelyardError: If it could not be started.
        """

    def start(self, workload: Workload, log: Log) -> WorkloadHandle:
        """Start a workload, and watch it in a thread.

        Args:
            workload: The workload.
            log: Receives each line of its output, in that thread.
        """
        return WorkloadHandle(self, workload, log)

    def close(self) -> None:  # noqa: B027 (most keep nothing)
        """Release what is kept between workloads. Those that run continue."""


class WorkloadHandle:
    """Handle of a started workload."""

    def __init__(self, backend: Backend, workload: Workload, log: Log) -> None:
        """Start ``workload``; see :meth:`Backend.start`."""
        self._cancelled = threading.Event()
        self._status: Future[ExitStatus] = Future()

        def watch() -> None:
            try:
                self._status.set_result(backend.run(workload, log, self._cancelled))
            except BaseException as error:  # noqa: BLE001 (the edge of a thread: raised by wait)
                self._status.set_exception(error)

        threading.Thread(target=watch, name=f"workload {workload.name}", daemon=True).start()

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self._status.done()

    def stop(self) -> None:
        """Request the end: SIGTERM, and SIGKILL after the grace. Returns at once."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> ExitStatus:
        """Wait for its end.

        Args:
            seconds: How long to wait; None for as long as it runs.

        Raises:
            TimeoutError: If it still runs then.
            ModelyardError: If it could not be started.
        """
        return self._status.result(seconds)


class NoticeLog:
    """Log of notices that logs each one once, for all workloads together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged: set[str] = set()

    def __call__(self, notices: Iterable[str], log: Log) -> None:
        """Log the notices that are new."""
        with self._lock:
            new = [notice for notice in notices if notice not in self._logged]
            self._logged.update(new)
        for notice in new:
            log(notice)
