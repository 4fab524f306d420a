"""Jobs as containers of a Docker engine, through its command line."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from infra import home, script
from infra.errors import BadInputError, ModelyardError, StackError
from pipelines.launchers import endings, local_settings, machine, secrecy
from pipelines.launchers.base import Ended, Job, Launcher
from pipelines.launchers.kept import Kept
from pipelines.launchers.local_settings import Understood
from pipelines.launchers.mounting import Mount

_OWNER = "modelyard.owner"
_NAME = "modelyard.job"
_DOCKER_FAILED = 125
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_CLIENTS_OWN = re.compile(r"DOCKER_.*|PATH|HOME|SSH_.*|(?:HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)
_PULL = re.compile(
    r"pull access denied|manifest unknown|manifest for .* not found|repository does not exist"
    r"|failed to resolve reference|no such image|unauthorized|error pulling image",
    re.IGNORECASE,
)
_NO_ENGINE = re.compile(r"cannot connect to the docker daemon|is the docker daemon running", re.I)
_ERROR = re.compile(r"docker: |Error response from daemon", re.IGNORECASE)
_SIGNALS = {128 + one: -one for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV,
                                        signal.SIGABRT, signal.SIGINT)}  # fmt: skip
_PULL_POLICIES = {"Always": "always", "Never": "never", "IfNotPresent": "missing"}
_COMMAND_SECONDS = 30.0


class DockerLauncher(Launcher):
    """Runs jobs as containers.

    A job's folder and the paths that it reads and writes are mounted where they are on this
    machine, so that its command line means the same there. What it leaves elsewhere is gone with
    its container.
    """

    def __init__(
        self,
        program: str = "docker",
        *,
        kept: Kept | None = None,
        grace_seconds: float = 3.0,
    ) -> None:
        """Run jobs with ``program``.

        Args:
            program: Docker's command, or one that takes the same arguments.
            kept: Secrets, config maps and claims; those of the present home if None.
            grace_seconds: How long a stopped job may tidy up.
        """
        self._program = program
        self._kept = kept or Kept(home.current().root)
        self._grace = grace_seconds
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._swept = False

    def check_engine(self) -> None:
        """Find out whether there is an engine.

        Raises:
            StackError: If there is none, or it does not answer.
        """
        if shutil.which(self._program) is None:
            raise _unavailable(f"there is no program {self._program}")
        if not self._call("version", "--format", "{{.Server.Version}}").strip():
            raise _unavailable("its engine does not answer")

    def check(self, job: Job) -> None:
        """Refuse a job that no container here can be."""
        if not job.image:
            raise BadInputError(
                f"{job.name} names no image.",
                "Give the component an image.",
                code="ImageNotRunnable",
            )
        kind = job.resources.accelerator
        if job.resources.accelerators and "nvidia" not in kind.lower():
            raise BadInputError(
                f"{job.name} asks for {job.resources.accelerators} of {kind}, and only NVIDIA's "
                "GPUs can be given to a container here.",
                "Run the pipeline where there are such.",
                code="ResourcesUnavailable",
            )
        machine.check(job, cpus=os.cpu_count() or 1)
        local_settings.check(job)

    def run(self, job: Job, log: Callable[[str], None], cancelled: threading.Event) -> Ended:
        """Run a job to its end."""
        if shutil.which(self._program) is None:
            raise _unavailable(f"there is no program {self._program}")
        try:
            asked = local_settings.understand(job, self._kept, _honoured(job))
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
        self._tell(asked.notes, log)
        self._sweep()
        limits = [one for one in (job.seconds, asked.seconds) if one is not None]
        name = f"modelyard-{uuid.uuid4().hex[:16]}"
        hide = secrecy.hiding(asked.secrets)
        with _environment(job, asked) as (variables, env), _volumes(asked.mounts) as volumes:
            command = [self._program, "run", "--name", name, *variables, *volumes,
                       *_options(job), *_words(job)]  # fmt: skip
            try:
                ended = script.run(
                    [script.Process(command, env)],
                    cwd=job.folder,
                    log=None,
                    on_line=lambda _, line: log(hide(line)),
                    deadline=time.monotonic() + min(limits) if limits else None,
                    stop_requested=cancelled.is_set,
                    grace=self._grace,
                )
            finally:
                self._call("rm", "-f", "-v", name)
        code = _SIGNALS.get(ended.code, ended.code)
        if ended.ending is script.Ending.EXITED:
            _raise_unstarted(job, ended)
        return endings.ended(replace(ended, code=code), min(limits, default=0), hide)

    def _call(self, *arguments: str) -> str:
        """What Docker answers; nothing if it does not."""
        try:
            return subprocess.run(
                [self._program, *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_SECONDS,
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""

    def _sweep(self) -> None:
        """Remove, once, the containers of processes that died before they could."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        listed = self._call(
            "ps", "-a", "--filter", f"label={_OWNER}",
            "--format", '{{.Names}} {{.Label "' + _OWNER + '"}}',
        )  # fmt: skip
        for line in listed.splitlines():
            name, _, owner = line.partition(" ")
            if name and owner and not _lives(owner):
                self._call("rm", "-f", "-v", name)

    def _tell(self, notes: Sequence[str], log: Callable[[str], None]) -> None:
        with self._lock:
            new = [note for note in notes if note not in self._told]
            self._told.update(new)
        for note in new:
            log(note)


