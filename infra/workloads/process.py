"""Workloads as processes of this machine, each a process tree that ends with its owner.

The image itself is not used: a workload runs if the machine has its program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from infra import gpus
from infra.connection import user_environment
from infra.errors import BadInputError
from infra.leash_client import LeashServer, LeashStarter, SpawnedLeash
from infra.settings import Settings
from infra.workloads import (
    exit_status,
    machine_capacity,
    mounts,
    pod_settings,
    process_group,
    redaction,
)
from infra.workloads.base import CONTAINER_HINT, Backend, Log, NoticeLog, ResourceRequest, Workload
from infra.workloads.environment_spec import EnvironmentSpec
from infra.workloads.environments import Environment, EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.installer import InstallCancelledError
from infra.workloads.local_objects import LocalObjects
from infra.workloads.pod_settings import LocalPodSettings
from infra.workloads.process_group import UNOBSERVED, ProcessObserver, ProcessSpec

_OWN_PROGRAMS = {"python", "python3", f"python3.{sys.version_info.minor}", "pip", "pip3"}
_SHELLS_AND_PYTHONS = re.compile(r"(?:.*/)?(?:python[\d.]*|sh|bash|dash|node|Rscript|perl)")
_NOT_INHERITED = ("PYTHON", "VIRTUAL_ENV")
_GPU_KINDS = re.compile(r"nvidia|gpu", re.IGNORECASE)


@dataclass(frozen=True)
class Allocation:
    """What a workload holds while it runs.

    Attributes:
        pod: Its pod's settings, as this machine honours them.
        gpus: Its GPUs.
        shared: Its Python environment; None if it has none.
        private: An environment of its own above that, in which it may install packages.
    """

    pod: LocalPodSettings
    gpus: gpus.GpuLease
    shared: Environment | None = None
    private: Environment | None = None

    @property
    def environments(self) -> tuple[Environment, ...]:
        """Its environments, the first in PATH first."""
        return tuple(one for one in (self.private, self.shared) if one is not None)

    def locks(self) -> list[int]:
        """Open files that hold it all; a process that inherits them holds it as well."""
        held: list[IO[str]] = [*(one.lock for one in self.environments), *self.gpus.locks]
        return [one.fileno() for one in held]


@dataclass(frozen=True)
class Launch:
    """How a process is started.

    Attributes:
        command: Its command line.
        env: Its whole environment.
        start: What starts it.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    start: LeashStarter


