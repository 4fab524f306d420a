"""The inference servers that are compared: ours, KServe's, MLServer's and MLflow's.

Each peer has an environment of its own with the versions below, which is made the first time and
kept under ``build``. A peer that cannot be installed is left out, and that is said.
All listen on loopback and compute with one thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from benchmarks import peers, usage
from infra import tcp_ports

_ENVIRONMENTS = Path(__file__).resolve().parents[1] / "build" / "serving-peers"
_INSTALL_SECONDS = 900.0
_START_SECONDS = 120.0
_POLL_SECONDS = 0.02
_SCIKIT_LEARN = "scikit-learn==1.9.1"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Protocol(StrEnum):
    """What a server is asked in.

    Attributes:
        V2: The Open Inference Protocol, in JSON.
        V1: KServe's version 1, or MLflow's ``/invocations``, which is as simple.
        GRPC: The Open Inference Protocol's gRPC.
    """

    V2 = "V2"
    V1 = "V1, or /invocations"
    GRPC = "gRPC"


@dataclass(frozen=True)
class Launch:
    """What a server is started with.

    Attributes:
        python: Its interpreter.
        name: The model's name.
        folder: The model's folder, with a ``model.joblib``.
        home: A folder of its own.
        port: Where it is to listen.
        grpc_port: And for gRPC.
    """

    python: Path
    name: str
    folder: Path
    home: Path
    port: int
    grpc_port: int


@dataclass(frozen=True)
class ServerKind:
    """A server that can be started.

    Attributes:
        name: Its name in the table.
        command: Its command line.
        requirements: What its environment has; ours if there are none.
        protocols: What it speaks.
        v1_path: Where its simpler protocol is.
        v1_key: What the instances are called there.
    """

    name: str
    command: Callable[[Launch], list[str]]
    requirements: tuple[str, ...] = ()
    protocols: tuple[Protocol, ...] = tuple(Protocol)
    v1_path: str = "/v1/models/{model}:predict"
    v1_key: str = "instances"

    def interpreter(self) -> Path:
        """Its environment's Python; the environment is made if it is not there.

        Raises:
            RuntimeError: If that fails.
        """
        if not self.requirements:
            return Path(sys.executable)
        digest = hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:12]
        folder = _ENVIRONMENTS / digest
        if not (folder / "made").is_file():
            print(f"Installing {', '.join(self.requirements)} ...", file=sys.stderr, flush=True)
            _uv("venv", "--clear", "--python", sys.executable, str(folder))
            _uv("pip", "install", "--system-certs", "--compile-bytecode",
                "--python", str(folder / "bin" / "python"), *self.requirements)  # fmt: skip
            (folder / "made").touch()
        return folder / "bin" / "python"


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [peers.BIN / "uv", "--quiet", *arguments], capture_output=True, text=True,
        timeout=_INSTALL_SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-500:])


def _runtime(launch: Launch) -> list[str]:
    return [str(launch.python), "-P", "-m", "modelyard_runtime.server", "--name", launch.name,
            "--model-dir", str(launch.folder), "--port", str(launch.port),
            "--grpc-port", str(launch.grpc_port)]  # fmt: skip


def _serve(launch: Launch) -> list[str]:
    return [str(launch.python), "-m", "modelyard", "serve", "--model-dir", str(launch.folder),
            "--name", launch.name, "--port", str(launch.port)]  # fmt: skip


# What KServe's own server of scikit-learn does, which is no package; it listens on all addresses
# and has no option for that.
_KSERVE = """
import sys
import joblib, kserve, uvicorn
from grpc.aio import _server
from kserve.utils.utils import get_predict_input, get_predict_response
class Estimator(kserve.Model):
    def __init__(self, name, folder):
        super().__init__(name)
        self._estimator = joblib.load(folder + "/model.joblib")
        self.ready = True
    def predict(self, payload, headers=None, response_headers=None):
        found = self._estimator.predict(get_predict_input(payload))
        return get_predict_response(payload, found, self.name)
config, listen = uvicorn.Config, _server.Server.add_insecure_port
uvicorn.Config = lambda app, **options: config(app, **{**options, "host": "127.0.0.1"})
_server.Server.add_insecure_port = lambda self, address: listen(
    self, address.replace("[::]", "127.0.0.1"))
name, folder, port, grpc_port = (sys.argv.pop(1) for _ in range(4))
kserve.ModelServer(http_port=int(port), grpc_port=int(grpc_port), workers=1).start(
    [Estimator(name, folder)])
