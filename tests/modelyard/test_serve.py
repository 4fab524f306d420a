"""``modelyard serve`` and ``azmlinfsrv``: what they refuse, and the real command."""

from __future__ import annotations

import json
import os
import re
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
from modelyard_runtime.server.grpc_messages import SERVICE, message

from infra.errors import ModelyardError
from modelyard import azmlinfsrv
from modelyard.commands import serve
from tests.processes import eventually

_SCRIPT = """
import os
def init():
    global model
    model = os.path.basename(os.environ["AZUREML_MODEL_DIR"])
def run(data):
    return {"message": "Hello, World!", "model": model, "token": os.environ.get("%s")}
"""
_TOKEN = "0123456789abcdef0123"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(serve._TOKEN, raising=False)
    (tmp_path / "score.py").write_text(_SCRIPT % serve._TOKEN)
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "NothingToServe"),
        ({"model_dir": Path("weights"), "model": "models:/m/1"}, "NothingToServe"),
        ({"entry_script": Path("score.py"), "model": "models:/m/1"}, "NothingToServe"),
        ({"entry_script": Path("none.py")}, "NotFound"),
        ({"model_dir": Path("none")}, "NotFound"),
        ({"model_dir": Path("weights"), "token_file": Path("none")}, "NotFound"),
        ({"model_dir": Path("weights"), "token_file": Path("short")}, "TokenInvalid"),
        ({"model_dir": Path("weights"), "host": "0.0.0.0"}, "TokenRequired"),
        ({"model_dir": Path("weights"), "host": "0.0.0.0", "grpc_port": 0}, "TokenRequired"),
        ({"entry_script": Path("score.py"), "grpc_port": 0}, "GrpcNotServed"),
        ({"model_dir": Path("weights"), "host": "model.example"}, "TokenRequired"),
    ],
)
def test_refusals(files: Path, options: dict[str, Any], code: str) -> None:
    (files / "short").write_text("secret\n")
    with pytest.raises(ModelyardError) as refused:
        serve.serve(**options)

    assert refused.value.code == code
    assert refused.value.hint
    assert "secret" not in str(refused.value)


def test_the_alias_s_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def resolve(_: str) -> Callable[[], None]:
        return lambda: given.append(sys.argv[1:])

    monkeypatch.setattr("pkgutil.resolve_name", resolve)
    monkeypatch.setattr(sys, "argv", ["azmlinfsrv"])
    for name in ("AZUREML_MODEL_DIR", "WORKER_COUNT", serve._TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AML_CORS_ORIGINS", "")
    monkeypatch.setenv("AZUREML_ENTRY_SCRIPT", "a.py")
    azmlinfsrv.main([])
    monkeypatch.setenv(serve._TOKEN, _TOKEN)
    options = ["--entry_script", "b.py", "--model_dir", "m", "--port", "1", "--worker_count", "2"]
    azmlinfsrv.main([*options, "--access_control_allow_origins", "https://a.example"])

    assert given == [
        ["serve", "--entry-script", "a.py", "--port", "5001", "--workers", "1",
         "--host", "127.0.0.1"],
        ["serve", "--entry-script", "b.py", "--port", "1", "--workers", "2", "--host", "0.0.0.0",
         "--model-dir", "m"],
    ]  # fmt: skip
    assert os.environ["AML_CORS_ORIGINS"] == "https://a.example"


Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run(files: Path) -> Iterator[Run]:
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        with (files / "log").open("w") as log:
            started.append(subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments], stdout=subprocess.PIPE,
                stderr=log, text=True, cwd=files,
                env={**os.environ, "MODELYARD_HOME": str(files / "home"), **variables},
            ))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return str(json.loads(process.stdout.readline())["url"])


@pytest.mark.integration
def test_a_scoring_script_is_served_to_who_has_the_token(run: Run, files: Path) -> None:
    (files / "token").write_text(f"{_TOKEN}\n")
    process = run(
        "modelyard", "serve", "--entry-script", "score.py", "--model-dir", "weights", "--port",
        "0", "--workers", "2", "--token-file", "token", "--json",
    )  # fmt: skip
    url = _url(process)
    refused = httpx.post(f"{url}/score?key=a-secret", content=b"{}")
    headers = {"authorization": f"Bearer {_TOKEN}"}
    answer = httpx.post(f"{url}/score", content=b"{}", headers=headers)
    for _ in range(19):  # each connects anew, to any of the workers
        httpx.post(f"{url}/score", content=b"{}", headers=headers)
    metrics = [httpx.get(f"{url}/metrics", headers=headers).text for _ in range(2)]
    process.terminate()

    assert refused.status_code == 401
    assert answer.json() == {"message": "Hello, World!", "model": "weights", "token": None}
    label = 'protocol="azureml",method="score",model="score.py",code="200"'
    for text in metrics:
        assert f"modelyard_requests_total{{{label}}} 20.0\n" in text
        assert 'modelyard_model_ready{model="score.py",version="1"} 2.0\n' in text
    assert process.wait(60) == 0
    log = (files / "log").read_text()
    assert len(re.findall(r"^[-\d]{10}T\S+ INFO POST /score 200 [\d.]+ms \d+B ", log, re.M)) == 20
    assert " WARNING POST /score 401 " in log
    assert _TOKEN not in log
    assert "a-secret" not in log


