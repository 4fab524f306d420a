"""Traces: spans of requests, as a receiver of OpenTelemetry's protocol gets them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from modelyard_runtime.server import serving, tracing
from modelyard_runtime.server.application import Application
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.grpc_server import GrpcServer
from modelyard_runtime.server.observation import ObservedApplication, RequestObserver
from modelyard_runtime.server.request_bodies import RequestLimits
from modelyard_runtime.server.scoring_application import ScoringApplication
from modelyard_runtime.server.scoring_script import ScoringScript
from modelyard_runtime.server.served_models import ServedModels
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.serving.runtime.server import served
from tests.test_light_imports import imported_by

_TRACE, _PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class _Receiver(HTTPServer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Receives)

    def named(self) -> dict[str, Any]:
        return {one.name: one for one in self.spans}


class _Receives(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest()
        sent.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            self.server.services.add(_plain(resource.resource.attributes)["service.name"])
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Receiver]:
    made = _Receiver()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv(_ENDPOINT, f"http://127.0.0.1:{made.server_port}")
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def traces(receiver: _Receiver) -> Iterator[tracing.Tracing]:
    made = tracing.from_environment()
    assert made is not None
    yield made
    made.close()


def _client(application: Any, traces: tracing.Tracing) -> httpx.AsyncClient:
    observed = ObservedApplication(application, RequestObserver([traces]))
    transport = httpx.ASGITransport(observed, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


@pytest.mark.anyio
async def test_a_request_is_a_span_of_its_client_s_trace(
    receiver: _Receiver, traces: tracing.Tracing, iris: Any
) -> None:
    model = served.hosted("iris", iris)
    await model.load()
    client = _client(Application(ServedModels([model])), traces)
    answer = await client.post(
        "/v1/models/iris:predict?key=secret", json={"instances": [served.SETOSA] * 3},
        headers={"traceparent": f"00-{_TRACE}-{_PARENT}-01"},
    )  # fmt: skip
    traces.close()
    found = receiver.named()
    request, queue, predict = found["v1 predict"], found["queue"], found["predict"]

    assert receiver.services == {"modelyard-runtime"}
    assert {one.trace_id.hex() for one in receiver.spans} == {_TRACE}
    assert request.parent_span_id.hex() == _PARENT
    assert answer.headers["traceresponse"] == f"00-{_TRACE}-{request.span_id.hex()}-01"
    assert _plain(request.attributes) == {
        "modelyard.protocol": "v1", "modelyard.model": "iris", "http.request.method": "POST",
        "url.path": "/v1/models/iris:predict", "http.response.status_code": 200,
    }  # fmt: skip
    assert {one.parent_span_id for one in (queue, predict)} == {request.span_id}
    assert _plain(predict.attributes) == {
        "modelyard.batch.rows": 3, "modelyard.batch.requests": 1,
    }  # fmt: skip
    times = [request.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano,
             predict.end_time_unix_nano, request.end_time_unix_nano]  # fmt: skip
    assert times == sorted(times)
    assert queue.end_time_unix_nano == predict.start_time_unix_nano


@pytest.mark.anyio
async def test_a_client_s_decision_not_to_sample_counts(
    receiver: _Receiver, traces: tracing.Tracing
) -> None:
    client = _client(Application(ServedModels([])), traces)
    ours = await client.get("/v2", headers={"traceparent": f"00-{_TRACE}-{_PARENT}-00"})
    odd = await client.get("/v3", headers={"traceparent": "odd"})
    traces.close()

    assert ours.headers["traceresponse"].startswith(f"00-{_TRACE}-")
    assert ours.headers["traceresponse"].endswith("-00")
    (span,) = receiver.spans
    assert (span.name, span.parent_span_id) == ("http other", b"")
    assert odd.headers["traceresponse"].split("-")[1] == span.trace_id.hex() != _TRACE


@pytest.mark.anyio
async def test_failures_of_the_server_are_errors(
    receiver: _Receiver, traces: tracing.Tracing, tmp_path: Path
) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return 1 / len(data)\n")
    script = ScoringScript(tmp_path / "score.py")
    await script.load()
    client = _client(ScoringApplication(script), traces)
    for body in (b"1", b""):
        await client.post("/score", content=body)
    await client.delete("/score")
    traces.close()
    script.close()
    statuses = {
        _plain(one.attributes)["http.response.status_code"]: one.status.code
        for one in receiver.spans
        if one.name == "azureml score"
    }

    assert statuses == {200: 0, 500: 2, 405: 0}
    assert [one.name for one in receiver.spans].count("predict") == 2


@pytest.mark.anyio
async def test_requests_of_grpc_are_spans(receiver: _Receiver, traces: tracing.Tracing) -> None:
    model = served.hosted("echo", served.slow)
    await model.load()
    observer = RequestObserver([traces])
    opened = serving.listen("127.0.0.1", 0)
    server = GrpcServer(ServedModels([model]), opened, RequestLimits(), observer=observer)
    await server.start()
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "contents": {"fp64_contents": [0.0]}}
    body = message("ModelInferRequest")(model_name="echo", inputs=[tensor]).SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(
            body, metadata=[("traceparent", f"00-{_TRACE}-{_PARENT}-01")]
        )
        await call
        trailing = dict(await call.trailing_metadata())
    await server.stop(0)
    model.close()
    traces.close()
    found = receiver.named()

    request = found["grpc model_infer"]
    assert request.parent_span_id.hex() == _PARENT
    assert trailing["traceresponse"] == f"00-{_TRACE}-{request.span_id.hex()}-01"
    assert _plain(request.attributes) == {
        "modelyard.protocol": "grpc", "modelyard.model": "echo", "rpc.system": "grpc",
        "rpc.method": "model_infer", "rpc.response.status_code": "OK",
    }  # fmt: skip
    assert set(found) == {"grpc model_infer", "queue", "predict"}


@pytest.mark.integration
def test_at_its_end_a_server_writes_what_it_has_not_yet_written(
    receiver: _Receiver, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "predictor.py").write_text(
        "def load(model_dir, parameters): return 1\n"
        "def predict(inputs, model): return {'prediction': inputs['x']}\n"
    )
    command = [sys.executable, "-m", "modelyard_runtime.server", "--model-dir", str(folder),
               "--port", "0", "--access-log", "json"]  # fmt: skip
    with (
        (tmp_path / "out").open("w") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        url = process.stderr.readline().removeprefix("Listening on ").strip()
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        process.terminate()
        process.wait(30)

    (line,) = (tmp_path / "out").read_text().splitlines()
    assert json.loads(line)["path"] == "/v2/health/live"
    assert list(receiver.named()) == ["v2 server_live"]


@pytest.mark.parametrize(
    ("environment", "is_asked_for"),
    [
        ({}, False),
        ({_ENDPOINT: ""}, False),
        ({_ENDPOINT: "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({_ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({_ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({_ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_variables_ask_for_traces(environment: Mapping[str, str], is_asked_for: bool) -> None:
    assert tracing.is_asked_for(environment) is is_asked_for


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf"])
def test_without_what_they_need_there_are_no_traces_and_a_notice(
    protocol: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    environment = {_ENDPOINT: "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}

    assert tracing.from_environment(environment) is None
    said = capsys.readouterr().err
    assert "Traces are not exported: " in said
    assert ("give one of" if protocol == "http/json" else "modelyard-runtime[tracing]") in said


def test_a_server_without_traces_imports_nothing_for_them() -> None:
    code = "from modelyard_runtime.server import __main__, tracing; tracing.from_environment({})"

    assert imported_by(code, {"opentelemetry", "prometheus_client", "mlflow"}) == set()
