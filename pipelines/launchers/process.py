"""Jobs as processes of this machine, each a group of its own that ends with all it has started.

A Python component runs in an environment made of its requirements. A component of another kind
runs if the machine has its program: the image itself is not used, because there is nothing here
that could.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packaging.version import Version

from infra import gpus, script
from infra.connection import user_environment
from infra.errors import BadInputError
from infra.leashed import LeashServer, Start
from infra.settings import Settings
from infra.workloads.environment_spec import EnvironmentSpec, PipInstall
from infra.workloads.environments import Environment, EnvironmentCache
from infra.workloads.installer import InstallCancelledError
from pipelines import bootstrap
from pipelines.bootstrap import Component
from pipelines.launchers import endings, local_settings, machine, mounting, secrecy
from pipelines.launchers.base import Ended, Job, Launcher
from pipelines.launchers.kept import Kept
from pipelines.launchers.local_settings import Understood
from pipelines.launchers.warmth import IDLE_SECONDS, Warmth

_OWN_PROGRAMS = {"python", "python3", f"python3.{sys.version_info.minor}", "pip", "pip3"}
_SHELLS_AND_PYTHONS = re.compile(r"(?:.*/)?(?:python[\d.]*|sh|bash|dash|node|Rscript|perl)")
_NOT_INHERITED = ("PYTHON", "VIRTUAL_ENV")
_COLD_ONLY = ("PYTHON", "LD_", "MALLOC_")
_PLACEHOLDER = "{{$"
_MODULE = "program/ephemeral_component.py"
_PYTHON_IMAGE = re.compile(r"(?:^|/)python:(\d+\.\d+)")
_MODULE_MISSING = re.compile(r"ModuleNotFoundError: No module named '[^']+'\Z")
_KFP_PIN = re.compile(r"kfp==(2\.\d+(?:\.\d+)*(?:(?:a|b|rc|-alpha\.|-beta\.|-rc\.)\d+)?)")
# Their sh knows more than a plain one, such as [[ and ==.
_RICH_SHELL = re.compile(
    r"alpine|busybox|redhat|centos|fedora|rockylinux|almalinux|amazonlinux|\bubi\d"
)
_GPU_KINDS = re.compile(r"nvidia|gpu", re.IGNORECASE)


@dataclass(frozen=True)
class _Started:
    """What is to be started, and how.

    Attributes:
        command: Its command line.
        env: Its whole environment.
        start: What starts it.
        keep: Open files that it holds.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    start: Start
    keep: Sequence[int]


