"""Servers that are started for a model through their images: Triton and vLLM.

Which server a model needs, what it is given of the model's files, its command line and its
variables. Where it runs is the caller's: beside a shard in its pod, or as a container.

A model's parameters are a server's arguments, as they are written, and variables of its
environment in capitals; those that refer to secrets are only variables, because command lines can
be read. What a server must be told for the platform to reach it comes last, and so counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from infra import secrets
from infra.errors import BadInputError
from infra.settings import Settings
from registry import frameworks
from registry.frameworks import huggingface, triton
from registry.models import model_parameters, models
from registry.models.model_parameters import Scalar
from registry.models.models import ResolvedVersion

_MOST_SHARED = 16 * 2**30
_TEXT_GENERATION = "text_generation"
# Parameters that name the model itself, or what Hugging Face's runtime does with it.
_OF_THE_MODEL = frozenset({"MODEL_ID", "MODEL_REVISION", "TASK"})
_REVISION = "MODEL_REVISION"
# Options of Triton that take no value.
_TRITON_FLAGS = frozenset({"disable-auto-complete-config"})


class ServerKind(StrEnum):
    """Kind of a server that is started for a model.

    Attributes:
        TRITON: NVIDIA's Triton, which serves a model repository.
        VLLM: vLLM, which serves a language model of Hugging Face.
    """

    TRITON = "triton"
    VLLM = "vllm"


@dataclass(frozen=True)
class ServerSource:
    """What a server has of a model.

    Attributes:
        name: The model's name there.
        source: What its command names: a folder, or the model's id on the hub.
    """

    name: str
    source: str


@dataclass(frozen=True)
class ServerListen:
    """Where a server listens, and what it has of its machine.

    Attributes:
        host: Its address: the loopback one, or all of a container's.
        port: Its port.
        gpus: How many GPUs it has.
    """

    host: str
    port: int
    gpus: int = 0


class ServableModel(Protocol):
    """What decides how a version of a model is served; see ``ResolvedVersion``."""

    @property
    def uri(self) -> str: ...  # noqa: D102

    @property
    def framework(self) -> str | None: ...  # noqa: D102

    @property
    def source_uri(self) -> str | None: ...  # noqa: D102

    @property
    def parameters(self) -> Mapping[str, Scalar]: ...  # noqa: D102


def choose(model: ServableModel, asked: str = "") -> ServerKind | None:
    """The server that a model is served with; None if a predictor loads it.

    Args:
        model: The model.
        asked: A kind, to serve a model with it that a predictor would load; "" for the one that
            the model needs.

    Raises:
        BadInputError: ``ServerUnsuitable``, if such a server cannot serve the model;
            ``ModelNotPredictable``, if none that is known can.
    """
    needed = _needed(model)
    kind = ServerKind(asked) if asked else needed
    suitable = {needed, ServerKind.VLLM} if model.framework == frameworks.HUGGINGFACE else {needed}
    if kind not in suitable:
        raise BadInputError(
            f"server: {kind} does not serve {model.uri}, whose framework is "
            f"{model.framework or 'not known'}.",
            "Leave server empty. Triton serves the frameworks that end in -triton, and vLLM "
            f"{frameworks.HUGGINGFACE}.",
            code="ServerUnsuitable",
        )
    if kind is ServerKind.VLLM:
        _check_task(model)
    return kind


def _needed(model: ServableModel) -> ServerKind | None:
    if frameworks.is_loaded(model.framework, model.source_uri):
        return None
    return ServerKind.VLLM if model.source_uri is None else ServerKind.TRITON


def _check_task(model: ServableModel) -> None:
    task = next(
        (
            str(value).replace("-", "_")
            for name, value in model.parameters.items()
            if model_parameters.variable(name) == "TASK"
        ),
        _TEXT_GENERATION,
    )
    if task != _TEXT_GENERATION:
        raise BadInputError(
            f"model: {model.uri} is for the task {task}, and vLLM generates text.",
            "Name a server that serves it as server_url, or register its files, which a predictor "
            "loads.",
            code="ModelNotPredictable",
        )


def image(kind: ServerKind, settings: Settings) -> str:
    """The image of a server."""
    return {ServerKind.TRITON: settings.triton_image, ServerKind.VLLM: settings.vllm_image}[kind]


def needs_gpu(image: str) -> bool:
    """Whether an image is known to serve nothing without a GPU."""
    return bool(image == Settings.model_fields["vllm_image"].default)


def shared_memory(memory: int) -> int:
    """Bytes of the shared memory of a server with so many bytes of memory, of which they count.

    Processes of vLLM, and Triton's models in Python, exchange their tensors there.
    """
    return min(memory // 4, _MOST_SHARED)


def fetch(kind: ServerKind, model: ResolvedVersion, folder: Path) -> ServerSource:
    """Fetch what a server is given of a model's files; what an earlier attempt fetched is kept.

    Args:
        kind: The server.
        model: The model.
        folder: Its folder, alone for this; nothing is there for a model on a hub.

    Raises:
        ModelyardError: If the files cannot be read.
    """
    if kind is ServerKind.TRITON:
        placed = triton.placement(models.layout(model), model.name)
        _fetch_once(model, folder if placed.is_repository else folder / placed.name)
        return ServerSource(placed.name, str(folder))
    if model.source_uri is None:
        return ServerSource(model.name, huggingface.model_id(model.parameters) or "")
    _fetch_once(model, folder)
    return ServerSource(model.name, str(folder))


def _fetch_once(model: ResolvedVersion, destination: Path) -> None:
    if not destination.exists():
        destination.parent.mkdir(parents=True, exist_ok=True)
        models.fetch(model, destination)


def command(
    kind: ServerKind, served: ServerSource, parameters: Mapping[str, Scalar], listen: ServerListen
) -> list[str]:
    """The command line of a server.

    Args:
        kind: The server.
        served: What it has of the model.
        parameters: The model's parameters.
        listen: Where it listens.
    """
    plain = {
        name: value
        for name, value in parameters.items()
        if not (isinstance(value, str) and secrets.name_of(value))
    }
    return _COMMANDS[kind](served, plain, listen)


def _triton(
    served: ServerSource, parameters: Mapping[str, Scalar], listen: ServerListen
) -> list[str]:
    arguments = [
        f"--{name}" if name in _TRITON_FLAGS else f"--{name}={text}"
        for name, text in model_parameters.texts(parameters).items()
        if not (name in _TRITON_FLAGS and text == "false")
    ]
    return [
        "tritonserver", *arguments, f"--model-repository={served.source}",
        f"--http-address={listen.host}", f"--http-port={listen.port}",
        "--allow-grpc=false", "--allow-metrics=false",
    ]  # fmt: skip


def _vllm(
    served: ServerSource, parameters: Mapping[str, Scalar], listen: ServerListen
) -> list[str]:
    spread = [f"--tensor-parallel-size={listen.gpus}"] if listen.gpus > 1 else []
    revision = [
        f"--revision={value}"
        for name, value in parameters.items()
        if model_parameters.variable(name) == _REVISION
    ]
    return [
        "vllm", "serve", served.source, *spread, *revision, *_vllm_arguments(parameters.items()),
        f"--served-model-name={served.name}", f"--host={listen.host}", f"--port={listen.port}",
    ]  # fmt: skip


def _vllm_arguments(parameters: Iterable[tuple[str, Scalar]]) -> list[str]:
    """Arguments of vLLM, whose options that are true or false take no value."""
    found = []
    for name, value in parameters:
        if model_parameters.variable(name) in _OF_THE_MODEL:
            continue
        if isinstance(value, bool):
            found.append(f"--{name}" if value else f"--no-{name}")
        else:
            found.append(f"--{name}={value}")
    return found


_COMMANDS: Mapping[
    ServerKind, Callable[[ServerSource, Mapping[str, Scalar], ServerListen], list[str]]
] = {ServerKind.TRITON: _triton, ServerKind.VLLM: _vllm}


def environment(
    parameters: Mapping[str, Scalar], values: Mapping[str, str], home: Path, cache: Path
) -> dict[str, str]:
    """Variables of a server, beside those of its image.

    Args:
        parameters: The model's parameters.
        values: Values of those that refer to secrets.
        home: A folder that it may write to.
        cache: Folder of what it downloads from the hub.
    """
    return {
        # Its user may be one that its image does not know.
        "HOME": str(home), "USER": "modelyard", "HF_HOME": str(cache),
        "VLLM_NO_USAGE_STATS": "1",
        **model_parameters.environment({**parameters, **values}),
    }  # fmt: skip
