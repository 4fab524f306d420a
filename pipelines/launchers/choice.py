"""What runs the components of pipelines on this machine: what the settings say."""

from __future__ import annotations

from infra.settings import Settings
from pipelines.environments import Environments
from pipelines.launchers.base import Launcher
from pipelines.launchers.docker import DockerLauncher
from pipelines.launchers.process import ProcessLauncher


def launcher(settings: Settings, *, allow_cpu: bool = False) -> Launcher:
    """What ``MODELYARD_PIPELINE_LAUNCHER`` names.

    Args:
        settings: The settings.
        allow_cpu: Whether a process that asks for accelerators runs without where there are none.

    Raises:
        StackError: If it is Docker, and no engine answers.
    """
    if settings.pipeline_launcher == "docker":
        docker = DockerLauncher(grace_seconds=settings.stop_grace_seconds)
        docker.check_engine()
        return docker
    environments = Environments(settings.resolved_home() / "environments" / "pipelines")
    return ProcessLauncher(environments, settings, allow_cpu=allow_cpu)
