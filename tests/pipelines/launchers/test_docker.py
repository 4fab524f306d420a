from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
import threading
from pathlib import Path

import psutil
import pytest

from infra.errors import BadInputError, ModelyardError
from infra.settings import Settings
from pipelines.launchers import choice
from pipelines.launchers.base import Job, Launcher, Resources
from pipelines.launchers.cluster.launcher import Attempt
from pipelines.launchers.docker import DockerLauncher
from pipelines.launchers.kept import Kept
from pipelines.launchers.process import ProcessLauncher
from tests.pipelines.launchers.contract import Contract, mounts
from tests.pipelines.launchers.jobs import run, shell

pytestmark = pytest.mark.integration


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in for Docker, which is first on PATH, keeps what it is told."""
    folder = tmp_path_factory.mktemp("docker")
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {_FAKE} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


_ATTEMPT = Attempt("1")
_FAKE = Path(__file__).with_name("fake_docker.py")


def _calls(state: Path) -> list[list[str]]:
    return [json.loads(line) for line in (state / "calls").read_text().splitlines()]


def _call(state: Path) -> list[str]:
    (call,) = [one for one in _calls(state) if one[0] == "run"]
    return call


def _value(call: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(call) if word == option]


class TestChoice:
    def test_processes_unless_the_settings_say_otherwise(self, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path)

        assert isinstance(choice.launcher(settings, _ATTEMPT), ProcessLauncher)

    def test_docker_where_its_engine_answers(self, state: Path, tmp_path: Path) -> None:
        settings = Settings(home=tmp_path, pipeline_launcher="docker")

        assert isinstance(choice.launcher(settings, _ATTEMPT), DockerLauncher)
        (state / "engineless").touch()
        with pytest.raises(ModelyardError, match="its engine does not answer") as caught:
            choice.launcher(settings, _ATTEMPT)
        assert caught.value.code == "DockerUnavailable"

    def test_docker_that_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ModelyardError, match="no program docker") as caught:
            choice.launcher(Settings(home=tmp_path, pipeline_launcher="docker"), _ATTEMPT)
        assert "MODELYARD_PIPELINE_LAUNCHER" in caught.value.hint


class TestDockerLauncher(Contract):
    @pytest.fixture
    def launcher(self, state: Path, kept: Kept) -> Launcher:  # type: ignore[override]
        return DockerLauncher(kept=kept, grace_seconds=0.5)

    def test_the_command_line(self, launcher: Launcher, state: Path, tmp_path: Path) -> None:
        (tmp_path / "made").mkdir()
        (tmp_path / "given").write_text("")
        job = dataclasses.replace(
            shell(tmp_path / "job", "true", "an argument"),
            inputs=(tmp_path / "given", tmp_path / "gone", tmp_path / "made" / "in"),
            outputs=(tmp_path / "made" / "a", tmp_path / "made" / "b", tmp_path / "job" / "c"),
            resources=Resources(
                cpu=0.5, memory=2**30, memory_request=2**29, accelerator="nvidia.com/gpu",
                accelerators=2,
            ),
            kubernetes={"imagePullPolicy": "Always"},
        )  # fmt: skip

        run(launcher, job)

        call = _call(state)
        assert call[-6:] == ["sh", "alpine:3", "-c", "true", "sh", "an argument"]
        assert call[-7] == "--entrypoint"
        assert _value(call, "--mount") == [
            f"type=bind,source={tmp_path}/job,target={tmp_path}/job",
            f"type=bind,source={tmp_path}/made,target={tmp_path}/made",
            f"type=bind,source={tmp_path}/given,target={tmp_path}/given,readonly",
        ]
        assert _value(call, "--cpus") == ["0.5"]
        assert _value(call, "--memory") == [str(2**30)]
        assert _value(call, "--memory-reservation") == [str(2**29)]
        assert _value(call, "--gpus") == ["2"]
        assert _value(call, "--pull") == ["always"]

    def test_volumes(self, launcher: Launcher, kept: Kept, state: Path, tmp_path: Path) -> None:
        (kept.claims.folder / "mine").mkdir(parents=True)
        config = tmp_path / "home" / "configmaps" / "c"
        config.mkdir(parents=True)
        (config / "key").write_text("text")
        settings = mounts(
            claim={"persistentVolumeClaim": {"claimName": "mine"}},
            secret={"secret": {"secretName": "known"}},
            config={"configMap": {"name": "c"}},
            empty={"emptyDir": {}},
            memory={"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            passing={"ephemeral": {"volumeClaimTemplate": {}}},
            shm={"emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
        )
        settings["volumeMounts"][0]["subPath"] = "part"
        settings["volumeMounts"][-1]["mountPath"] = "/dev/shm"
        settings["securityContext"] = {"runAsUser": 1000, "runAsGroup": 0}
        job = shell(tmp_path / "job", "echo ran", kubernetes=settings)

        lines = run(launcher, job)[1]

        assert lines == [
            "On this machine there is no use for the size of the volume at /passing.", "ran"
        ]  # fmt: skip
        call = _call(state)
        own = tmp_path / "job" / ".modelyard-volumes"
        said = _value(call, "--mount")
        files = [one for one in said if one.endswith(("/secret,readonly", "/config,readonly"))]
        assert [one for one in said if one not in files] == [
            f"type=bind,source={kept.claims.folder}/mine/part,target=/claim",
            f"type=bind,source={own}/empty,target=/empty",
            "type=tmpfs,target=/memory,tmpfs-size=1048576",
            f"type=bind,source={own}/passing,target=/passing",
            f"type=bind,source={tmp_path}/job,target={tmp_path}/job",
        ]
        assert len(files) == 2
        for one in files:
            assert not Path(one.split(",")[1].removeprefix("source=")).exists()
        assert _value(call, "--shm-size") == [str(2 * 2**20)]
        assert _value(call, "--user") == ["1000:0"]
        assert json.loads((state / "mounted").read_text()) == {
            "/secret": {"token": "hidden-token", "two.lines": "hidden\nlines"},
            "/config": {"key": "text"},
        }
        assert "hidden" not in (state / "calls").read_text()
        assert not own.exists()

    def test_no_value_of_a_variable_is_in_a_command_line(
        self, launcher: Launcher, state: Path, tmp_path: Path
    ) -> None:
        reference = {"secretKeyRef": {"name": "known", "key": "token"}}
        job = shell(
            tmp_path / "job",
            'echo "$A-$B-${#S}"',
            environment={"A": "first", "B": "second\nline"},
            kubernetes={"env": [{"name": "S", "valueFrom": reference}]},
        )

        assert run(launcher, job)[1] == ["first-second", "line-12"]
        said = (state / "calls").read_text()
        assert "first" not in said
        assert "second" not in said
        assert "hidden" not in said
        assert not Path(_value(_call(state), "--env-file")[0]).exists()

    def test_a_variable_that_docker_would_take_for_its_own(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        job = shell(tmp_path / "job", "true", environment={"DOCKER_HOST": "a\nb"})
        with pytest.raises(BadInputError, match="DOCKER_HOST"):
            run(launcher, job)

    def test_an_image_s_own_program(self, launcher: Launcher, state: Path, tmp_path: Path) -> None:
        job = dataclasses.replace(shell(tmp_path / "job", "", "x"), command=())
        with pytest.raises(BadInputError, match="its own program"):
            run(launcher, job)
        assert _call(state)[-2:] == ["alpine:3", "x"]
        assert "--entrypoint" not in _call(state)

    @pytest.mark.parametrize(
        ("image", "command", "code"),
        [
            ("missing/image", "sh", "ImagePull"),
            ("engineless", "sh", "DockerUnavailable"),
            ("odd", "sh", "ContainerNotStarted"),
            ("alpine", "no-such-program", "ProgramMissing"),
            ("alpine", "/", "ProgramMissing"),
        ],
    )
    def test_what_cannot_be_started_is_named(
        self, launcher: Launcher, tmp_path: Path, image: str, command: str, code: str
    ) -> None:
        job = shell(tmp_path / "job", "true")
        job = dataclasses.replace(job, image=image, command=(command,))
        with pytest.raises(ModelyardError) as caught:
            run(launcher, job)
        assert caught.value.code == code

    def test_a_container_s_own_status_is_no_error_of_docker_s(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        assert run(launcher, shell(tmp_path / "job", "exit 125"))[0].code == 125

    def test_its_container_is_removed_however_it_ended(
        self, launcher: Launcher, state: Path, tmp_path: Path
    ) -> None:
        run(launcher, shell(tmp_path / "job", "sleep 600", seconds=0.5))

        (name,) = _value(_call(state), "--name")
        assert _calls(state)[-1] == ["rm", "-f", "-v", name]

    def test_no_image(self, launcher: Launcher, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="names no image"):
            launcher.check(dataclasses.replace(shell(tmp_path / "job", ""), image=""))

    def test_no_docker(self, tmp_path: Path) -> None:
        job: Job = shell(tmp_path / "job", "true")
        with pytest.raises(ModelyardError, match="no program no-docker") as caught:
            DockerLauncher("no-docker").run(job, print, threading.Event())
        assert caught.value.code == "DockerUnavailable"

    def test_containers_of_the_dead_are_removed_and_no_others(
        self, launcher: Launcher, state: Path, tmp_path: Path
    ) -> None:
        mine = f"{os.getpid()}-{psutil.Process().create_time():.2f}"
        dead = f"{os.getpid()}-1.00"
        (state / "listed").write_text(f"theirs {dead}\nmine {mine}\n")

        run(launcher, shell(tmp_path / "job", "true"))
        run(launcher, shell(tmp_path / "job", "true"))

        removed = [call[-1] for call in _calls(state) if call[0] == "rm"]
        assert [name for name in removed if not name.startswith("modelyard-")] == ["theirs"]
        assert [call[0] for call in _calls(state)].count("ps") == 1