class ProcessLauncher(Launcher):
    """Runs jobs as processes."""

    def __init__(
        self,
        environments: EnvironmentCache,
        settings: Settings,
        *,
        kept: Kept | None = None,
        warm: bool = True,
        idle_seconds: float = IDLE_SECONDS,
        allow_cpu: bool = False,
    ) -> None:
        """Run jobs in ``environments``.

        Args:
            environments: Where Python components find what they require.
            settings: Which GPUs there are, and how long a stopped job may tidy up.
            kept: Secrets, config maps and claims; those of the home if None.
            warm: Whether Python components may run in a fork of a warm interpreter.
            idle_seconds: How long such an interpreter is kept that nobody uses.
            allow_cpu: Whether a job that asks for accelerators runs without where there are none.
        """
        self._environments = environments
        self._settings = settings
        self._kept = kept or Kept(settings.resolved_home())
        self._warmth = Warmth(idle_seconds) if warm else None
        self._allow_cpu = allow_cpu
        self._lock = threading.Lock()
        self._leashes: LeashServer | None = None
        self._told: set[str] = set()

    def close(self) -> None:
        """End what is kept between jobs. Jobs that run go on."""
        if self._warmth is not None:
            self._warmth.close()
        with self._lock:
            leashes, self._leashes = self._leashes, None
        if leashes is not None:
            leashes.close()

    def check(self, job: Job) -> None:
        """Refuse a job that cannot run as a process here."""
        machine.check(job, cpus=os.cpu_count() or 1)
        self._check_accelerators(job)
        local_settings.check(job)
        _check_user(job)
        mounting.check(
            job, local_settings.mount_paths(job), [self._environments.root, Path(sys.prefix)]
        )
        component = bootstrap.component([*job.command, *job.arguments])
        if component.source is None:
            _check_program(job, component.words)

    def _check_accelerators(self, job: Job) -> None:
        wanted, kind, found = (
            job.resources.accelerators,
            job.resources.accelerator,
            self._gpus_for(job),
        )
        if wanted > found and not self._goes_without(job):
            raise BadInputError(
                f"{job.name} asks for {wanted} of {kind}, and this machine has {found}.",
                "Run the pipeline where there are as many, or take the accelerator out of it.",
                code="ResourcesUnavailable",
            )

    def _gpus_for(self, job: Job) -> int:
        """How many of the accelerators that a job asks for are here."""
        known = _GPU_KINDS.search(job.resources.accelerator)
        return len(gpus.devices(self._settings)) if known else 0

    def _goes_without(self, job: Job) -> bool:
        """Whether a job runs although none of its accelerators is here."""
        return self._allow_cpu and job.resources.accelerators > 0 and not self._gpus_for(job)

    def run(self, job: Job, log: Callable[[str], None], cancelled: threading.Event) -> Ended:
        """Run a job to its end."""
        if self._goes_without(job):
            kind = job.resources.accelerator
            self._tell([f"This machine has no {kind}; what asks for one runs without."], log)
            without = dataclasses.replace(job.resources, accelerator="", accelerators=0)
            job = dataclasses.replace(job, resources=without)
        try:
            asked = local_settings.understand(job, self._kept)
            return self._run(job, asked, log, cancelled)
        finally:
            local_settings.forget(job)

    def _run(
        self,
        job: Job,
        asked: Understood,
        log: Callable[[str], None],
        cancelled: threading.Event,
    ) -> Ended:
        self._tell([*asked.notes, *_notes(job)], log)
        limits = [one for one in (job.seconds, asked.seconds) if one is not None]
        deadline = time.monotonic() + min(limits) if limits else None
        component = bootstrap.component([*job.command, *job.arguments])
        hide = secrecy.hiding(asked.secrets)
        try:
            with (
                self._environments.using(_spec(component), log, cancelled.is_set) as environment,
                self._environments.overlay(environment) as own,
                self._gpus(job, log, cancelled) as lease,
                self._started(job, component, environment, own, asked, lease) as started,
            ):
                ended = script.run(
                    [script.Process(started.command, started.env)],
                    cwd=job.folder,
                    log=None,
                    on_line=lambda _, line: log(hide(line)),
                    deadline=deadline,
                    stop_requested=cancelled.is_set,
                    grace=self._settings.stop_grace_seconds,
                    keep=started.keep,
                    start=started.start,
                )
        except InstallCancelledError:
            return Ended(-signal.SIGTERM, "It was stopped before it began.")
        return _explained(endings.ended(ended, min(limits, default=0), hide), job, component)

    @contextlib.contextmanager
    def _gpus(
        self, job: Job, log: Callable[[str], None], cancelled: threading.Event
    ) -> Iterator[gpus.Lease]:
        with gpus.lease(
            gpus.devices(self._settings) if job.resources.accelerators else (),
            job.resources.accelerators,
            holder=job.name,
            shared=False,
            waiting=lambda holders: log(f"Waiting for a GPU: {'; '.join(holders)}"),
            give_up=cancelled.is_set,
        ) as lease:
            if lease is None:
                raise InstallCancelledError
            yield lease

    @contextlib.contextmanager
    def _started(
        self,
        job: Job,
        component: Component,
        environment: Environment,
        own: Environment,
        asked: Understood,
        lease: gpus.Lease,
    ) -> Iterator[_Started]:
        env = {
            **_inherited(),
            **asked.environment,
            **job.environment,
            "CUDA_VISIBLE_DEVICES": ",".join(lease.names),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PATH": os.pathsep.join([str(own.programs), str(environment.programs), _host_path()]),
            "VIRTUAL_ENV": str(own.folder),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        held: list[IO[str]] = [environment.lock, own.lock, *lease.locks]
        keep = [one.fileno() for one in held]
        if component.source is None:
            _give_shell(job, own)
            with self._mounted(component.words, job, asked) as words:
                yield _Started(words, env, self._leash().start, keep)
            return
        env["_KFP_RUNTIME"] = "true"
        module = own.folder / _MODULE
        module.parent.mkdir()
        module.write_text(component.source)
        command = [str(own.python), "-m", bootstrap.EXECUTOR,
                   "--component_module_path", str(module), *component.arguments]  # fmt: skip
        changed = {**asked.environment, **job.environment}
        cold = asked.mounts or any(name.startswith(_COLD_ONLY) for name in changed)
        if self._warmth is None or cold:
            with self._mounted(command, job, asked) as words:
                yield _Started(words, env, self._leash().start, keep)
            return
        server = self._warmth.take(environment)
        try:
            yield _Started(command, env, (server or self._leash()).start, keep)
        finally:
            self._warmth.give_back(environment)

    @contextlib.contextmanager
    def _mounted(
        self, command: Sequence[str], job: Job, asked: Understood
    ) -> Iterator[Sequence[str]]:
        if not asked.mounts:
            yield command
            return
        shared = [
            job.folder, *(path.parent for path in job.outputs), self._settings.resolved_home(),
            Path(tempfile.gettempdir()),
        ]  # fmt: skip
        with mounting.mounted(command, asked.mounts, shared) as words:
            yield words

    def _leash(self) -> LeashServer:
        with self._lock:
            if self._leashes is None:
                self._leashes = LeashServer()
            return self._leashes

    def _tell(self, notes: Sequence[str], log: Callable[[str], None]) -> None:
        """Say what is not honoured here, each once."""
        with self._lock:
            new = [note for note in notes if note not in self._told]
            self._told.update(new)
        for note in new:
            log(note)


def _give_shell(job: Job, own: Environment) -> None:
    """Let ``sh`` be bash for a job whose image has a shell of that kind."""
    bash = shutil.which("bash", path=_host_path())
    if bash is not None and _RICH_SHELL.search(job.image):
        (own.programs / "sh").symlink_to(bash)


def _check_user(job: Job) -> None:
    """Refuse to run as root what must not."""
    if job.kubernetes.get("securityContext", {}).get("runAsNonRoot") and os.geteuid() == 0:
        raise BadInputError(
            f"{job.name} must not run as root, and processes here run as root.",
            "Start Modelyard as another user, or take runAsNonRoot out of the pipeline.",
            code="PlatformUnsupported",
        )


def _notes(job: Job) -> list[str]:
    """What of a job's container is not as it would be in one, for people."""
    found = []
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    image = _PYTHON_IMAGE.search(job.image)
    if image is not None and image[1] != ours:
        found.append(f"The image {job.image} is not used: it runs with Python {ours}.")
    if job.resources.cpu or job.resources.memory:
        found.append("Limits of CPU and memory are not enforced on processes.")
    return found


def _explained(ended: Ended, job: Job, component: Component) -> Ended:
    """How a job ended, and what to do if it has missed what its image may have."""
    missing = component.source is not None and _MODULE_MISSING.search(ended.reason)
    if not missing or _PYTHON_IMAGE.search(job.image):
        return ended
    return dataclasses.replace(
        ended,
        reason=f"{ended.reason}. The image {job.image}, which may have it, is not used: name it "
        "in packages_to_install.",
    )


def _spec(component: Component) -> EnvironmentSpec:
    """Environment of a component."""
    return EnvironmentSpec(
        tuple(_installs(component)),
        label="The packages of the component",
        hint="Fix packages_to_install of the component, or the package index that pip is set to.",
    )


def _installs(component: Component) -> Sequence[PipInstall]:
    """Packages of a component; of the SDK's executor, our version where it is pinned older.

    The first executors find no artifacts at local paths, and one for all is made once. What
    a component itself has asked for stays: the compiler's own pin is installed alone.
    """
    named = [requirement for install in component.installs for requirement in install.requirements]
    if component.source is None:
        return component.installs
    ours = importlib.metadata.version("kfp")
    if not any("kfp" in requirement for requirement in named):  # its image had it
        return (*component.installs, PipInstall((f"kfp=={ours}",), ("--no-deps",)))

    def newer(requirement: str) -> str:
        pin = _KFP_PIN.fullmatch(requirement)
        return f"kfp=={ours}" if pin and Version(pin[1]) < Version(ours) else requirement

    return [
        dataclasses.replace(one, requirements=tuple(map(newer, one.requirements)))
        if one.without_dependencies
        else one
        for one in component.installs
    ]


def _inherited() -> dict[str, str]:
    """This process's environment without what is ours, Prefect's or MLflow's in it."""
    return {
        name: value
        for name, value in user_environment().items()
        if not name.startswith(_NOT_INHERITED)
    }


def _host_path() -> str:
    """The host's PATH without our own environment: its packages are none of a component's."""
    ours = Path(sys.prefix, "bin").resolve()
    return os.pathsep.join(
        folder
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if folder and Path(folder).resolve() != ours
    )


def _check_program(job: Job, words: Sequence[str]) -> None:
    if not words or not job.command:
        raise _not_runnable(job, "its command is the image's own")
    if bootstrap.is_in_image(words):
        raise _not_runnable(job, "its Python code is in the image")
    program = words[0]
    if _PLACEHOLDER in program or program in _OWN_PROGRAMS:
        pass
    elif not _is_mounted(job, program) and shutil.which(program, path=_host_path()) is None:
        raise _not_runnable(job, f"this machine has no program {program!r}")
    script = _script(words)
    if script and not _has(job, script):
        raise _not_runnable(job, f"this machine has no {script}")


def _script(words: Sequence[str]) -> str:
    """The script that an interpreter is given by its name; "" if none is."""
    if len(words) < 2 or not _SHELLS_AND_PYTHONS.fullmatch(words[0]):
        return ""
    return "" if words[1].startswith("-") or _PLACEHOLDER in words[1] else words[1]


def _has(job: Job, script: str) -> bool:
    file = job.folder / script
    if file.exists() or shutil.which(script, path=_host_path()):  # where shells look, too
        return True
    return Path(script).is_absolute() and _is_of(job, file)


def _is_of(job: Job, file: Path) -> bool:
    places = (job.folder, *job.inputs, *job.outputs)
    return any(file.is_relative_to(place) for place in places) or _is_mounted(job, str(file))


def _is_mounted(job: Job, path: str) -> bool:
    """Whether a path is in a volume, which is looked into when it is mounted."""
    return any(Path(path).is_relative_to(place) for place in local_settings.mount_paths(job))


def _not_runnable(job: Job, why: str) -> BadInputError:
    return BadInputError(
        f"{job.name} needs its image {job.image or '(none)'} and cannot run as a process: {why}.",
        "Set MODELYARD_PIPELINE_LAUNCHER=docker where Docker runs, or run it on a cluster.",
        code="ImageNotRunnable",
    )