"""


def _kserve(launch: Launch) -> list[str]:
    script = launch.home / "server.py"
    script.write_text(_KSERVE)
    return [str(launch.python), str(script), launch.name, str(launch.folder), str(launch.port),
            str(launch.grpc_port)]  # fmt: skip


def _mlserver(
    settings: Mapping[str, Any] | None = None, of_the_model: Mapping[str, Any] | None = None
) -> Callable[[Launch], list[str]]:
    """MLServer with settings other than its defaults."""

    def command(launch: Launch) -> list[str]:
        server = {
            "host": "127.0.0.1", "http_port": launch.port, "grpc_port": launch.grpc_port,
            "metrics_port": tcp_ports.free_ports(1)[0], **(settings or {}),
        }  # fmt: skip
        model = {
            "name": launch.name, "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": str(launch.folder / "model.joblib")}, **(of_the_model or {}),
        }  # fmt: skip
        (launch.home / "settings.json").write_text(json.dumps(server))
        (launch.home / "model-settings.json").write_text(json.dumps(model))
        return [str(launch.python.with_name("mlserver")), "start", str(launch.home)]

    return command


_TO_MLFLOW = """
import sys, joblib, mlflow.sklearn
mlflow.sklearn.save_model(
    joblib.load(sys.argv[1]), sys.argv[2], serialization_format="cloudpickle",
    pip_requirements=["scikit-learn"])
"""


def _mlflow(launch: Launch) -> list[str]:
    model = launch.home / "model"
    subprocess.run(
        [launch.python, "-c", _TO_MLFLOW, launch.folder / "model.joblib", model], check=True,
        capture_output=True, timeout=_START_SECONDS, env=_variables(launch.python, launch.home),
    )  # fmt: skip
    return [
        str(launch.python.with_name("mlflow")),
        "models",
        "serve",
        "--env-manager",
        "local",
        "--model-uri",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(launch.port),
    ]


_OF_MLSERVER = ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22", _SCIKIT_LEARN)
_NO_V1 = (Protocol.V2, Protocol.GRPC)

OURS = ServerKind("ours", _runtime)
COMMAND = ServerKind("ours, modelyard serve", _serve, protocols=(Protocol.V2,))
PEERS: Sequence[ServerKind] = (
    ServerKind("KServe", _kserve, ("kserve==0.21.0", _SCIKIT_LEARN)),
    ServerKind("MLServer", _mlserver(), _OF_MLSERVER, _NO_V1),
    ServerKind(
        "MLServer in process, with batches",
        _mlserver({"parallel_workers": 0}, {"max_batch_size": 32, "max_batch_time": 0.001}),
        _OF_MLSERVER, _NO_V1,
    ),
    ServerKind(
        "MLflow", _mlflow, ("mlflow==3.17.2", _SCIKIT_LEARN), (Protocol.V1,), "/invocations",
        "inputs",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class RunningServer:
    """A server that has answered.

    Attributes:
        kind: What it is.
        port: Its port.
        grpc_port: That of gRPC.
        processes: All its processes.
        seconds: From its start to its first answer.
    """

    kind: ServerKind
    port: int
    grpc_port: int
    processes: Sequence[psutil.Process] = field(repr=False)
    seconds: float

    def mebibytes(self) -> float:
        """Its memory, each process with its part of what it shares."""
        return usage.mebibytes(self.processes, "pss")


@contextlib.contextmanager
def running(
    kind: ServerKind, python: Path, name: str, folder: Path, first: tuple[str, bytes]
) -> Iterator[RunningServer]:
    """Run a server for the while.

    Args:
        kind: What it is.
        python: Its interpreter.
        name: The model's name.
        folder: The model's folder.
        first: Path and body of the request whose answer it is awaited by.

    Raises:
        RuntimeError: If it ends, or does not answer in time.
    """
    with peers.temporary_home() as home:
        launch = Launch(python, name, folder, home, *tcp_ports.free_ports(2))
        command = kind.command(launch)
        began = time.monotonic()
        with peers.running(command, home, _variables(python, home)) as leash:
            path, body = first
            _await_answer(f"http://127.0.0.1:{launch.port}{path}", body, leash.poll, home)
            seconds = time.monotonic() - began
            processes = psutil.Process(leash.pid).children(recursive=True)
            yield RunningServer(kind, launch.port, launch.grpc_port, processes, seconds)


def _variables(python: Path, home: Path) -> dict[str, str]:
    inherited = peers.environment(home)
    path = f"{python.parent}:{inherited['PATH']}"  # MLflow starts its server by its name
    return {**inherited, **_ONE_THREAD, "MODELYARD_HOME": str(home), "PATH": path}


def _await_answer(url: str, body: bytes, ended: Callable[[], int | None], home: Path) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + _START_SECONDS
    while ended() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(request, timeout=_START_SECONDS),
        ):
            return
        time.sleep(_POLL_SECONDS)
    tail = (home / "output.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{url} did not answer. The end of the output:\n{tail}")
