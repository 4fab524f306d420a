"""Batch inference on one machine with a server, which is started as a container."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import psutil

from flows.run_context import RunContext
from flows.steps import StopRequestedError
from infra.workloads.base import Workload
from infra.workloads.docker import DockerBackend
from infra.workloads.redaction import redactor
from registry.frameworks import huggingface
from registry.models import models
from registry.models.models import ResolvedVersion
from serving import hub_cache, model_servers
from serving.model_servers import ServerKind
from serving.server_http import ServedModel
from tasks.batch_inference import predicting, server_container
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.predicting import Folders
from tasks.batch_inference.predictor_client import PredictorStartError
from tasks.batch_inference.server_container import ServerContainer


def kind_of(request: BatchInference, model: ResolvedVersion) -> ServerKind | None:
    """The server that is started for the model; None if none is."""
    return None if request.server_url else model_servers.choose(model, request.server)


def fetch(request: BatchInference, model: ResolvedVersion, folders: Folders) -> None:
    """Fetch the model, once for all attempts, as a predictor or the server wants it.

    Raises:
        ModelyardError: If it cannot be read.
    """
    if kind := kind_of(request, model):
        model_servers.fetch(kind, model, folders.model)
    elif not request.server_url and not folders.model.exists():
        models.fetch(model, folders.model)


@contextlib.contextmanager
def asked(
    context: RunContext,
    request: BatchInference,
    model: ResolvedVersion,
    folders: Folders,
    gpus: Sequence[str],
    log: Callable[[str], object],
) -> Iterator[ServedModel | None]:
    """The server that the shards ask, which runs and is ready; None if they load the model.

    Args:
        context: The run.
        request: Its request.
        model: The model.
        folders: The run's folders.
        gpus: Names of the GPUs that the run holds.
        log: Receives what the server prints.

    Raises:
        RunFailedError: If it is not ready in its time, or ends before.
        ModelyardError: If it cannot be started; if the run is over.
    """
    kind = kind_of(request, model)
    if kind is None:
        yield predicting.served(request, model)
        return
    values = predicting.predictor_secrets(None, model)
    hide = redactor(values.values())
    workload, served = _planned(context, kind, model, values, folders, gpus)
    context.logger.info("Starting %s for the model: %s", kind, workload.image)
    with folders.log.open("a", buffering=1) as file:

        def log_line(line: str) -> None:
            shown = hide(line)
            file.write(f"{shown}\n")
            log(shown)

        backend = DockerBackend(grace_seconds=context.settings.stop_grace_seconds)
        backend.check(workload)
        hub_id = huggingface.model_id(model.parameters) if model.source_uri is None else None
        with contextlib.ExitStack() as held:
            held.enter_context(hub_cache.using(context.home.hub, hub_id or ""))
            container = ServerContainer(backend, workload, log_line)
            held.enter_context(contextlib.closing(container))
            try:
                container.await_ready(served, context.is_over)
            except PredictorStartError as error:
                context.raise_if_ended()
                if context.is_over():
                    raise StopRequestedError from error
                raise predicting.failed(hide(str(error)), str(folders.log)) from error
            yield served
    shutil.rmtree(workload.folder, ignore_errors=True)


def _planned(
    context: RunContext,
    kind: ServerKind,
    model: ResolvedVersion,
    secrets: Mapping[str, str],
    folders: Folders,
    gpus: Sequence[str],
) -> tuple[Workload, ServedModel]:
    """The container of a server, and the model there."""
    source = model_servers.fetch(kind, model, folders.model)
    image = model_servers.image(kind, context.settings)
    workload, port = server_container.workload(
        kind, image, source, model, secrets, folders.root / "server", context.home.hub, gpus,
        psutil.virtual_memory().total,
    )  # fmt: skip
    seconds = context.settings.server_start_seconds
    return workload, ServedModel(
        f"http://127.0.0.1:{port}", model.name, source.name, start_seconds=seconds,
        is_restarted=True,
    )  # fmt: skip
