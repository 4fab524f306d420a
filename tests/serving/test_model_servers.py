"""Which server a model needs, what it is given of it, and how it is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.settings import Settings
from registry.models.models import ResolvedVersion
from serving import model_servers
from serving.model_servers import ServerKind, ServerListen, ServerSource
from tests.serving import fake_server

LISTEN = ServerListen("127.0.0.1", 8123)
TOKEN = "secret:hub"


def version(**fields: Any) -> ResolvedVersion:
    usual: dict[str, Any] = {
        "name": "m", "version": 3, "uri": "models:/m/3", "source_uri": "/files",
        "framework": "huggingface", "framework_version": "", "parameters": {},
        "description": "", "mlflow_run_id": None, "flow_run_id": None, "outside": True,
    }  # fmt: skip
    return ResolvedVersion(**usual | fields)


@pytest.mark.parametrize(
    ("fields", "asked", "kind"),
    [
        ({"framework": "scikit-learn"}, "", None),
        ({"framework": None}, "", None),
        ({}, "", None),
        ({}, "vllm", ServerKind.VLLM),
        ({"source_uri": None}, "", ServerKind.VLLM),
        ({"source_uri": None}, "vllm", ServerKind.VLLM),
        ({"source_uri": None, "parameters": {"task": "text-generation"}}, "", ServerKind.VLLM),
        ({"framework": "tensorflow-triton"}, "", ServerKind.TRITON),
        ({"framework": "onnx-triton"}, "triton", ServerKind.TRITON),
    ],
)
def test_the_server_that_a_model_needs(
    fields: dict[str, Any], asked: str, kind: ServerKind | None
) -> None:
    assert model_servers.choose(version(**fields), asked) == kind


@pytest.mark.parametrize(
    ("fields", "asked", "code"),
    [
        ({"framework": "scikit-learn"}, "vllm", "ServerUnsuitable"),
        ({"framework": "scikit-learn"}, "triton", "ServerUnsuitable"),
        ({}, "triton", "ServerUnsuitable"),
        ({"framework": "onnx-triton"}, "vllm", "ServerUnsuitable"),
        ({"source_uri": None, "parameters": {"task": "fill_mask"}}, "", "ModelNotPredictable"),
        ({"parameters": {"TASK": "fill_mask"}}, "vllm", "ModelNotPredictable"),
    ],
)
def test_a_server_that_cannot_serve_a_model_is_refused(
    fields: dict[str, Any], asked: str, code: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        model_servers.choose(version(**fields), asked)
    assert raised.value.code == code


def test_images_are_settings() -> None:
    chosen = Settings(triton_image="registry.example/triton:1", vllm_image="registry.example/v:2")

    assert model_servers.image(ServerKind.TRITON, chosen) == "registry.example/triton:1"
    assert model_servers.image(ServerKind.VLLM, chosen) == "registry.example/v:2"
    assert not model_servers.needs_gpu("registry.example/v:2")
    assert model_servers.needs_gpu(model_servers.image(ServerKind.VLLM, Settings()))
    for kind in ServerKind:
        tag = model_servers.image(kind, Settings()).rpartition(":")[2]
        assert tag not in ("", "latest")


def test_parameters_are_arguments_of_triton_as_they_are_written() -> None:
    parameters = {
        "log-verbose": 1, "exit-on-error": True, "disable-auto-complete-config": True,
        "key": TOKEN, "http-port": 1,
    }  # fmt: skip
    command = model_servers.command(
        ServerKind.TRITON, ServerSource("line", "/x/model"), parameters, LISTEN
    )

    assert command == [
        "tritonserver", "--log-verbose=1", "--exit-on-error=true",
        "--disable-auto-complete-config", "--http-port=1", "--model-repository=/x/model",
        "--http-address=127.0.0.1", "--http-port=8123", "--allow-grpc=false",
        "--allow-metrics=false",
    ]  # fmt: skip
    off = {"disable-auto-complete-config": False}
    source = ServerSource("line", "/x")
    assert model_servers.command(ServerKind.TRITON, source, off, LISTEN)[1].startswith("--model")


def test_parameters_are_arguments_of_vllm_whose_switches_have_no_value() -> None:
    parameters = {
        "model_id": "owner/model", "task": "text_generation", "model_revision": "abc123",
        "max_model_len": 4096, "trust_remote_code": True, "enable-prefix-caching": False,
        "hf_token": TOKEN,
    }  # fmt: skip
    command = model_servers.command(
        ServerKind.VLLM, ServerSource("m", "owner/model"), parameters, LISTEN
    )

    assert command == [
        "vllm", "serve", "owner/model", "--revision=abc123", "--max_model_len=4096",
        "--trust_remote_code", "--no-enable-prefix-caching", "--served-model-name=m",
        "--host=127.0.0.1", "--port=8123",
    ]  # fmt: skip


def test_vllm_spreads_a_model_over_its_gpus_unless_it_is_told_otherwise() -> None:
    def options(**parameters: int) -> list[str]:
        listen = ServerListen("127.0.0.1", 1, gpus=4)
        command = model_servers.command(
            ServerKind.VLLM, ServerSource("m", "o/m"), parameters, listen
        )
        return [word for word in command if "parallel" in word]

    assert options() == ["--tensor-parallel-size=4"]
    assert options(**{"tensor-parallel-size": 2})[-1] == "--tensor-parallel-size=2"


def test_parameters_are_variables_and_secrets_are_these_alone() -> None:
    parameters = {"hf_token": TOKEN, "logLevel": "info"}
    found = model_servers.environment(
        parameters, {"hf_token": "open-sesame"}, Path("/home"), Path("/cache")
    )

    assert found["HF_TOKEN"] == "open-sesame"
    assert found["LOG_LEVEL"] == "info"
    assert (found["HOME"], found["HF_HOME"]) == ("/home", "/cache")


def test_shared_memory_is_a_quarter_of_the_memory_at_most() -> None:
    assert model_servers.shared_memory(8 * 2**30) == 2 * 2**30
    assert model_servers.shared_memory(2**40) == 16 * 2**30


class TestFetch:
    @pytest.mark.parametrize(
        ("stated", "below", "name"), [("", "", "m"), ("line", "", "line"), ("", "line", "line")]
    )
    def test_triton_has_a_repository_of_the_model(
        self, tmp_path: Path, stated: str, below: str, name: str
    ) -> None:
        fake_server.triton_model(tmp_path / "files" / below, stated)
        model = version(framework="onnx-triton", source_uri=str(tmp_path / "files"))
        folder = tmp_path / "run" / "model"

        for _ in range(2):  # a retry has what the first attempt fetched
            found = model_servers.fetch(ServerKind.TRITON, model, folder)

            assert found == ServerSource(name, str(folder))
            assert [one.name for one in folder.iterdir()] == [name]
            assert (folder / name / "1" / "model.onnx").read_bytes() == fake_server.MODEL

    def test_vllm_has_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "config.json").write_text("{}")
        model = version(source_uri=str(tmp_path / "files"))

        found = model_servers.fetch(ServerKind.VLLM, model, tmp_path / "model")

        assert found == ServerSource("m", str(tmp_path / "model"))
        assert (tmp_path / "model" / "config.json").read_text() == "{}"

    def test_vllm_downloads_a_model_of_the_hub_itself(self, tmp_path: Path) -> None:
        model = version(source_uri=None, parameters={"model_id": "owner/model"})

        found = model_servers.fetch(ServerKind.VLLM, model, tmp_path / "model")

        assert found == ServerSource("m", "owner/model")
        assert not (tmp_path / "model").exists()

    @pytest.mark.parametrize("name", ["../out", "..", "a/b"])
    def test_a_model_is_in_no_folder_but_its_own(self, tmp_path: Path, name: str) -> None:
        fake_server.triton_model(tmp_path / "files", name)
        model = version(framework="onnx-triton", source_uri=str(tmp_path / "files"))
        with pytest.raises(BadInputError, match="which no folder can have") as raised:
            model_servers.fetch(ServerKind.TRITON, model, tmp_path / "run" / "model")
        assert raised.value.code == "TritonNameInvalid"
        assert not (tmp_path / "run").exists()

    def test_files_that_are_gone_are_told(self, tmp_path: Path) -> None:
        model = version(framework="onnx-triton", source_uri=str(tmp_path / "gone"))
        with pytest.raises(ModelyardError, match="There are no files"):
            model_servers.fetch(ServerKind.TRITON, model, tmp_path / "model")
