"""Whether a server can be started for a model where its shards run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra import gpus, site
from infra.errors import BadInputError, StackError
from infra.settings import Settings
from infra.workloads.docker import DockerBackend
from registry.models.models import ResolvedVersion
from serving import model_servers
from serving.model_servers import ServerKind
from tasks import resources
from tasks.batch_inference import choice

if TYPE_CHECKING:
    from tasks.batch_inference.inference_request import BatchInference


def check(
    kind: ServerKind, model: ResolvedVersion, request: BatchInference, settings: Settings
) -> None:
    """Refuse a server that cannot be started; what only a cluster knows is checked there.

    Args:
        kind: The server.
        model: The model that it is started for.
        request: The request.
        settings: The settings.

    Raises:
        BadInputError: ``ModelNotPredictable``, if this machine has no Docker engine;
            ``ServerNeedsGpu``, if its image needs one and there is none.
    """
    if site.is_validating_for_remote():
        return
    in_pods = choice.runs_in_pods(settings)
    if not in_pods:
        _check_docker(kind, model)
    image = model_servers.image(kind, settings)
    found = choice.share(request, settings).gpus if in_pods else _gpus_here(request, settings)
    if model_servers.needs_gpu(image) and not found:
        raise BadInputError(
            f"model: {model.uri} is served by {kind}, whose image {image} needs a GPU, and the "
            "run has none.",
            "Choose a resources.instance_type with GPUs, or set MODELYARD_VLLM_IMAGE to an image "
            "that needs none.",
            code="ServerNeedsGpu",
        )


def _gpus_here(request: BatchInference, settings: Settings) -> int:
    """How many GPUs of this machine the run holds."""
    asked = resources.gpu_count(request.machine(), settings)
    return min(asked, len(gpus.devices(settings)))


def _check_docker(kind: ServerKind, model: ResolvedVersion) -> None:
    try:
        DockerBackend().check_engine()
    except StackError as error:
        raise BadInputError(
            f"model: {model.uri} is served by {kind}, which is started as a container. "
            f"{error.message}",
            "Install and start Docker, run it on a cluster, or name a server that serves the "
            "model as server_url.",
            code="ModelNotPredictable",
        ) from error
