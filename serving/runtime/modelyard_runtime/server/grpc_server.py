"""The Open Inference Protocol's gRPC: the same models, queues and limits as over HTTP.

Requests are read and answers written in threads of gRPC's own, and predicted by way of the event
loop, where those of HTTP are. grpc.aio would need no threads; but it takes one request at a time
from the connections, so none arrives while another is predicted, and there are no batches.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from modelyard_runtime.server import grpc_tensors, open_inference
from modelyard_runtime.server.admission import UNAUTHORIZED, carries
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.observation import RequestObserver
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

# Requests in flight, each in a thread while it waits; more than a model lets wait, so that probes
# are answered while it is busy. Threads are made as they are needed.
_THREADS = 512

_PROBES = frozenset({"ServerLive", "ServerReady"})

Method = Callable[[Any, grpc.ServicerContext], Any]


class GrpcServer:
    """Answers gRPC requests for some models."""

    def __init__(
        self, models: ServedModels, host: str, port: int, message_bytes: int, token: str = "",
        observer: RequestObserver | None = None, *, is_shared: bool = False,
    ) -> None:  # fmt: skip
        """Serve ``models``.

        Args:
            models: The models.
            host: The address to listen on.
            port: The port; 0 for any that is free.
            message_bytes: Longest request.
            token: What the metadatum ``authorization`` has to carry, but for probes; "" if
                nothing. Pages in a browser cannot ask it, so there is no more to check.
            observer: Is told of requests; None for nobody.
            is_shared: Whether other servers may listen on the port, among which the kernel
                divides the connections. If not, a port that is in use is refused.
        """
        self._models = models
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._message_bytes = message_bytes
        self._token = token.encode()
        self._observer = observer or RequestObserver()
        self._is_shared = is_shared
        self._server: grpc.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            OSError: If it cannot.
        """
        options = [
            ("grpc.max_receive_message_length", self._message_bytes),
            ("grpc.so_reuseport", int(self._is_shared)),
        ]
        self._loop = asyncio.get_running_loop()
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, "grpc"), options=options, maximum_concurrent_rpcs=_THREADS
        )
        methods: Mapping[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(name, method))
            for name, method in methods.items()
        }
        self._server.add_registered_method_handlers(SERVICE, handlers)
        try:
            port = int(self._server.add_insecure_port(self._address))
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from None
        self._server.start()
        return port

    async def stop(self, seconds: float) -> None:
        """Accept nothing more, and answer what has begun within ``seconds``."""
        if self._server:
            await asyncio.to_thread(self._server.stop(seconds).wait)

    def _server_live(self, _: Any, __: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    def _server_ready(self, _: Any, __: Any) -> Any:
        return message("ServerReadyResponse")(ready=_is_ready(self._models))

    def _model_ready(self, request: Any, _: Any) -> Any:
        return message("ModelReadyResponse")(ready=_is_ready(self._model(request)))

    def _server_metadata(self, _: Any, __: Any) -> Any:
        return message("ServerMetadataResponse")(**open_inference.server_metadata())

    def _model_metadata(self, request: Any, _: Any) -> Any:
        model = self._model(request)
        model.check_ready()
        found = open_inference.described(
            model.name, [model.version], model.platform, model.inputs, model.outputs
        )
        return message("ModelMetadataResponse")(**found)

    def _model_infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = self._models.find(request.model_name, request.model_version or None)
        asked = grpc_tensors.read(request)
        assert self._loop is not None
        predicting = asyncio.run_coroutine_threadsafe(model.infer(asked.inputs), self._loop)
        if not context.add_callback(predicting.cancel):  # the client has gone
            predicting.cancel()
        outputs = predicting.result()
        return grpc_tensors.write(asked, outputs, model.name, model.version)

    def _model(self, request: Any) -> HostedModel:
        return self._models.find(request.name, request.version or None)

    def _answering(
        self, name: str, method: Method
    ) -> Callable[[bytes, grpc.ServicerContext], Any]:
        """A handler of bytes: it answers whatever comes, also what is no message."""
        request = message(f"{name}Request")
        observed = "".join(f"_{one.lower()}" if one.isupper() else one for one in name)[1:]

        def answer(body: bytes, context: grpc.ServicerContext) -> Any:
            assert self._loop is not None
            scope = _scope(name, context) if self._observer.reads_scopes else {}
            record = self._observer.begin("grpc", observed, scope)
            code, words = grpc.StatusCode.OK, ""
            try:
                if self._token and name not in _PROBES:
                    self._check_token(context)
                answered: bytes = method(_parsed(request, body), context).SerializeToString()
                record.sent = len(answered)
                return answered
            except CancelledError:
                code, words = grpc.StatusCode.CANCELLED, "The client has cancelled the request."
            except RequestRefused as refusal:
                code, words = _CODES[refusal.status], refusal.message
            except Exception:  # noqa: BLE001 (the edge of the server)
                print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
                code, words = grpc.StatusCode.INTERNAL, "The server failed; see its log."
            finally:
                if record.answer_headers:
                    context.set_trailing_metadata(
                        [(key.decode(), value.decode()) for key, value in record.answer_headers]
                    )
                record.code = code.name
                self._observer.end_in_thread(record, self._loop)
            return context.abort(code, _cut(words))

        return answer

    def _check_token(self, context: grpc.ServicerContext) -> None:
        metadata = context.invocation_metadata() or ()
        given = [str(value) for name, value in metadata if name == "authorization"]
        if len(given) != 1 or not carries(given[0], self._token):
            raise RequestRefused(401, UNAUTHORIZED)


def _scope(name: str, context: grpc.ServicerContext) -> Mapping[str, Any]:
    """What ASGI would say of a request."""
    metadata = context.invocation_metadata() or ()
    headers = [
        (key.encode(), value.encode("latin-1", "replace"))
        for key, value in metadata
        if isinstance(value, str)
    ]
    peer = context.peer().partition(":")[2].rpartition(":")[0]
    return {"method": "POST", "path": f"/{SERVICE}/{name}", "headers": headers,
            "client": (peer, 0)}  # fmt: skip


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