def _owner() -> str:
    """This process, and nobody who has its number later."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def _lives(owner: str) -> bool:
    pid, _, created = owner.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        return False


@contextlib.contextmanager
def _environment(job: Job, asked: Understood) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """Docker's options that give a job its variables, and the environment of Docker's client.

    No value stands in the command line, which everybody on the machine can read. A file takes
    values of one line only; a longer one goes through the client's environment.
    """
    client = dict(os.environ)
    lines: list[str] = []
    options: list[str] = []
    for name, value in {**asked.environment, **job.environment}.items():
        if "\n" not in value and "\r" not in value:
            lines.append(f"{name}={value}")
        elif _CLIENTS_OWN.fullmatch(name):
            raise BadInputError(
                f"The variable {name} of {job.name} has several lines, and means something to "
                "Docker itself.",
                "Give the variable another name.",
                code="PlatformUnsupported",
            )
        else:
            client[name] = value
            options += ["--env", name]
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        file = Path(folder, "environment")
        file.touch(mode=0o600)
        file.write_text("".join(f"{line}\n" for line in lines))
        yield ["--env-file", str(file), *options], client


@contextlib.contextmanager
def _volumes(mounts: Sequence[Mount]) -> Iterator[list[str]]:
    """Docker's options that give a job its volumes. Files are on the disk for the while."""
    options: list[str] = []
    with tempfile.TemporaryDirectory(prefix="modelyard-") as above:
        for number, one in enumerate(mounts):
            source = one.source
            if one.memory:
                fields = ["type=tmpfs", f"target={one.path}"]
                options += ["--mount", _csv([*fields, *_limit("tmpfs-size", one.size)])]
                continue
            if source is None:
                source = Path(above, str(number))
                source.mkdir()
                for name, data in (one.files or {}).items():
                    (source / name).write_bytes(data)
            options += ["--mount", _mount(source, one.path, readonly=one.readonly)]
        yield options


def _limit(name: str, size: int) -> list[str]:
    return [f"{name}={size}"] if size else []


def _honoured(job: Job) -> set[str]:
    """The parts of a pod that a container has too."""
    security = job.kubernetes.get("securityContext", {})
    whom = {"securityContext"} if security.get("runAsUser") is not None else set()
    return {"imagePullPolicy", *whom}


def _user(job: Job) -> list[str]:
    asked = job.kubernetes.get("securityContext", {})
    user, group = asked.get("runAsUser"), asked.get("runAsGroup")
    if user is None:
        return []
    return ["--user", str(user) if group is None else f"{user}:{group}"]


def _options(job: Job) -> list[str]:
    asked = job.resources
    options = ["--rm", "--init", "--workdir", str(job.folder)]
    options += ["--label", f"{_OWNER}={_owner()}", "--label", f"{_NAME}={job.name}"]
    for path, readonly in _mounts(job).items():
        options += ["--mount", _mount(path, str(path), readonly=readonly)]
    if shared := local_settings.shared_memory(job):
        options += ["--shm-size", str(shared)]
    options += _user(job)
    if asked.cpu:
        options += ["--cpus", f"{min(asked.cpu, os.cpu_count() or 1):g}"]
    if asked.memory:
        options += ["--memory", str(asked.memory)]
    if asked.memory_request:
        options += ["--memory-reservation", str(asked.memory_request)]
    if asked.accelerators:
        options += ["--gpus", str(asked.accelerators)]
    policy = _PULL_POLICIES.get(str(job.kubernetes.get("imagePullPolicy", "")))
    if policy:
        options += ["--pull", policy]
    return options


def _mounts(job: Job) -> dict[Path, bool]:
    """The paths to mount, and whether for reading only; none below another one."""
    writable = [job.folder, *(path.parent for path in job.outputs)]
    found = dict.fromkeys(_tops(writable), False)
    for path in _tops([path for path in job.inputs if path.exists()]):
        if not any(path.is_relative_to(top) for top in found):
            found[path] = True
    return found


def _tops(paths: Sequence[Path]) -> list[Path]:
    tops: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(top) for top in tops):
            tops.append(path)
    return tops


def _mount(source: Path, target: str, *, readonly: bool) -> str:
    fields = ["type=bind", f"source={source}", f"target={target}"]
    return _csv([*fields, *(["readonly"] if readonly else [])])


def _csv(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _words(job: Job) -> list[str]:
    """The image and the command line; Docker's entry point is one word alone."""
    program, *rest = job.command or ("",)
    entry = ["--entrypoint", program] if program else []
    return [*entry, job.image, *rest, *job.arguments]


def _unavailable(why: str) -> ModelyardError:
    return StackError(
        f"Docker cannot be used: {why}.",
        "Install and start a Docker engine, or run components as processes: unset "
        "MODELYARD_PIPELINE_LAUNCHER.",
        code="DockerUnavailable",
    )


def _raise_unstarted(job: Job, ended: script.Ended) -> None:
    """Name what kept a container from starting, if that is how it ended."""
    said = "\n".join(ended.tail)
    program = next(iter(job.command), "its own program")
    if ended.code in {_NOT_EXECUTABLE, _NOT_FOUND} and _ERROR.search(said):
        what = "no program" if ended.code == _NOT_FOUND else "no executable"
        raise BadInputError(
            f"The image {job.image} of {job.name} has {what} {program!r}.",
            "Mend the component's command, or its image.",
            code="ProgramMissing",
        )
    if ended.code != _DOCKER_FAILED or not _ERROR.search(said):
        return
    if _NO_ENGINE.search(said):
        raise _unavailable("its engine does not answer")
    if _PULL.search(said):
        raise BadInputError(
            f"The image {job.image} of {job.name} cannot be pulled: {_line(said)}",
            "Mend the image's name, or log in to its registry with `docker login`.",
            code="ImagePull",
        )
    raise StackError(
        f"Docker could not start {job.name}: {_line(said)}",
        "Look into the task's log.",
        code="ContainerNotStarted",
    )


def _line(said: str) -> str:
    """The line of Docker's that names the error."""
    return next((line.strip() for line in said.splitlines() if _ERROR.search(line)), said)[:500]
