from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import ModelyardError
from infra.settings import Settings
from infra.workloads.docker import DockerBackend
from infra.workloads.kubernetes.backend import RunAttempt
from pipelines.backends import choice
from pipelines.backends.process import ComponentProcessBackend
from tests.infra.workloads import docker_double

_ATTEMPT = RunAttempt("1")


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    return docker_double.on_path(tmp_path_factory.mktemp("docker"), monkeypatch)


class TestChoice:
    def test_processes_unless_the_settings_say_otherwise(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path)

        assert isinstance(choice.backend(settings, _ATTEMPT), ComponentProcessBackend)

    def test_docker_where_its_engine_answers(self, state: Path, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, pipeline_launcher="docker")

        assert isinstance(choice.backend(settings, _ATTEMPT), DockerBackend)
        (state / "engineless").touch()
        with pytest.raises(ModelyardError, match="its engine does not answer") as caught:
            choice.backend(settings, _ATTEMPT)
        assert caught.value.code == "DockerUnavailable"

    def test_docker_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ModelyardError, match="no program docker") as caught:
            choice.backend(Settings(home=tmp_path, pipeline_launcher="docker"), _ATTEMPT)
        assert "MODELYARD_PIPELINE_LAUNCHER" in caught.value.hint
