"""A server beside a shard in its pod: the containers are processes, with programs of the tests."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard_runtime.frames import objects

from infra.instance_types import InstanceType
from serving.model_servers import ServerKind
from tasks.batch_inference import pod_server, server_connection
from tasks.batch_inference.pod_resources import PodResources
from tasks.batch_inference.pod_server import PodServer
from tasks.batch_inference.predictor_client import PredictionError, PredictorStartError
from tests.processes import eventually
from tests.serving import fake_server
from tests.serving.test_model_servers import version

pytestmark = pytest.mark.integration
SHAPE = InstanceType(cpu=8, memory_gib=32, gpus=2)
SHARE = PodResources(cpu=3, memory=12 * 2**30, gpus=2)


class Container:
    """A sidecar as a kubelet runs it: started again whenever it ends."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self.ends: list[int] = []
        self._command = command
        self._environment = environment
        self._over = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, start_new_session=True)

    def _live(self) -> None:
        while not self._over.is_set():
            self.ends.append(self._process.wait())
            if not self._over.is_set():
                self._process = self._start()

    def heeds_sigterm(self) -> bool:
        """Whether the shell has come to its trap; before, the signal would end it as any other."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    def close(self) -> None:
        self._over.set()
        self._process.terminate()
        self._thread.join()


@pytest.fixture
def server(tmp_path: Path) -> PodServer:
    (tmp_path / "shared").mkdir()
    return PodServer(ServerKind.TRITON, "image:1", tmp_path / "shared", 0, 20)


@contextlib.contextmanager
def beside(server: PodServer, **environment: str) -> Iterator[Container]:
    """The server's container runs within the context."""
    path = fake_server.install(server.folder.parent / "bin")
    made = pod_server.sidecar(server, SHAPE, dataclasses.replace(SHARE, gpus=server.gpus))
    given = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", **environment}
    container = Container(made.command, {**given, **made.environment})
    try:
        yield container
    finally:
        container.close()


def _triton(folder: Path, **fields: Any) -> Any:
    source = fake_server.triton_model(folder / "files")
    return version(framework="onnx-triton", source_uri=str(source), **fields)


def _inputs(*values: float) -> dict[str, Any]:
    return {"x": np.array(values), "name": objects(["a"] * len(values))}


def test_it_gets_the_model_and_serves_it(server: PodServer, tmp_path: Path) -> None:
    lines: list[str] = []
    with beside(server, LOAD_SECONDS="0.5"):
        served = pod_server.start(server, _triton(tmp_path), {}, lines.append)
        with server_connection.connect(served) as client:
            assert client.infer(_inputs(1, 2), 10)["y"].ravel().tolist() == [3, 5]

    assert served.name == "m"
    assert served.url.startswith("http://127.0.0.1:")
    assert [line.split(" after ")[0] for line in lines] == ["The server is ready"]


def test_a_language_model_has_its_secrets_in_no_file_that_others_read(
    server: PodServer, tmp_path: Path
) -> None:
    vllm = dataclasses.replace(server, kind=ServerKind.VLLM)
    parameters = {"model_id": "owner/model", "hf_token": "secret:hub", "max_model_len": 99}
    model = version(source_uri=None, parameters=parameters)
    with beside(vllm):
        served = pod_server.start(vllm, model, {"hf_token": "it's open sesame"}, print)
        with server_connection.connect(served) as client:
            found = client.infer({"prompt": objects(["hi"])}, 10)

    assert found["prediction"].tolist() == ["HI"]
    script = server.folder / "start"
    assert script.stat().st_mode & 0o777 == 0o640
    assert "vllm serve owner/model --max_model_len=99" in script.read_text()
    assert "sesame" not in " ".join(pod_server.sidecar(vllm, SHAPE, SHARE).command)


@pytest.mark.parametrize("fault", ["broken", "argument"])
def test_one_that_ends_before_it_is_ready_is_given_up_at_once(
    server: PodServer, tmp_path: Path, fault: str
) -> None:
    model = _triton(tmp_path, parameters={"no-such-option": 1} if fault == "argument" else {})
    if fault == "broken":
        (tmp_path / "files" / "1" / fake_server.BROKEN).touch()
    patient = dataclasses.replace(server, start_seconds=600)
    with beside(patient), pytest.raises(PredictorStartError, match="has ended before it was re"):
        pod_server.start(patient, model, {}, print)


def test_one_that_is_not_ready_in_time_is_given_up(server: PodServer, tmp_path: Path) -> None:
    hasty = dataclasses.replace(server, start_seconds=0.5)
    with (
        beside(hasty, LOAD_SECONDS="60"),
        pytest.raises(PredictorStartError, match=r"is not ready after 0.5 seconds: it cannot be"),
    ):
        pod_server.start(hasty, _triton(tmp_path), {}, print)


def test_one_that_a_record_ends_is_lost_and_ready_again(server: PodServer, tmp_path: Path) -> None:
    with beside(server) as container:
        served = pod_server.start(server, _triton(tmp_path), {}, print)
        with server_connection.connect(served) as client:
            with pytest.raises(PredictionError, match="The server ended") as raised:
                client.infer(_inputs(666), 10)
            assert raised.value.is_lost
            assert client.infer(_inputs(1), 10)["y"].ravel().tolist() == [3]
        assert container.ends == [139]


def test_one_that_does_not_come_back_is_told(server: PodServer, tmp_path: Path) -> None:
    with beside(server):
        served = pod_server.start(server, _triton(tmp_path), {}, print)
        hasty = dataclasses.replace(served, start_seconds=0.3)
        with server_connection.connect(hasty) as client:
            (server.folder / "start").unlink()
            with pytest.raises(PredictionError):
                client.infer(_inputs(666), 10)
            with pytest.raises(PredictorStartError, match=r"ended, and is not ready after 0.3"):
                client.prepare()


def test_one_that_waits_for_its_model_heeds_what_ends_its_pod(server: PodServer) -> None:
    with beside(server) as container:
        eventually(container.heeds_sigterm, "its shell runs")
        container._process.terminate()
        eventually(lambda: container.ends[:1] == [143], "it has ended")


def test_its_container_has_the_gpus_and_hides_those_that_it_lacks(server: PodServer) -> None:
    made = pod_server.sidecar(server, SHAPE, SHARE)

    assert (made.name, made.image, made.folder) == ("server", "image:1", server.folder)
    assert (made.resources.accelerator, made.resources.accelerators) == ("nvidia.com/gpu", 2)
    assert made.shared_memory == 3 * 2**30
    assert not made.environment
    without = pod_server.sidecar(server, SHAPE, dataclasses.replace(SHARE, gpus=0))
    assert without.environment == {"NVIDIA_VISIBLE_DEVICES": "void"}
