"""The Open Inference Protocol's gRPC: the same models, queues and limits as over HTTP."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from modelyard_runtime.server import grpc_tensors, open_inference
from modelyard_runtime.server.admission import UNAUTHORIZED, carries
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.refusals import RequestRefused, bad
from modelyard_runtime.server.served_models import ServedModels

# What a refusal's HTTP status is in gRPC.
_CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# The words of a refusal are a header, percent-encoded; clients take 8 KiB of headers.
_MESSAGE_BYTES = 2000

_PROBES = frozenset({"ServerLive", "ServerReady"})

Method = Callable[[Any], Awaitable[Any]]


class GrpcServer:
    """Answers gRPC requests for some models."""

    def __init__(
        self, models: ServedModels, host: str, port: int, message_bytes: int, token: str = ""
    ) -> None:
        """Serve ``models``.

        Args:
            models: The models.
            host: The address to listen on.
            port: The port; 0 for any that is free.
            message_bytes: Longest request.
            token: What the metadatum ``authorization`` has to carry, but for probes; "" if
                nothing. Pages in a browser cannot ask it, so there is no more to check.
        """
        self._models = models
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._message_bytes = message_bytes
        self._token = token.encode()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: If it cannot.
        """
        options = [
            ("grpc.max_receive_message_length", self._message_bytes),
            ("grpc.so_reuseport", 0),  # else two servers share a port, and neither is told
        ]
        self._server = grpc.aio.server(options=options)
        methods: Mapping[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._answering(message(f"{name}Request"), method, is_probe=name in _PROBES)
            )
            for name, method in methods.items()
        }
        self._server.add_registered_method_handlers(SERVICE, handlers)
        try:
            port = int(self._server.add_insecure_port(self._address))
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from None
        await self._server.start()
        return port

    async def stop(self, seconds: float) -> None:
        """Accept nothing more, and answer what has begun within ``seconds``."""
        if self._server:
            await self._server.stop(seconds)

    async def _server_live(self, _: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _server_ready(self, _: Any) -> Any:
        return message("ServerReadyResponse")(ready=_is_ready(self._models))

    async def _model_ready(self, request: Any) -> Any:
        return message("ModelReadyResponse")(ready=_is_ready(self._model(request)))

    async def _server_metadata(self, _: Any) -> Any:
        return message("ServerMetadataResponse")(**open_inference.server_metadata())

    async def _model_metadata(self, request: Any) -> Any:
        model = self._model(request)
        model.check_ready()
        found = open_inference.described(
            model.name, [model.version], model.platform, model.inputs, model.outputs
        )
        return message("ModelMetadataResponse")(**found)

    async def _model_infer(self, request: Any) -> Any:
        model = self._models.find(request.model_name, request.model_version or None)
        asked = grpc_tensors.read(request)
        outputs = await model.infer(asked.inputs)
        return grpc_tensors.write(asked, outputs, model.name, model.version)

    def _model(self, request: Any) -> HostedModel:
        return self._models.find(request.name, request.version or None)

    def _answering(
        self, request: Any, method: Method, *, is_probe: bool
    ) -> Callable[[bytes, Any], Awaitable[Any]]:
        """A handler of bytes: it answers whatever comes, also what is no message."""

        async def answer(body: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                if self._token and not is_probe:
                    self._check_token(context)
                return (await method(_parsed(request, body))).SerializeToString()
            except RequestRefused as refusal:
                code, words = _CODES[refusal.status], refusal.message
            except Exception:  # noqa: BLE001 (the edge of the server)
                print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
                code, words = grpc.StatusCode.INTERNAL, "The server failed; see its log."
            return await context.abort(code, _cut(words))

        return answer

    def _check_token(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = context.invocation_metadata() or ()
        given = [str(value) for name, value in metadata if name == "authorization"]
        if len(given) != 1 or not carries(given[0], self._token):
            raise RequestRefused(401, UNAUTHORIZED)


def _is_ready(one: ServedModels | HostedModel) -> bool:
    try:
        one.check_ready()
    except RequestRefused:
        return False
    return True


def _parsed(request: Any, body: bytes) -> Any:
    try:
        return request.FromString(body)
    except DecodeError as error:
        raise bad(f"The request is no {request.DESCRIPTOR.name}: {error}.") from None


def _cut(words: str) -> str:
    return words.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
