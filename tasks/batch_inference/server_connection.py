"""Connections to servers of models, made once the model is ready there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from infra.masking import mask
from serving import server_http, server_readiness
from serving.server_http import ServedModel
from serving.server_readiness import ModelUnservedError, ServerProtocol, ServerReadiness
from tasks.batch_inference.completions import CompletionsClient
from tasks.batch_inference.inference_protocol import InferenceProtocolClient
from tasks.batch_inference.predictor_client import PredictorStartError
from tasks.batch_inference.server_client import ServerClient

_LOAD_SECONDS = 120.0
_LONGEST_PAUSE = 5.0

_CLIENTS: Mapping[ServerProtocol, Callable[[httpx.Client, ServerReadiness], ServerClient]] = {
    ServerProtocol.OPEN_INFERENCE: InferenceProtocolClient,
    ServerProtocol.OPENAI: CompletionsClient,
}


def connect(served: ServedModel, seconds: float = _LOAD_SECONDS) -> ServerClient:
    """A client of a server, once the model is ready there.

    Args:
        served: The model.
        seconds: How long the server may take to start, and to load the model.

    Raises:
        PredictorStartError: If it is not ready by then, speaks neither protocol, or does not have
            the model.
    """
    try:
        client = server_http.open_client(served)
    except ValueError as error:
        raise PredictorStartError(str(error)) from error
    try:
        ready = _await_ready(client, served, time.monotonic() + seconds)
        assert ready.protocol is not None
        return _CLIENTS[ready.protocol](client, ready)
    except ModelUnservedError as error:
        client.close()
        raise PredictorStartError(f"The server at {mask(served.url)} {error}") from error
    except httpx.TransportError as error:
        client.close()
        message = f"The server at {mask(served.url)} cannot be reached: {error}"
        raise PredictorStartError(message) from error
    except BaseException:
        client.close()
        raise


def _await_ready(client: httpx.Client, served: ServedModel, until: float) -> ServerReadiness:
    pause = 0.1
    while True:
        found = server_readiness.observe(client, served)
        if found.is_ready:
            return found
        if time.monotonic() + pause > until:
            raise ModelUnservedError(f"is not ready: {found.reason}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
