"""What a batch inference is told, and what of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra import site
from infra.errors import BadInputError, ModelyardError
from infra.home import Home
from infra.settings import Settings
from registry.models.models import ResolvedVersion
from tasks.batch_inference import inference_request
from tasks.batch_inference.inference_request import BatchInference
from tests.infra.workloads import docker_double
from tests.tasks.batch_inference.model_server import line_server


def _version(**fields: Any) -> ResolvedVersion:
    usual: dict[str, Any] = {
        "name": "m", "version": 3, "uri": "models:/m/3", "source_uri": "/files",
        "framework": "scikit-learn", "framework_version": "", "parameters": {},
        "description": "", "mlflow_run_id": None, "flow_run_id": None, "outside": True,
    }  # fmt: skip
    return ResolvedVersion(**usual | fields)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run can be told."""
    (tmp_path / "in").mkdir()
    asked: list[str] = []
    monkeypatch.setattr(
        inference_request.models, "resolve", lambda uri: asked.append(uri) or _version()
    )
    return {
        "model": "m/3",
        "input_uri": str(tmp_path / "in"),
        "output_uri": str(tmp_path / "out"),
    }


def _check(home: Home, told: dict[str, Any], **more: Any) -> None:
    inference_request.check(BatchInference(**{**told, **more}), home, Settings(home=home.root))


def test_what_can_run_is_taken(home: Home, told: dict[str, Any]) -> None:
    _check(home, told, pods=4, include=["*.jsonl"], exclude=["a/**"], key="id")


@pytest.mark.parametrize(
    "version",
    [{"framework": "onnx-triton"}, {"framework": "huggingface", "source_uri": None}],
)
def test_a_model_that_is_not_loaded_wants_a_server(
    home: Home, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, version: dict[str, Any]
) -> None:
    monkeypatch.setattr(inference_request.models, "resolve", lambda _: _version(**version))
    monkeypatch.setenv("PATH", "")

    with pytest.raises(BadInputError, match="Docker cannot be used") as raised:
        _check(home, told)

    assert raised.value.code == "ModelNotPredictable"
    for way in ("Docker", "cluster", "server_url"):
        assert way in raised.value.hint
    with line_server().running() as server:
        _check(home, told, server_url=server.url, server_token="secret:mine")
    with pytest.raises(BadInputError) as raised:
        _check(home, told, server_url="http://127.0.0.1:9")
    assert raised.value.code == "ServerUnreachable"
    with site.validating_for_remote():
        for url in ("http://127.0.0.1:9", "https://vllm.example/base", "http://[::1]:8000"):
            inference_request._check_server(BatchInference(server_url=url))


class TestStartedServers:
    @pytest.fixture
    def version(self, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Fields of the model's version that differ from the usual."""
        fields: dict[str, Any] = {}
        monkeypatch.setattr(inference_request.models, "resolve", lambda _: _version(**fields))
        return fields

    @pytest.fixture(autouse=True)
    def docker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "docker").mkdir()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return docker_double.on_path(tmp_path / "docker", monkeypatch)

    def test_one_is_started_where_docker_answers(
        self, home: Home, told: dict[str, Any], version: dict[str, Any], docker: Path
    ) -> None:
        version["framework"] = "onnx-triton"
        _check(home, told)
        (docker / "engineless").touch()
        with pytest.raises(BadInputError, match="its engine does not answer") as raised:
            _check(home, told)
        assert raised.value.code == "ModelNotPredictable"

    def test_a_language_model_needs_a_gpu_or_an_image_that_does_not(
        self, home: Home, told: dict[str, Any], version: dict[str, Any]
    ) -> None:
        version |= {"framework": "huggingface", "source_uri": None}
        on_gpu = BatchInference(**told, resources={"instance_type": "gpu.t4"})
        on_cpu = BatchInference(**told)
        inference_request.check(on_gpu, home, Settings(gpus="0"))
        inference_request.check(on_cpu, home, Settings(gpus="none", vllm_image="vllm-cpu:1"))
        for settings in (Settings(gpus="0"), Settings(gpus="none")):
            with pytest.raises(BadInputError, match="needs a GPU, and the run has") as raised:
                inference_request.check(on_cpu, home, settings)
            assert raised.value.code == "ServerNeedsGpu"

    def test_one_that_does_not_suit_is_refused(
        self, home: Home, told: dict[str, Any], version: dict[str, Any]
    ) -> None:
        for more, code in [
            ({"server": "vllm"}, "ServerUnsuitable"),
            ({"server": "triton", "server_url": "http://127.0.0.1:9"}, "ServerAmbiguous"),
        ]:
            with pytest.raises(BadInputError) as raised:
                _check(home, told, **more)
            assert raised.value.code == code

    def test_its_pods_have_room_for_it_and_nothing_of_this_machine_counts(
        self, home: Home, told: dict[str, Any], version: dict[str, Any], docker: Path
    ) -> None:
        (docker / "engineless").touch()
        version |= {"framework": "onnx-triton", "source_uri": "s3://models/m"}
        elsewhere = {"input_uri": "s3://data/in", "output_uri": "s3://data/out"}
        with site.validating_for_remote():
            _check(home, {**told, **elsewhere}, pods=3)
            with pytest.raises(BadInputError, match=r"0.2 cores and 2.0 GiB") as raised:
                _check(home, {**told, **elsewhere}, pods=4)
        assert raised.value.code == "PodsTooSmall"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"model": ""}, "ParameterMissing"),
        ({"input_uri": ""}, "ParameterMissing"),
        ({"output_uri": ""}, "ParameterMissing"),
        ({"include": ["../a"]}, "GlobInvalid"),
        ({"exclude": [""]}, "GlobInvalid"),
        ({"include": ["[z-a].jsonl"]}, "GlobInvalid"),
        ({"server_url": "triton:8000"}, "ServerUrlInvalid"),
        ({"server_url": "ftp://triton"}, "ServerUrlInvalid"),
        ({"server_url": "http://"}, "ServerUrlInvalid"),
        ({"server_url": "http://me:word@triton"}, "ServerUrlInvalid"),
        ({"server_url": "http://triton:port"}, "ServerUrlInvalid"),
        ({"server_url": "http://triton", "server_token": "abc"}, "ServerTokenNotSecret"),
        ({"server_token": "abc"}, "ServerTokenNotSecret"),
        ({"server_url": "http://triton", "server_token": "secret:A"}, "SecretNameWrong"),
    ],
)
def test_what_cannot_run_is_refused(
    home: Home, told: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        _check(home, told, **more)
    assert caught.value.code == code


def test_an_input_that_is_not_there_and_an_output_in_it_are_refused(
    home: Home, told: dict[str, Any]
) -> None:
    for more, code in [
        ({"input_uri": f"{told['input_uri']}/none"}, "InputMissing"),
        ({"output_uri": f"{told['input_uri']}/deeper"}, "OutputInSource"),
        ({"output_uri": told["input_uri"]}, "OutputInSource"),
    ]:
        with pytest.raises(ModelyardError) as caught:
            _check(home, told, **more)
        assert caught.value.code == code


def test_an_alias_is_pinned_and_a_version_stays(told: dict[str, Any]) -> None:
    assert inference_request.pin({"model": "m@best", "pods": 2}) == {"model": "m/3", "pods": 2}
    assert inference_request.pin({"model": "models:/m@best"}) == {"model": "m/3"}
    for given in ({"model": "m/1"}, {"model": "models:/m/1"}, {}):
        assert inference_request.pin(given) == given