class ProcessBackend(Backend):
    """Runs workloads as processes.

    A subclass for workloads of a special kind overrides :meth:`python`, :meth:`check_program`
    and :meth:`launch`. A caller whose workload is several processes, such as the nodes of a
    training, uses :meth:`hold_gpus` and :meth:`execute`, of which :meth:`run` consists.
    """

    def __init__(
        self,
        environments: EnvironmentCache,
        settings: Settings,
        *,
        objects: LocalObjects | None = None,
        allow_cpu: bool = False,
        single: bool = False,
    ) -> None:
        """Run workloads with environments of a cache.

        Args:
            environments: The cache.
            settings: Which GPUs there are, and the grace of a stop.
            objects: Secrets, config maps and claims; those of the home if None.
            allow_cpu: Whether a workload that asks for accelerators runs without where there are
                none.
            single: Whether it runs one workload only, so that nothing is kept for the next.
        """
        self._environments = environments
        self._settings = settings
        self._objects = objects or LocalObjects(settings.resolved_home())
        self._allow_cpu = allow_cpu
        self._single = single
        self._lock = threading.Lock()
        self._leashes: LeashServer | None = None
        self.notify = NoticeLog()

    def close(self) -> None:
        """Release what is kept between workloads."""
        with self._lock:
            leashes, self._leashes = self._leashes, None
        if leashes is not None:
            leashes.close()

    def python(self, workload: Workload) -> EnvironmentSpec | None:
        """Packages that a workload runs with; None for the machine's own programs alone."""
        return workload.python

    def check_program(self, workload: Workload) -> None:
        """Refuse a workload whose program the machine does not have.

        Raises:
            BadInputError: With the code ``ImageNotRunnable``.
        """
        words = [*workload.command, *workload.arguments]
        check_words(workload, words, has_python=self.python(workload) is not None)

    @contextlib.contextmanager
    def launch(
        self, workload: Workload, allocation: Allocation, env: dict[str, str]
    ) -> Iterator[Launch]:
        """Prepare the start of a workload's process; what is made for it goes afterwards."""
        words = [*workload.command, *workload.arguments]
        with self.mounted(words, workload, allocation) as command:
            yield Launch(command, env, self.leash())

    def check(self, workload: Workload) -> None:
        """Refuse a workload that cannot run as a process here."""
        machine_capacity.check(workload, cpus=os.cpu_count() or 1)
        self._check_accelerators(workload)
        pod_settings.check(workload)
        _check_user(workload)
        mounts.check(
            workload,
            pod_settings.mount_paths(workload),
            [self._environments.root, Path(sys.prefix)],
        )
        self.check_program(workload)

    def _check_accelerators(self, workload: Workload) -> None:
        wanted, kind = workload.resources.accelerators, workload.resources.accelerator
        found = self._gpus_for(workload)
        if wanted > found and not self._goes_without(workload):
            raise BadInputError(
                f"{workload.name} asks for {wanted} of {kind}, and this machine has {found}.",
                "Run the pipeline where there are as many, or take the accelerator out of it."
                if found
                else "Run the pipeline where there are as many, or let it run without: "
                "resources.allow_cpu=true, or --allow-cpu.",
                code="ResourcesUnavailable",
            )

    def _gpus_for(self, workload: Workload) -> int:
        """How many accelerators of the requested kind the machine has."""
        known = _GPU_KINDS.search(workload.resources.accelerator)
        return len(gpus.devices(self._settings)) if known else 0

    def _goes_without(self, workload: Workload) -> bool:
        """Whether a workload runs although the machine has none of its accelerators."""
        wanted = workload.resources.accelerators
        return self._allow_cpu and wanted > 0 and not self._gpus_for(workload)

    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a workload to its end."""
        if self._goes_without(workload):
            kind = workload.resources.accelerator
            self.notify([f"This machine has no {kind}; what asks for one runs without."], log)
            without = dataclasses.replace(workload.resources, accelerator="", accelerators=0)
            workload = dataclasses.replace(workload, resources=without)
        with pod_settings.resolved(workload, self._objects) as pod:
            self.notify([*pod.notices, *_unenforced(workload.resources)], log)
            return self._run(workload, pod, log, cancelled)

    def _run(
        self,
        workload: Workload,
        pod: LocalPodSettings,
        log: Log,
        cancelled: threading.Event,
    ) -> ExitStatus:
        deadline = None if pod.seconds is None else time.monotonic() + pod.seconds

        def is_over() -> bool:
            return cancelled.is_set() or (deadline is not None and time.monotonic() >= deadline)

        redact = redaction.redactor(pod.secrets)
        try:
            with (
                self._allocated(workload, pod, log, is_over) as allocation,
                self.launch(workload, allocation, _environment(workload, allocation)) as launch,
            ):
                ended = self.execute(
                    [ProcessSpec(launch.command, launch.env)],
                    folder=workload.folder,
                    on_line=lambda _, line: log(redact(line)),
                    deadline=deadline,
                    stop_requested=cancelled.is_set,
                    keep=allocation.locks(),
                    start=launch.start,
                    observer=self.observe(workload.name),
                )
        except InstallCancelledError:
            if pod.seconds is not None and not cancelled.is_set():
                return exit_status.timed_out(None, pod.seconds)
            why = "It was stopped before it began."
            return ExitStatus(-signal.SIGTERM, why, ExitCause.STOPPED)
        return exit_status.explain(ended, pod.seconds or 0, redact)

    @contextlib.contextmanager
    def _allocated(
        self, workload: Workload, pod: LocalPodSettings, log: Log, is_over: Callable[[], bool]
    ) -> Iterator[Allocation]:
        """Make the environment, and wait for the GPUs.

        Raises:
            InstallCancelledError: If ``is_over`` is true before.
        """
        spec = self.python(workload)
        shared = private = None
        with contextlib.ExitStack() as held:
            if spec is not None:
                using = self._environments.using(spec, log, is_over)
                shared = held.enter_context(using)
                private = held.enter_context(self._environments.overlay(shared))
            leased = held.enter_context(
                self.hold_gpus(
                    workload.resources.accelerators,
                    holder=workload.name,
                    on_wait=lambda holders: log(f"Waiting for a GPU: {'; '.join(holders)}"),
                    is_over=is_over,
                )
            )
            if leased is None:
                raise InstallCancelledError
            yield Allocation(pod, leased, shared, private)

    @contextlib.contextmanager
    def mounted(
        self, command: Sequence[str], workload: Workload, allocation: Allocation
    ) -> Iterator[Sequence[str]]:
        """Command line that runs ``command`` with the workload's mounts."""
        if not allocation.pod.mounts:
            yield command
            return
        shared = [
            workload.folder, *(path.parent for path in workload.outputs),
            self._settings.resolved_home(), Path(tempfile.gettempdir()),
        ]  # fmt: skip
        with mounts.mounted(command, allocation.pod.mounts, shared) as words:
            yield words

    def leash(self) -> LeashStarter:
        """What starts a process on its leash."""
        if self._single:
            return SpawnedLeash
        with self._lock:
            if self._leashes is None:
                self._leashes = LeashServer()
            return self._leashes.start

    def hold_gpus(
        self,
        count: int,
        *,
        holder: str,
        on_wait: Callable[[list[str]], object],
        is_over: Callable[[], bool],
        shared: bool = False,
    ) -> AbstractContextManager[gpus.GpuLease | None]:
        """Hold GPUs, waiting until they are free; None if ``is_over`` is true before.

        Args:
            count: How many.
            holder: The holder's name, for those that wait.
            on_wait: Receives who holds which, whenever that changes.
            is_over: Polled a few times a second.
            shared: Whether others that also share may use them at the same time.
        """
        return gpus.lease(
            gpus.devices(self._settings) if count else (),
            count,
            holder=holder,
            shared=shared,
            waiting=on_wait,
            give_up=is_over,
        )

    def execute(
        self,
        processes: Sequence[ProcessSpec],
        *,
        folder: Path,
        on_line: Callable[[int, str], object],
        deadline: float | None,
        stop_requested: Callable[[], bool],
        keep: Sequence[int],
        log_file: Path | None = None,
        start: LeashStarter | None = None,
        observer: ProcessObserver = UNOBSERVED,
    ) -> ExitStatus:
        """Run the processes of a workload to their end; the first that fails ends the others.

        Args:
            processes: At least one.
            folder: Their working directory.
            on_line: Receives the process's number and each line of its output.
            deadline: ``time.monotonic()`` of their time limit; None for none.
            stop_requested: Polled a few times a second.
            keep: Open files that they inherit.
            log_file: A file that their output is appended to.
            start: What starts them; :meth:`leash` if None.
            observer: Observes each process, from its start to its end.
        """
        return process_group.run(
            processes,
            cwd=folder,
            log=log_file,
            on_line=on_line,
            deadline=deadline,
            stop_requested=stop_requested,
            grace=self._settings.stop_grace_seconds,
            keep=keep,
            start=start or self.leash(),
            observer=observer,
        )


