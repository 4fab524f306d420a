"""The server as a process: live at once, ready when it is loaded, and ended without a loss."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelyard_runtime.server import serving
from modelyard_runtime.server.__main__ import main
from modelyard_runtime.server.grpc_messages import SERVICE, message
from modelyard_runtime.server.serving import MemoryWatch

from tests.processes import eventually

_MODEL = """
import os, pathlib, time
FOLDER = pathlib.Path(__file__).parent
def load(model_dir, parameters):
    while os.path.exists(os.path.join(model_dir, "wait")):
        time.sleep(0.01)
    if os.path.exists(os.path.join(model_dir, "fail")):
        raise RuntimeError("no weights")
    return parameters
def predict(inputs, model):
    while (FOLDER / "hold").exists():
        (FOLDER / "held").touch()
        time.sleep(0.01)
    time.sleep(float(inputs["seconds"].max()))
    return {"prediction": inputs["seconds"], "parameter": [model["key"]] * len(inputs["seconds"])}
"""


class Server:
    """A server and its address."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        def listening() -> str:
            _, _, rest = self.log.partition("Listening on ")
            return rest.partition("\n")[0]

        return str(eventually(listening, "it listens"))

    @property
    def grpc(self) -> str:
        """The address of gRPC."""
        return f"127.0.0.1:{self.log.partition('for gRPC on port ')[2].partition(chr(10))[0]}"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def wait_ready(self) -> None:
        eventually(lambda: self.get("/v2/health/ready").status_code == 200, "it is ready")

    def infer(self, seconds: float) -> httpx.Response:
        return httpx.post(f"{self.url}/v2/models/m/infer", json=_asking(seconds), timeout=30)


def _asking(seconds: float) -> dict[str, Any]:
    tensor = {"name": "seconds", "shape": [1], "datatype": "FP64", "data": [seconds]}
    return {"inputs": [tensor]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "predictor.py").write_text(_MODEL)
    return made


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, descriptor: int | None = None) -> Server:
        log = tmp_path / "log"
        command = [
            sys.executable, "-m", "modelyard_runtime.server", "--model-dir", str(folder),
            "--name", "m", "--port", "0", "--parameter", "key=value", *arguments,
        ]  # fmt: skip
        with log.open("w") as file:
            started.append(subprocess.Popen(
                command, stderr=file, stdout=file, text=True,
                pass_fds=[] if descriptor is None else [descriptor],
            ))  # fmt: skip
        return Server(started[-1], log)

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_it_is_live_while_it_loads_and_ready_afterwards(
    folder: Path, start: Callable[..., Server]
) -> None:
    (folder / "wait").touch()
    server = start()
    asked = [server.get(path) for path in ("/v2/health/live", "/v2/health/ready")]
    refused = server.infer(0)
    (folder / "wait").unlink()
    server.wait_ready()

    assert [one.status_code for one in asked] == [200, 503]
    assert refused.status_code == 503
    assert "is loading" in refused.json()["error"]
    answer = server.infer(0).json()
    assert [one["data"] for one in answer["outputs"]] == [[0.0], ["value"]]


