"""Choice of the backend of a pipeline's components, by the settings."""

from __future__ import annotations

from infra.errors import StackError
from infra.home import Home
from infra.kubernetes import cluster as clusters
from infra.kubernetes.api import Api
from infra.settings import Settings
from infra.workloads.base import Backend
from infra.workloads.claims import ClaimStore, LocalClaims
from infra.workloads.docker import DockerBackend
from infra.workloads.environments import EnvironmentCache
from infra.workloads.kubernetes import staging
from infra.workloads.kubernetes.backend import KubernetesBackend, RunAttempt
from infra.workloads.kubernetes.job_manifest import ANY_NODE, InstanceSpec
from pipelines.backends.process import ComponentProcessBackend

_NO_DOCKER = "Or run components as processes: unset MODELYARD_PIPELINE_LAUNCHER."


def backend(
    settings: Settings,
    attempt: RunAttempt,
    *,
    allow_cpu: bool = False,
    instances: InstanceSpec = ANY_NODE,
) -> Backend:
    """Create the backend that ``MODELYARD_PIPELINE_LAUNCHER`` names.

    Args:
        settings: The settings.
        attempt: The attempt of the run whose components are run.
        allow_cpu: Whether a process that asks for accelerators runs without where there are none.
        instances: What pods run on.

    Raises:
        StackError: If it is Docker, and no engine answers.
        BadInputError: If it is a cluster, and nothing says where files are staged, with the code
            ``StagingMissing``; or ``ClusterInvalid``.
        ClusterError: If it is a cluster, and none is to be found.
    """
    if settings.pipeline_launcher == "docker":
        docker = DockerBackend(grace_seconds=settings.stop_grace_seconds)
        try:
            docker.check_engine()
        except StackError as error:
            raise StackError(
                error.message, f"{error.hint} {_NO_DOCKER}", code=error.code
            ) from None
        return docker
    if settings.pipeline_launcher == "kubernetes":
        staging.check(settings.pipeline_staging_uri)
        cluster = clusters.load(settings)
        api = Api.connect(cluster)
        return KubernetesBackend(
            api, cluster, settings.pipeline_staging_uri, attempt, instances=instances
        )
    environments = EnvironmentCache(settings.resolved_home() / "environments" / "pipelines")
    return ComponentProcessBackend(environments, settings, allow_cpu=allow_cpu)


def claims(backend: Backend, home: Home) -> ClaimStore:
    """Return the store of volume claims that components on a backend mount."""
    if isinstance(backend, KubernetesBackend):
        return backend.claims
    return LocalClaims(home.root / "claims")


def artifacts(settings: Settings) -> str:
    """Return the default pipeline root; "" for the run's folder.

    Where components run on other machines, or the home is deleted with the run, it is below the
    URI at which files are staged.
    """
    away = settings.pipeline_launcher == "kubernetes" or not settings.home_lasts
    if not away or not settings.pipeline_staging_uri:
        return ""
    return f"{settings.pipeline_staging_uri.rstrip('/')}/artifacts"
