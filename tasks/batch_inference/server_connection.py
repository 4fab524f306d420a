"""Connections to servers of models, made once the model is ready there."""

from __future__ import annotations

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

_CLIENTS: Mapping[
    ServerProtocol, Callable[[httpx.Client, ServedModel, ServerReadiness], ServerClient]
] = {
    ServerProtocol.OPEN_INFERENCE: InferenceProtocolClient,
    ServerProtocol.OPENAI: CompletionsClient,
}


def connect(served: ServedModel, ended: Callable[[], str] = str) -> ServerClient:
    """A client of a server, once the model is ready there.

    Args:
        served: The model.
        ended: Returns why the server has ended for good; "" as long as it has not.

    Raises:
        PredictorStartError: If it has ended, or is not ready in its time; if it speaks neither
            protocol, or does not have the model.
    """
    try:
        client = server_http.open_client(served)
    except ValueError as error:
        raise PredictorStartError(str(error)) from error
    try:
        ready = server_readiness.await_ready(client, served, ended)
        assert ready.protocol is not None
        return _CLIENTS[ready.protocol](client, served, ready)
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