@pytest.mark.integration
def test_a_script_whose_init_fails_fails_the_command(run: Run, files: Path) -> None:
    (files / "score.py").write_text("def init():\n    1 / 0\ndef run(data): pass\n")
    process = run("modelyard.azmlinfsrv", "--entry_script", "score.py", "--port", "0")

    assert process.wait(120) == 1
    said = "The script score.py failed to load: score.py:2, in init: ZeroDivisionError"
    assert said in (files / "log").read_text()


@pytest.mark.integration
def test_a_model_is_served_in_the_protocols(run: Run, files: Path) -> None:
    (files / "weights" / "predictor.py").write_text(
        "def load(model_dir, parameters): return int(parameters['factor'])\n"
        "def predict(inputs, model): return {'prediction': inputs['x'] * model * 1}\n"
    )
    process = run("modelyard", "serve", "--model-dir", "weights", "--port", "0", "--name", "m",
                  "--host", "127.0.0.2", "--reload", "--json",
                  MODELYARD_SERVE_PARAMETERS='{"factor": "2"}')  # fmt: skip
    url = f"{_url(process)}/v1/models/m:predict"

    def predicted() -> Any:
        return httpx.post(url, json={"instances": [{"x": 2}]}, timeout=30).json()["predictions"]

    assert predicted() == [4]
    below = f"{url.removesuffix('/v1/models/m:predict')}/m"
    for path in ("/v2/health/ready", "/v2/models/m"):
        assert httpx.get(below + path).json()["name" if path[-1] == "m" else "ready"]
    code = (files / "weights" / "predictor.py").read_text().replace("* 1}", "* 5}")
    (files / "weights" / "predictor.py").write_text(code)
    eventually(lambda: predicted() == [20], "the edit is served")
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 403


@pytest.mark.integration
def test_it_is_live_while_the_model_loads_and_refuses_connections_at_the_end(
    run: Run, files: Path
) -> None:
    (files / "weights" / "predictor.py").write_text(
        "import pathlib, time\n"
        "FOLDER = pathlib.Path(__file__).parent\n"
        "def wait(name):\n"
        "    while (FOLDER / name).exists(): time.sleep(0.01)\n"
        "def load(model_dir, parameters): wait('loading')\n"
        "def predict(inputs, model):\n"
        "    (FOLDER / 'began').touch()\n"
        "    wait('predicting')\n"
        "    return {'prediction': inputs['x']}\n"
    )
    for name in ("loading", "predicting"):
        (files / "weights" / name).touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = run("modelyard", "serve", "--model-dir", "weights", "--name", "m", "--json",
                  "--port", str(port), "--grpc-port", "0", "--workers", "2")  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: _asks(url, "/v2/health/live") == 200, "it is live")
    refused = httpx.get(f"{url}/v2/health/ready")
    (files / "weights" / "loading").unlink()
    assert _url(process) == url
    answers: list[int] = []
    body = {"instances": [{"x": 2}]}
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{url}/v1/models/m:predict", json=body,
                                                 timeout=30).status_code)
    )  # fmt: skip
    asking.start()
    eventually((files / "weights" / "began").exists, "the model predicts")
    process.terminate()
    eventually(lambda: _asks(url, "/v2/health/live") == 0, "connections are refused")
    assert process.poll() is None
    (files / "weights" / "predicting").unlink()
    asking.join()

    assert refused.status_code == 503
    assert "is loading" in refused.json()["error"]
    assert answers == [200]
    assert process.wait(60) == 0
    assert "Traceback" not in (files / "log").read_text()


def _asks(url: str, path: str) -> int:
    """The status of an answer; 0 if the connection is refused."""
    try:
        return httpx.get(f"{url}{path}", timeout=2).status_code
    except httpx.ConnectError:
        return 0


@pytest.mark.integration
def test_workers_share_the_port_of_grpc_and_ask_for_the_token(run: Run, files: Path) -> None:
    (files / "weights" / "predictor.py").write_text(
        "import os\n"
        "def load(model_dir, parameters): return os.getpid()\n"
        "def predict(inputs, model): return {'prediction': inputs['x'] * 0 + model}\n"
    )
    process = run("modelyard", "serve", "--model-dir", "weights", "--name", "m", "--port", "0",
                  "--grpc-port", "0", "--workers", "2", "--json",
                  MODELYARD_SERVE_TOKEN=_TOKEN)  # fmt: skip
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["grpc"]
    tensor = {"name": "x", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [7]}}
    request = message("ModelInferRequest")(model_name="m", inputs=[tensor]).SerializeToString()

    def worker(token: str = _TOKEN) -> int:
        # A connection of its own; channels of one process would share it.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options=options) as channel:
            answer = channel.unary_unary(f"/{SERVICE}/ModelInfer")(
                request, timeout=30, metadata=[("authorization", f"Bearer {token}")]
            )
        (output,) = message("ModelInferResponse").FromString(answer).outputs
        return int(output.contents.int64_contents[0])

    seen: set[int] = set()
    eventually(lambda: len(seen.add(worker()) or seen) == 2, "both workers answer")
    with pytest.raises(grpc.RpcError) as refused:
        worker("another token of its length")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
