"""A server as a container of this machine: Docker is a double, and the programs are the tests'."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from modelyard_runtime.frames import objects

from infra.errors import BadInputError
from infra.workloads.base import Workload
from infra.workloads.docker import DockerBackend
from infra.workloads.local_objects import LocalObjects
from serving import model_servers
from serving.model_servers import ServerKind, ServerSource
from serving.server_http import ServedModel
from tasks.batch_inference import server_connection, server_container
from tasks.batch_inference.predictor_client import PredictionError, PredictorStartError
from tasks.batch_inference.server_container import ServerContainer
from tests.infra.workloads import docker_double
from tests.processes import eventually
from tests.serving import fake_server
from tests.serving.test_model_servers import version

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docker").mkdir()
    path = f"{fake_server.install(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    return docker_double.on_path(tmp_path / "docker", monkeypatch)


def _backend(folder: Path) -> DockerBackend:
    return DockerBackend(objects=LocalObjects(folder / "home"), grace_seconds=0.5)


def _call(docker: Path) -> list[str]:
    calls = [json.loads(line) for line in (docker / "calls").read_text().splitlines()]
    return next(call for call in calls if call[0] == "run")


def _values(call: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(call) if word == option]


def _triton(folder: Path, seconds: float = 20, **fields: Any) -> tuple[Workload, ServedModel]:
    files = fake_server.triton_model(folder / "files")
    fields.setdefault("parameters", {})
    model = version(framework="onnx-triton", source_uri=str(files), **fields)
    source = model_servers.fetch(ServerKind.TRITON, model, folder / "run" / "model")
    made, port = server_container.workload(
        ServerKind.TRITON, "triton:1", source, model, {}, folder / "run" / "server",
        folder / "cache", (), 8 * 2**30,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    served = ServedModel(url, "m", source.name, start_seconds=seconds, is_restarted=True)
    return made, served


def _inputs(value: float) -> dict[str, Any]:
    return {"x": np.array([value]), "name": objects(["a"])}


def _never() -> bool:
    return False


def test_it_serves_the_model_until_it_is_closed(docker: Path, tmp_path: Path) -> None:
    made, served = _triton(tmp_path)
    lines: list[str] = []
    container = ServerContainer(_backend(tmp_path), made, lines.append)
    try:
        container.await_ready(served, _never)
        with server_connection.connect(served) as client:
            assert client.infer(_inputs(1), 10)["y"].tolist() == [[3]]
    finally:
        container.close()

    with pytest.raises(httpx.ConnectError):
        httpx.get(served.url)
    assert "server: Started HTTPService" in lines
    assert not [line for line in lines if "started again" in line]


def test_its_container_reaches_no_further_than_loopback_and_cannot_change_the_model(
    docker: Path, tmp_path: Path
) -> None:
    made, served = _triton(tmp_path)
    container = ServerContainer(_backend(tmp_path), made, print)
    try:
        container.await_ready(served, _never)
    finally:
        container.close()

    call = _call(docker)
    port = served.url.rpartition(":")[2]
    assert _values(call, "--publish") == [f"127.0.0.1:{port}:{port}"]
    model = tmp_path / "run" / "model"
    assert f"type=bind,source={model},target={model},readonly" in _values(call, "--mount")
    assert _values(call, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert _values(call, "--shm-size") == [str(2 * 2**30)]
    assert _values(call, "--entrypoint") == ["tritonserver"]
    assert "--http-address=0.0.0.0" in call
    assert not _values(call, "--gpus")


def test_one_of_the_hub_has_its_gpus_and_a_cache_that_lasts(tmp_path: Path) -> None:
    parameters = {"model_id": "owner/model", "hf_token": "secret:hub"}
    made, port = server_container.workload(
        ServerKind.VLLM, "vllm:1", ServerSource("m", "owner/model"),
        version(source_uri=None, parameters=parameters), {"hf_token": "open sesame"},
        tmp_path / "server", tmp_path / "cache", ("1", "2"), 2**30,
    )  # fmt: skip

    assert made.command == ("vllm",)
    assert made.arguments[:3] == ("serve", "owner/model", "--tensor-parallel-size=2")
    assert "sesame" not in " ".join(made.arguments)
    assert made.environment["HF_TOKEN"] == "open sesame"
    assert made.environment["HF_HOME"] == str(tmp_path / "cache")
    assert made.folders == {str(tmp_path / "cache"): str(tmp_path / "cache")}
    assert (made.resources.accelerators, made.resources.devices) == (2, ("1", "2"))
    assert made.inputs == ()
    assert made.ports == (port,)


def test_one_that_ends_before_it_is_ready_has_the_last_word(docker: Path, tmp_path: Path) -> None:
    made, served = _triton(tmp_path, 600)
    (tmp_path / "run" / "model" / "m" / "1" / fake_server.BROKEN).touch()
    container = ServerContainer(_backend(tmp_path), made, print)
    try:
        with pytest.raises(PredictorStartError) as raised:
            container.await_ready(served, _never)
    finally:
        container.close()

    assert "has ended before it was ready: It ended with exit status 1" in str(raised.value)
    assert "failed to load 'm' version 1: Internal: its weights are broken" in str(raised.value)


def test_an_image_that_cannot_be_had_is_the_error(docker: Path, tmp_path: Path) -> None:
    made, served = _triton(tmp_path, 600)
    missing = Workload(**{**vars(made), "image": "missing/triton:1"})
    container = ServerContainer(_backend(tmp_path), missing, print)
    try:
        with pytest.raises(
            BadInputError, match="missing/triton:1 of server cannot be pulled"
        ) as e:
            container.await_ready(served, _never)
    finally:
        container.close()
    assert e.value.code == "ImagePull"


def test_a_run_that_is_over_waits_no_longer(docker: Path, tmp_path: Path) -> None:
    made, served = _triton(tmp_path, 600, parameters={"load_seconds": "60"})
    made = Workload(**{**vars(made), "arguments": made.arguments[1:]})  # Triton has no such one
    container = ServerContainer(_backend(tmp_path), made, print)
    try:
        with pytest.raises(PredictorStartError, match="The run is over"):
            container.await_ready(served, lambda: True)
    finally:
        container.close()


def test_one_that_a_record_ends_is_started_again(docker: Path, tmp_path: Path) -> None:
    made, served = _triton(tmp_path)
    lines: list[str] = []
    container = ServerContainer(_backend(tmp_path), made, lines.append)
    try:
        container.await_ready(served, _never)
        with server_connection.connect(served) as client:
            with pytest.raises(PredictionError, match="The server ended"):
                client.infer(_inputs(666), 10)
            assert client.infer(_inputs(1), 10)["y"].tolist() == [[3]]
    finally:
        container.close()
    assert [line for line in lines if "It is started again." in line]


OWNER = """
import sys, time
from pathlib import Path
from tests.tasks.batch_inference.test_server_container import _backend, _never, _triton
from tasks.batch_inference.server_container import ServerContainer
folder = Path(sys.argv[1])
made, served = _triton(folder)
ServerContainer(_backend(folder), made, print).await_ready(served, _never)
print("READY", served.url, flush=True)
time.sleep(600)
"""


def test_it_ends_with_a_run_that_is_killed(docker: Path, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert owner.stdout is not None
    url = next(line.split()[1] for line in owner.stdout if line.startswith("READY"))
    assert httpx.get(f"{url}/v2/health/ready").is_success

    owner.send_signal(signal.SIGKILL)
    owner.wait()

    def is_away() -> bool:
        try:
            httpx.get(url)
        except httpx.ConnectError:
            return True
        return False

    eventually(is_away, "the server has ended")
    owner.stdout.close()
