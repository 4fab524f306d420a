"""Readiness of a model on a server, by what the server answers when it is asked once.

Two protocols are known: the Open Inference Protocol, version 2
(https://github.com/kserve/open-inference-protocol), and OpenAI's.

A server that has no model of a name, and one that has not loaded it yet, refuse its description
alike: Triton 24.10 with 404, older ones with 400. What tells them apart is Triton's index of its
repository, where the server announces it, else whether the server as a whole is ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import httpx

from serving.server_http import ServedModel, ServerAnswer, ask

# What a server without the path answers; and those of a model that it does not have, or not yet.
_NOTHING = frozenset({400, 404, 405, 501})
_NO_ROUTE = frozenset({404, 405, 501})
# What a server, or what is before it, answers while it starts or is busy.
BUSY = frozenset({429, 502, 503, 504})

_LONGEST_PAUSE = 5.0
_REPOSITORY = "model_repository"
_UNAVAILABLE = "UNAVAILABLE"


class ServerProtocol(StrEnum):
    """Protocol of a server.

    Attributes:
        OPEN_INFERENCE: The Open Inference Protocol, of Triton, KServe and MLServer.
        OPENAI: OpenAI's completions and chat completions, of vLLM.
    """

    OPEN_INFERENCE = "open-inference"
    OPENAI = "openai"


@dataclass(frozen=True)
class ServerReadiness:
    """What a server says of a model.

    Attributes:
        protocol: The protocol that serves it; None if the model is not ready.
        reason: Why it is not.
        name: Its name there.
        description: Its inputs and outputs, in the Open Inference Protocol.
        extensions: Extensions of that protocol that the server has.
    """

    protocol: ServerProtocol | None = None
    reason: str = ""
    name: str = ""
    description: Mapping[str, Any] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked for predictions."""
        return self.protocol is not None


class ModelUnservedError(Exception):
    """A server that will never serve the model as it is; the message follows its address."""


def observe(client: httpx.Client, served: ServedModel) -> ServerReadiness:
    """Ask a server once whether it serves a model.

    Args:
        client: A client of the server.
        served: The model.

    Raises:
        ModelUnservedError: If it refuses to say, speaks neither protocol, or has no such model.
    """
    try:
        described = _get(client, "/v2")
        if described is None:
            return _openai(client, served)
        extensions = frozenset(map(str, described.get("extensions") or ()))
        return _open_inference(client, served, extensions)
    except httpx.TransportError as error:
        return ServerReadiness(reason=f"it cannot be reached: {error}")
    except _BusyError as error:
        return ServerReadiness(reason=str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelUnservedError(f"sent what is no answer: {error!r}") from error


def await_ready(
    client: httpx.Client, served: ServedModel, ended: Callable[[], str] = str
) -> ServerReadiness:
    """Ask a server until it serves a model.

    Args:
        client: A client of the server.
        served: The model, and how long that may take.
        ended: Returns why the server has ended for good; "" as long as it has not.

    Raises:
        ModelUnservedError: If it has ended, is not ready in time, or never will be.
    """
    until, pause = time.monotonic() + served.start_seconds, 0.1
    while True:
        found = observe(client, served)
        if found.is_ready:
            return found
        if reason := ended():
            raise ModelUnservedError(f"has ended before it was ready: {reason}")
        if time.monotonic() + pause > until:
            raise ModelUnservedError(
                f"is not ready after {served.start_seconds:g} seconds: {found.reason}"
            )
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _open_inference(
    client: httpx.Client, served: ServedModel, extensions: frozenset[str]
) -> ServerReadiness:
    name = served.name or served.registered
    path = f"/v2/models/{quote(name)}"
    described = _get(client, path)
    if described is None:
        reason = _reason_of_absence(client, name, path, extensions)
        return ServerReadiness(reason=reason, name=name)
    ready = ask(client, f"{path}/ready")
    if not ready.is_ok and ready.status not in _NO_ROUTE:
        said = f": {ready.reason}" if ready.reason else ""
        return ServerReadiness(reason=f"its model {name!r} is not ready{said}", name=name)
    return ServerReadiness(
        ServerProtocol.OPEN_INFERENCE, name=name, description=dict(described),
        extensions=extensions,
    )  # fmt: skip


def _reason_of_absence(
    client: httpx.Client, name: str, path: str, extensions: frozenset[str]
) -> str:
    """Why a model is not there yet.

    Raises:
        ModelUnservedError: If it will not be.
    """
    if _REPOSITORY in extensions:
        listed = ask(client, "/v2/repository/index", body={})
        if listed.is_ok:
            return _reason_in_repository(client, name, path, listed.parsed())
    return _reason_of_server(
        client, path, f"has no model {name!r}: give its name there as server_model"
    )


def _reason_in_repository(
    client: httpx.Client, name: str, path: str, listed: Sequence[Mapping[str, Any]]
) -> str:
    versions = [one for one in listed if one["name"] == name]
    if not versions:
        raise ModelUnservedError(f"has no model {name!r}: give its name there as server_model.")
    states = {str(one.get("state") or "") for one in versions}
    if states - {"", _UNAVAILABLE}:
        return f"it loads its model {name!r}"
    reasons = [str(one["reason"]) for one in versions if one.get("reason")]
    if reasons:
        raise ModelUnservedError(f"could not load its model {name!r}: {reasons[0]}")
    return _reason_of_server(client, path, f"has not loaded its model {name!r}")


def _reason_of_server(client: httpx.Client, path: str, otherwise: str) -> str:
    """Why a server that is not ready as a whole may yet have a model.

    Raises:
        ModelUnservedError: With ``otherwise``, if it is ready.
    """
    ready = ask(client, "/v2/health/ready")
    if not ready.is_ok and ready.status not in _NO_ROUTE:
        return "it is not ready"
    if _get(client, path) is None:
        raise ModelUnservedError(f"{otherwise}.")
    return "it has only now loaded the model"  # since it was asked for it


def _openai(client: httpx.Client, served: ServedModel) -> ServerReadiness:
    listed = _get(client, "/v1/models")
    if listed is None:
        raise ModelUnservedError("speaks neither the Open Inference Protocol nor OpenAI's.")
    there = [str(one["id"]) for one in listed["data"]]
    if not there or (served.name and served.name not in there):
        raise ModelUnservedError(
            f"has the models {', '.join(there) or 'none'}: name one as server_model."
        )
    return ServerReadiness(ServerProtocol.OPENAI, name=served.name or there[0])


class _BusyError(Exception):
    """A server that answers, and is not ready."""


def _get(client: httpx.Client, path: str) -> Any:
    """What is at a path; None if there is nothing.

    Raises:
        ModelUnservedError: If the server refuses the request.
        _BusyError: If it is not ready.
    """
    answer: ServerAnswer = ask(client, path)
    if answer.status in _NOTHING:
        return None
    if answer.status in BUSY:
        raise _BusyError(f"it answers {answer.status}")
    if not answer.is_ok:
        raise ModelUnservedError(f"answers {answer.status}: {answer.reason}")
    return answer.parsed()
