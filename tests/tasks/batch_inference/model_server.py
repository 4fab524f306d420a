"""A server of models, as the two protocols describe it, which can be told to misbehave."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.tasks.batch_inference import binary_tensors
from tests.tasks.batch_inference.binary_tensors import MalformedError

Answer = tuple[int, Any]


@dataclass
class ModelServer:
    """A server on loopback.

    Attributes:
        answers: What is answered, by method and path; given the request's body.
        before: Answers that are given first, one after another, to any POST.
        seen: The bodies of the POSTs that were answered by ``answers``, as in JSON alone.
        binary: How many of them had tensors as bytes.
        tokens: The Authorization of every request.
        url: Its address, while it runs.
    """

    answers: dict[str, Callable[[Any], Answer]]
    before: list[Answer] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    binary: int = 0
    url: str = ""
    seconds: float = 0.0

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[ModelServer]:
        """Serve within the context."""
        served = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{served.server_port}"
        try:
            yield self
        finally:
            served.shutdown()
            served.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model_server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", None)

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                length = self.headers.get(binary_tensors.LENGTH)
                try:
                    body = binary_tensors.request_of(data or b"{}", length)
                except MalformedError as error:
                    self._send(400, {"error": str(error)})
                else:
                    model_server.binary += length is not None
                    self._answer("POST", body)

            def _answer(self, method: str, body: Any) -> None:
                model_server.tokens.append(self.headers.get("Authorization"))
                if method == "POST" and model_server.before:
                    self._send(*model_server.before.pop(0))
                    return
                answer = model_server.answers.get(f"{method} {self.path}")
                if method == "POST" and answer:
                    time.sleep(model_server.seconds)
                    model_server.seen.append(body)
                status, content = answer(body) if answer else (404, {"error": "Not found"})
                if status == 200 and self.path.endswith("/infer"):
                    data, headers = binary_tensors.answer_of(content, body)
                    self._send(status, data, headers)
                else:
                    self._send(status, content)

            def _send(
                self, status: int, content: Any, headers: Mapping[str, str] | None = None
            ) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in (headers or {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def line_server(max_batch_size: int = 0, *extensions: str, model: str = "line") -> ModelServer:
    """A model of the Open Inference Protocol: ``2 x + 1``, and the names in capitals."""

    def infer(body: Any) -> Answer:
        given = {one["name"]: one for one in body["inputs"]}
        rows = given["x"]["shape"][0]
        if max_batch_size and rows > max_batch_size:
            return 400, {"error": f"batch-size must be <= {max_batch_size}"}
        if 13 in given["x"]["data"]:
            return 400, {"error": "unlucky"}
        doubled = [2 * value + 1 for value in given["x"]["data"]]
        loud = [name.upper() for name in given["name"]["data"]]
        return 200, {
            "model_name": model,
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [rows, 1], "data": doubled},
                {"name": "loud", "datatype": "BYTES", "shape": [rows], "data": loud},
            ],
        }

    described = {
        "name": model, "versions": ["1"], "platform": "test",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "name", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }  # fmt: skip
    answers: dict[str, Callable[[Any], Answer]] = {
        "GET /v2": lambda _: (
            200,
            {"name": "test", "version": "1", "extensions": list(extensions)},
        ),
        "GET /v2/health/ready": lambda _: (200, b""),
        f"GET /v2/models/{model}": lambda _: (200, described),
        f"GET /v2/models/{model}/ready": lambda _: (200, b""),
        f"POST /v2/models/{model}/infer": infer,
    }
    if max_batch_size:
        answers[f"GET /v2/models/{model}/config"] = lambda _: (
            200,
            {"max_batch_size": max_batch_size},
        )
    return ModelServer(answers)


def language_server(model: str = "owner/small") -> ModelServer:
    """A server with OpenAI's protocol that answers with what it was asked, in capitals."""

    def complete(body: Any) -> Answer:
        if body["prompt"] == "unlucky":
            return 400, {"error": {"message": "The prompt is unlucky.", "code": 400}}
        text = body["prompt"].upper()[: body.get("max_tokens", 99)]
        return 200, {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]}

    def chat(body: Any) -> Answer:
        text = body["messages"][-1]["content"].upper()
        message = {"role": "assistant", "content": text}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    return ModelServer({
        "GET /v1/models": lambda _: (200, {"object": "list", "data": [{"id": model}]}),
        "POST /v1/completions": complete,
        "POST /v1/chat/completions": chat,
    })  # fmt: skip