def test_a_replacement_accepts_connections_once_it_is_loaded(
    folder: Path, start: Callable[..., Server], tmp_path: Path
) -> None:
    (folder / "wait").touch()
    opened = serving.listen("127.0.0.1", 0)
    opened.listen()
    ready = tmp_path / "ready"
    with opened:
        start(
            "--fd", str(opened.fileno()), "--ready-file", str(ready), "--accept-when-ready",
            descriptor=opened.fileno(),
        )  # fmt: skip
        with socket.create_connection(opened.getsockname(), timeout=30) as client:
            client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: m\r\n\r\n")
            client.settimeout(1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert not ready.exists()
            (folder / "wait").unlink()
            client.settimeout(30)
            assert client.recv(100).startswith(b"HTTP/1.1 200")

    assert ready.exists()


def test_a_listener_that_is_shut_down_is_not_an_error(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    opened = serving.listen("127.0.0.1", 0)
    opened.listen()
    ready = tmp_path / "ready"
    with opened:
        server = start(
            "--fd", str(opened.fileno()), "--ready-file", str(ready), descriptor=opened.fileno()
        )
        address = opened.getsockname()
        eventually(ready.exists, "it is loaded")
        slow = http.client.HTTPConnection(*address, timeout=30)
        slow.request("POST", "/v2/models/m/infer", json.dumps(_asking(1)))
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}") as kept:
            assert kept.get("/v2/health/ready").status_code == 200
        opened.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        server.process.send_signal(signal.SIGTERM)

        assert slow.getresponse().status == 200
        assert server.process.wait(10) == 0
    assert "Traceback" not in server.log


def test_it_is_live_while_it_predicts(folder: Path, start: Callable[..., Server]) -> None:
    server = start()
    server.wait_ready()
    found: list[httpx.Response] = []
    (folder / "hold").touch()
    slow = threading.Thread(target=lambda: found.append(server.infer(0)))
    slow.start()
    eventually((folder / "held").exists, "the model predicts")
    live = [server.get("/v2/health/live").status_code for _ in range(3)]
    (folder / "hold").unlink()
    slow.join()

    assert live == [200, 200, 200]
    assert found[0].status_code == 200


def test_at_the_end_it_answers_what_it_has_begun(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_ready()
    slow = http.client.HTTPConnection(httpx.URL(server.url).netloc.decode(), timeout=30)
    slow.request("POST", "/v2/models/m/infer", json.dumps(_asking(1)))
    kept = httpx.Client(base_url=server.url)
    # Which arrives after what was sent before it.
    assert kept.get("/v2/health/ready").status_code == 200
    server.process.send_signal(signal.SIGTERM)

    assert slow.getresponse().status == 200
    assert server.process.wait(10) == 0


def test_at_the_end_it_answers_what_it_has_begun_in_grpc(start: Callable[..., Server]) -> None:
    server = start("--grpc-port", "0")
    server.wait_ready()
    request = message("ModelInferRequest")(
        model_name="m",
        inputs=[{"name": "seconds", "datatype": "FP64", "shape": [1],
                 "contents": {"fp64_contents": [1.0]}}],
    )  # fmt: skip
    with grpc.insecure_channel(server.grpc) as channel:
        slow = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(
            request.SerializeToString(), timeout=30
        )
        live = channel.unary_unary(f"/{SERVICE}/ServerLive")
        assert live(b"", timeout=30)  # which arrives after what came before it
        server.process.send_signal(signal.SIGTERM)
        outputs = message("ModelInferResponse").FromString(slow.result()).outputs

    assert [one.name for one in outputs] == ["prediction", "parameter"]
    assert list(outputs[1].contents.bytes_contents) == [b"value"]
    assert server.process.wait(10) == 0


def test_grpc_without_its_packages_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_server", "http2_connection", "http2_heads", "http2_requests"):
        monkeypatch.delitem(sys.modules, f"modelyard_runtime.server.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "hpack", None)

    with pytest.raises(SystemExit, match=r"install modelyard-runtime\[server,grpc\]"):
        main(["--model-dir", str(folder), "--grpc-port", "0"])


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_in_use_is_refused(option: str, folder: Path) -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit, match=f"port {port} of 127.0.0.1 cannot be used"):
            main(["--model-dir", str(folder), "--port", "0", option, port])


def test_grpc_is_for_models(folder: Path) -> None:
    with pytest.raises(SystemExit, match="--grpc-port is for models"):
        main(["--model-dir", str(folder), "--grpc-port", "0", "--entry-script", "file"])


def test_a_model_that_does_not_load_ends_it_with_the_reason(
    folder: Path, start: Callable[..., Server]
) -> None:
    (folder / "fail").touch()
    server = start()

    assert server.process.wait(20) == 1
    said = "The model m failed to load: predictor.py:8, in load: RuntimeError: no weights\n"
    assert said in server.log


@pytest.mark.parametrize(
    ("file", "code", "said", "line"),
    [
        ("predictor.py", "def load(d, p):\n    return {}['w']\ndef predict(i, m): pass\n",
         "predictor.py:2, in load: KeyError: 'w'", "return {}['w']"),
        ("predictor.py", "import helper\n", "helper.py:1, in <module>: ZeroDivision", "1 / 0"),
        ("predictor.py", "def load(:\n", "predictor.py:1: SyntaxError: invalid syntax", "load(:"),
        ("predictor.py", "", "predictor.py has no function predict().\n", None),
        ("other", "", "The folder holds no model of a known kind", None),
    ],
)  # fmt: skip
def test_a_model_that_does_not_load_says_where(
    folder: Path, start: Callable[..., Server], file: str, code: str, said: str, line: str | None
) -> None:
    (folder / "predictor.py").unlink()
    (folder / "helper.py").write_text("1 / 0\n")
    (folder / file).write_text(code)
    server = start()

    assert server.process.wait(20) == 1
    *before, last = (one for one in server.log.splitlines() if not one.startswith("Listening"))
    assert last.startswith(f"The model m failed to load: {said}".rstrip("\n"))
    assert bool(before) == (line is not None)
    assert (line or "") in "\n".join(before)
    assert "modelyard_runtime" not in server.log


def test_it_ends_when_its_loop_finds_no_memory_again_and_again() -> None:
    ended: list[int] = []
    times = iter([0.0, 1.0, 90.0, 91.0, 93.0])
    watch = MemoryWatch(ended.append, lambda: next(times))
    loop = asyncio.new_event_loop()
    for error in (MemoryError(), MemoryError(), OSError(), MemoryError(), MemoryError()):
        watch(loop, {"message": "", "exception": error})
    assert ended == []
    watch(loop, {"message": "", "exception": MemoryError()})
    loop.close()

    assert ended == [1]


def test_a_connection_goes_on_after_a_refusal(start: Callable[..., Server]) -> None:
    server = start()
    server.wait_ready()
    with httpx.Client(base_url=server.url) as client:
        stream: list[Any] = []
        for body in (b"{", json.dumps({"instances": [{"seconds": 0}]}).encode()):
            response = client.post("/v1/models/m:predict", content=body)
            stream.append(response.extensions["network_stream"].get_extra_info("client_addr"))
        assert response.status_code == 200
        assert response.json() == {"predictions": [{"prediction": 0.0, "parameter": "value"}]}
        assert stream[0] == stream[1]


def test_a_body_that_does_not_arrive_is_given_up(start: Callable[..., Server]) -> None:
    server = start("--body-timeout", "0.2", "--body-mib", "1")
    server.wait_ready()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nContent-Length: 9\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    large = httpx.post(f"{server.url}/v2/models/m/infer", content=b" " * 2**21)
    assert large.status_code == 413
