"""Backend that runs workloads as Docker containers, through Docker's command line."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from infra import home
from infra.errors import BadInputError, ModelyardError, StackError
from infra.workloads import exit_status, machine_capacity, pod_settings, process_group, redaction
from infra.workloads.base import Backend, Log, NoticeLog, Workload
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.local_objects import LocalObjects
from infra.workloads.mounts import Mount
from infra.workloads.paths import topmost
from infra.workloads.pod_settings import LocalPodSettings

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
_PULL_POLICIES = {"Always": "always", "Never": "never", "IfNotPresent": "missing"}
_COMMAND_SECONDS = 30.0


class DockerBackend(Backend):
    """Backend that runs workloads as containers.

    A workload's folder and the paths that it reads and writes are mounted where they are on this
    machine, so that its command line means the same there. What it leaves elsewhere is gone with
    its container.
    """

    def __init__(
        self,
        program: str = "docker",
        *,
        objects: LocalObjects | None = None,
        grace_seconds: float = 3.0,
    ) -> None:
        """Run workloads with ``program``.

        Args:
            program: Docker's command, or one that takes the same arguments.
            objects: Secrets, config maps and claims; those of the present home if None.
            grace_seconds: How long a stopped workload may tidy up.
        """
        self._program = program
        self._objects = objects or LocalObjects(home.current().root)
        self._grace = grace_seconds
        self._lock = threading.Lock()
        self._notify = NoticeLog()
        self._swept = False

    def check_engine(self) -> None:
        """Check that an engine answers.

        Raises:
            StackError: If there is none, or it does not answer.
        """
        if shutil.which(self._program) is None:
            raise _unavailable(f"there is no program {self._program}")
        if not self._call("version", "--format", "{{.Server.Version}}").strip():
            raise _unavailable("its engine does not answer")

    def check(self, workload: Workload) -> None:
        """Refuse a workload that no container here can be."""
        if not workload.image:
            raise BadInputError(
                f"{workload.name} has no image.",
                "Give the component an image.",
                code="ImageNotRunnable",
            )
        count, kind = workload.resources.accelerators, workload.resources.accelerator
        if count and "nvidia" not in kind.lower():
            raise BadInputError(
                f"{workload.name} asks for {count} of {kind}, and a local container can only "
                "have NVIDIA's GPUs.",
                "Run the pipeline on a machine or cluster that has them.",
                code="ResourcesUnavailable",
            )
        machine_capacity.check(workload, cpus=os.cpu_count() or 1)
        pod_settings.check(workload)

    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a workload to its end."""
        if shutil.which(self._program) is None:
            raise _unavailable(f"there is no program {self._program}")
        with pod_settings.resolved(workload, self._objects, _honoured(workload)) as pod:
            return self._run(workload, pod, log, cancelled)

    def _run(
        self,
        workload: Workload,
        pod: LocalPodSettings,
        log: Log,
        cancelled: threading.Event,
    ) -> ExitStatus:
        self._notify(pod.notices, log)
        self._sweep()
        name = f"modelyard-{uuid.uuid4().hex[:16]}"
        hide = redaction.redactor(pod.secrets)
        with _environment(workload, pod) as (variables, env), _volumes(pod.mounts) as volumes:
            command = [self._program, "run", "--name", name, *variables, *volumes,
                       *_options(workload), *_words(workload)]  # fmt: skip
            try:
                ended = process_group.run(
                    [process_group.ProcessSpec(command, env)],
                    cwd=workload.folder,
                    log=None,
                    on_line=lambda _, line: log(hide(line)),
                    deadline=None if pod.seconds is None else time.monotonic() + pod.seconds,
                    stop_requested=cancelled.is_set,
                    grace=self._grace,
                )
            finally:
                self._call("rm", "-f", "-v", name)
        code = exit_status.from_shell(ended.code)
        if ended.cause is ExitCause.EXITED:
            _raise_unstarted(workload, ended)
        return exit_status.explain(replace(ended, code=code), pod.seconds or 0, hide)

    def _call(self, *arguments: str) -> str:
        """Run Docker; return its output, empty if it fails."""
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
        """Remove, once, the containers of dead processes."""
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


def _owner() -> str:
    """Identity of this process, distinct from a later one with the same id."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def _lives(owner: str) -> bool:
    pid, _, created = owner.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except (psutil.Error, ValueError):
        return False


@contextlib.contextmanager
def _environment(
    workload: Workload, pod: LocalPodSettings
) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """Build Docker's options for variables, and the environment of its client.

    No value is in the command line, which every user of the machine can read. A file takes
    values of one line only; a longer one goes through the client's environment.
    """
    client = dict(os.environ)
    lines: list[str] = []
    options: list[str] = []
    for name, value in {**pod.environment, **workload.environment}.items():
        if "\n" not in value and "\r" not in value:
            lines.append(f"{name}={value}")
        elif _CLIENTS_OWN.fullmatch(name):
            raise BadInputError(
                f"The variable {name} of {workload.name} has several lines, and means something "
                "to Docker itself.",
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
    """Build Docker's options for volumes, with temporary files for their content."""
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
            options += ["--mount", _mount(source, one.path, readonly=one.files is not None)]
        yield options