def _environment(workload: Workload, allocation: Allocation) -> dict[str, str]:
    """Environment of a workload's process."""
    programs = [str(one.programs) for one in allocation.environments]
    private = allocation.private
    inherited = {
        name: value
        for name, value in user_environment().items()
        if not name.startswith(_NOT_INHERITED)
    }
    return {
        **inherited,
        **allocation.pod.environment,
        **workload.environment,
        "CUDA_VISIBLE_DEVICES": ",".join(allocation.gpus.names),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "PATH": os.pathsep.join([*programs, host_path()]),
        **({"VIRTUAL_ENV": str(private.folder)} if private else {}),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def host_path() -> str:
    """PATH without Modelyard's own environment: its packages are none of a workload's."""
    ours = Path(sys.prefix, "bin").resolve()
    return os.pathsep.join(
        folder
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if folder and Path(folder).resolve() != ours
    )


def check_words(
    workload: Workload,
    words: Sequence[str],
    *,
    has_python: bool,
    is_open: Callable[[str], bool] = lambda _: False,
) -> None:
    """Refuse a command line whose program or script the machine does not have.

    Args:
        workload: The workload.
        words: Its command line, without what installs packages.
        has_python: Whether it runs with a Python environment.
        is_open: Whether a word cannot be judged yet, because it is filled in when it runs.

    Raises:
        BadInputError: With the code ``ImageNotRunnable``.
    """
    if not words or not workload.command:
        raise not_runnable(workload, "its command is the image's own")
    program = words[0]
    known = is_open(program) or (has_python and program in _OWN_PROGRAMS)
    if not known and not _is_mounted(workload, program) and not _which(program):
        raise not_runnable(workload, f"this machine has no program {program!r}")
    script_file = _script(words)
    if script_file and not is_open(script_file) and not _has(workload, script_file):
        raise not_runnable(workload, f"this machine has no {script_file}")


def not_runnable(workload: Workload, why: str) -> BadInputError:
    """Build the error for a workload that needs its image."""
    image = workload.image or "(none)"
    return BadInputError(
        f"{workload.name} needs its image {image} and cannot run as a process: {why}.",
        CONTAINER_HINT,
        code="ImageNotRunnable",
    )


def _check_user(workload: Workload) -> None:
    """Refuse to run as root what must not."""
    if workload.kubernetes.get("securityContext", {}).get("runAsNonRoot") and os.geteuid() == 0:
        raise BadInputError(
            f"{workload.name} must not run as root, and local processes run as root.",
            "Start Modelyard as another user, or take runAsNonRoot out of the pipeline.",
            code="PlatformUnsupported",
        )


def _unenforced(request: ResourceRequest) -> list[str]:
    """Notices of limits that processes do not have."""
    if request.cpu or request.memory:
        return ["Limits of CPU and memory are not enforced on processes."]
    return []


def _which(program: str) -> str | None:
    return shutil.which(program, path=host_path())


def _script(words: Sequence[str]) -> str:
    """The script that an interpreter is given by its name; "" if none is."""
    if len(words) < 2 or not _SHELLS_AND_PYTHONS.fullmatch(words[0]):
        return ""
    return "" if words[1].startswith("-") else words[1]


def _has(workload: Workload, script_file: str) -> bool:
    file = workload.folder / script_file
    if file.exists() or _which(script_file):  # where shells look, too
        return True
    return Path(script_file).is_absolute() and _is_of(workload, file)


def _is_of(workload: Workload, file: Path) -> bool:
    places = (workload.folder, *workload.inputs, *workload.outputs)
    return any(file.is_relative_to(place) for place in places) or _is_mounted(workload, str(file))


def _is_mounted(workload: Workload, path: str) -> bool:
    """Whether a path is in a volume, which is looked into when it is mounted."""
    places = pod_settings.mount_paths(workload)
    return any(Path(path).is_relative_to(place) for place in places)
