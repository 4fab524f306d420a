"""Components as processes of this machine.

A Python component runs in an environment made of its requirements; its executor is one fork of a
warm interpreter where that is possible. A component of another kind runs as any process does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence

from packaging.version import Version

from infra.errors import BadInputError
from infra.settings import Settings
from infra.workloads.base import CONTAINER_HINT, Log, Workload
from infra.workloads.environment_spec import EnvironmentSpec, PipInstall
from infra.workloads.environments import Environment, EnvironmentCache
from infra.workloads.exit_status import ExitStatus
from infra.workloads.local_objects import LocalObjects
from infra.workloads.process import (
    Allocation,
    Launch,
    ProcessBackend,
    check_words,
    host_path,
    not_runnable,
)
from pipelines import bootstrap
from pipelines.backends.warm_pool import IDLE_SECONDS, WarmPool
from pipelines.bootstrap import ComponentCommand

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

_LAUNCHER_HINT = (
    "Set MODELYARD_PIPELINE_LAUNCHER=docker where Docker runs, or run it on a cluster."
)


class ComponentProcessBackend(ProcessBackend):
    """Runs components as processes."""

    def __init__(
        self,
        environments: EnvironmentCache,
        settings: Settings,
        *,
        objects: LocalObjects | None = None,
        warm: bool = True,
        idle_seconds: float = IDLE_SECONDS,
        allow_cpu: bool = False,
    ) -> None:
        """Run components with environments of a cache.

        Args:
            environments: The cache.
            settings: Which GPUs there are, and the grace of a stop.
            objects: Secrets, config maps and claims; those of the home if None.
            warm: Whether Python components may run in a fork of a warm interpreter.
            idle_seconds: How long an unused one is kept.
            allow_cpu: Whether a component that asks for accelerators runs without where there
                are none.
        """
        super().__init__(environments, settings, objects=objects, allow_cpu=allow_cpu)
        self._warm_pool = WarmPool(idle_seconds) if warm else None

    def close(self) -> None:
        """Release the warm interpreters."""
        if self._warm_pool is not None:
            self._warm_pool.close()
        super().close()

    def python(self, workload: Workload) -> EnvironmentSpec:
        """Environment with the packages that a component installs."""
        return EnvironmentSpec(
            tuple(_installs(_component(workload))),
            label="The packages of the component",
            hint="Fix packages_to_install of the component, or the package index that pip is "
            "set to.",
        )

    def check_program(self, workload: Workload) -> None:
        """Refuse a component whose program exists only in its image."""
        component = _component(workload)
        if component.source is not None:
            return
        if workload.command and bootstrap.is_in_image(component.words):
            raise not_runnable(workload, "its Python code is in the image")
        check_words(
            workload, component.words, has_python=True, is_open=lambda word: _PLACEHOLDER in word
        )

    def check(self, workload: Workload) -> None:
        """Refuse a component that cannot run as a process of this machine."""
        with _launcher_named():
            super().check(workload)

    def run(self, workload: Workload, log: Log, cancelled: threading.Event) -> ExitStatus:
        """Run a component to its end."""
        self.notify(_notices(workload), log)
        with _launcher_named():
            return _explained(super().run(workload, log, cancelled), workload)

    @contextlib.contextmanager
    def launch(
        self, workload: Workload, allocation: Allocation, env: dict[str, str]
    ) -> Iterator[Launch]:
        """Prepare the start of a component."""
        private, shared = allocation.environments
        component = _component(workload)
        if component.source is None:
            _give_shell(workload, private)
            with self.mounted(component.words, workload, allocation) as words:
                yield Launch(words, env, self.leash())
            return
        env["_KFP_RUNTIME"] = "true"
        module = private.folder / _MODULE
        module.parent.mkdir()
        module.write_text(component.source)
        command = [str(private.python), "-m", bootstrap.EXECUTOR,
                   "--component_module_path", str(module), *component.arguments]  # fmt: skip
        changed = {**allocation.pod.environment, **workload.environment}
        cold = allocation.pod.mounts or any(name.startswith(_COLD_ONLY) for name in changed)
        if self._warm_pool is None or cold:
            with self.mounted(command, workload, allocation) as words:
                yield Launch(words, env, self.leash())
            return
        server = self._warm_pool.take(shared)
        try:
            yield Launch(command, env, server.start if server else self.leash())
        finally:
            self._warm_pool.give_back(shared)


@contextlib.contextmanager
def _launcher_named() -> Iterator[None]:
    """Name the setting of pipelines where an error's hint is to use a container."""
    try:
        yield
    except BadInputError as error:
        if error.hint != CONTAINER_HINT:
            raise
        raise BadInputError(error.message, _LAUNCHER_HINT, code=error.code) from None


def _component(workload: Workload) -> ComponentCommand:
    return bootstrap.component([*workload.command, *workload.arguments])


def _give_shell(workload: Workload, private: Environment) -> None:
    """Make ``sh`` bash for a component whose image has such a shell."""
    bash = shutil.which("bash", path=host_path())
    if bash is not None and _RICH_SHELL.search(workload.image):
        (private.programs / "sh").symlink_to(bash)


def _notices(workload: Workload) -> list[str]:
    """Describe differences between a component's image and this machine."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    image = _PYTHON_IMAGE.search(workload.image)
    if image is None or image[1] == ours:
        return []
    return [f"The image {workload.image} is not used: it runs with Python {ours}."]


def _explained(status: ExitStatus, workload: Workload) -> ExitStatus:
    """Add a remedy to the exit status if the component may lack a program of its image."""
    missing = _MODULE_MISSING.search(status.reason) and _component(workload).source is not None
    if not missing or _PYTHON_IMAGE.search(workload.image):
        return status
    return dataclasses.replace(
        status,
        reason=f"{status.reason}. The image {workload.image}, which may have it, is not used: "
        "name it in packages_to_install.",
    )


def _installs(component: ComponentCommand) -> Sequence[PipInstall]:
    """List the packages of a component; with Modelyard's kfp where an older one is pinned.

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