def _limit(name: str, size: int) -> list[str]:
    return [f"{name}={size}"] if size else []


def _honoured(workload: Workload) -> set[str]:
    """List the parts of a pod that Docker supports."""
    security = workload.kubernetes.get("securityContext", {})
    whom = {"securityContext"} if security.get("runAsUser") is not None else set()
    return {"imagePullPolicy", *whom}


def _user(workload: Workload) -> list[str]:
    asked = workload.kubernetes.get("securityContext", {})
    user, group = asked.get("runAsUser"), asked.get("runAsGroup")
    if user is None:
        return []
    return ["--user", str(user) if group is None else f"{user}:{group}"]


def _options(workload: Workload) -> list[str]:
    asked = workload.resources
    options = ["--rm", "--init", "--workdir", str(workload.folder)]
    options += ["--label", f"{_OWNER}={_owner()}", "--label", f"{_NAME}={workload.name}"]
    for path, readonly in _mounts(workload).items():
        options += ["--mount", _mount(path, str(path), readonly=readonly)]
    if shared := pod_settings.shared_memory(workload):
        options += ["--shm-size", str(shared)]
    options += _user(workload)
    if asked.cpu:
        options += ["--cpus", f"{min(asked.cpu, os.cpu_count() or 1):g}"]
    if asked.memory:
        options += ["--memory", str(asked.memory)]
    if asked.memory_request:
        options += ["--memory-reservation", str(asked.memory_request)]
    if asked.accelerators:
        named = _csv([f"device={','.join(asked.devices)}"])
        options += ["--gpus", named if asked.devices else str(asked.accelerators)]
    for port in workload.ports:
        options += ["--publish", f"127.0.0.1:{port}:{port}"]
    policy = _PULL_POLICIES.get(str(workload.kubernetes.get("imagePullPolicy", "")))
    if policy:
        options += ["--pull", policy]
    return options


def _mounts(workload: Workload) -> dict[Path, bool]:
    """List the paths to mount, with their read-only flags; none below another one."""
    writable = [workload.folder, *(path.parent for path in workload.outputs)]
    found = dict.fromkeys(topmost(writable), False)
    for path in topmost([path for path in workload.inputs if path.exists()]):
        if not any(path.is_relative_to(top) for top in found):
            found[path] = True
    return found


def _mount(source: Path, target: str, *, readonly: bool) -> str:
    fields = ["type=bind", f"source={source}", f"target={target}"]
    return _csv([*fields, *(["readonly"] if readonly else [])])


def _csv(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _words(workload: Workload) -> list[str]:
    """Build image and command line; Docker's entry point is a single word."""
    program, *rest = workload.command or ("",)
    entry = ["--entrypoint", program] if program else []
    return [*entry, workload.image, *rest, *workload.arguments]


def _unavailable(why: str) -> ModelyardError:
    return StackError(
        f"Docker cannot be used: {why}.",
        "Install and start a Docker engine.",
        code="DockerUnavailable",
    )


def _raise_unstarted(workload: Workload, ended: ExitStatus) -> None:
    """Raise an error if the container could not be started."""
    said = "\n".join(ended.tail)
    program = next(iter(workload.command), "its own program")
    if ended.code in {_NOT_EXECUTABLE, _NOT_FOUND} and _ERROR.search(said):
        what = "no program" if ended.code == _NOT_FOUND else "no executable"
        raise BadInputError(
            f"The image {workload.image} of {workload.name} has {what} {program!r}.",
            "Fix the component's command, or its image.",
            code="ProgramMissing",
        )
    if ended.code != _DOCKER_FAILED or not _ERROR.search(said):
        return
    if _NO_ENGINE.search(said):
        raise _unavailable("its engine does not answer")
    if _PULL.search(said):
        raise BadInputError(
            f"The image {workload.image} of {workload.name} cannot be pulled: {_line(said)}",
            "Fix the image's name, or log in to its registry with `docker login`.",
            code="ImagePull",
        )
    raise StackError(
        f"Docker could not start {workload.name}: {_line(said)}",
        "Look into the task's log.",
        code="ContainerNotStarted",
    )


def _line(said: str) -> str:
    """Find the line of Docker's output with the error."""
    return next((line.strip() for line in said.splitlines() if _ERROR.search(line)), said)[:500]
