from __future__ import annotations

import dataclasses
import itertools
import json
import os
import threading
from pathlib import Path

import psutil
import pytest

from infra.errors import BadInputError, ModelyardError
from infra.workloads.base import Backend, ResourceRequest, Workload
from infra.workloads.docker import DockerBackend
from infra.workloads.local_objects import LocalObjects
from tests.infra.workloads import docker_double
from tests.infra.workloads.backend_contract import LocalBackendContract, mounts
from tests.infra.workloads.shell import run, shell

pytestmark = pytest.mark.integration


def _calls(state: Path) -> list[list[str]]:
    return [json.loads(line) for line in (state / "calls").read_text().splitlines()]


def _call(state: Path) -> list[str]:
    (call,) = [one for one in _calls(state) if one[0] == "run"]
    return call


def _value(call: list[str], option: str) -> list[str]:
    return [after for word, after in itertools.pairwise(call) if word == option]


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    return docker_double.on_path(tmp_path_factory.mktemp("docker"), monkeypatch)


class TestDockerBackend(LocalBackendContract):
    @pytest.fixture
    def backend(self, state: Path, kept: LocalObjects) -> Backend:  # type: ignore[override]
        return DockerBackend(objects=kept, grace_seconds=0.5)

    def test_the_command_line(self, backend: Backend, state: Path, tmp_path: Path) -> None:
        (tmp_path / "made").mkdir()
        (tmp_path / "given").write_text("")
        job = dataclasses.replace(
            shell(tmp_path / "job", "true", "an argument"),
            inputs=(tmp_path / "given", tmp_path / "gone", tmp_path / "made" / "in"),
            outputs=(tmp_path / "made" / "a", tmp_path / "made" / "b", tmp_path / "job" / "c"),
            resources=ResourceRequest(
                cpu=0.5, memory=2**30, memory_request=2**29, accelerator="nvidia.com/gpu",
                accelerators=2,
            ),
            kubernetes={"imagePullPolicy": "Always"},
            ports=(8080,),
        )  # fmt: skip

        run(backend, job)

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
        assert _value(call, "--publish") == ["127.0.0.1:8080:8080"]

    @pytest.mark.parametrize(
        ("devices", "said"), [(("1",), "device=1"), (("0", "GPU-a"), '"device=0,GPU-a"')]
    )
    def test_gpus_by_their_names(
        self, backend: Backend, state: Path, tmp_path: Path, devices: tuple[str, ...], said: str
    ) -> None:
        asked = ResourceRequest(
            accelerator="nvidia.com/gpu", accelerators=len(devices), devices=devices
        )
        run(backend, shell(tmp_path / "job", "true", resources=asked))

        assert _value(_call(state), "--gpus") == [said]

    def test_volumes(
        self, backend: Backend, kept: LocalObjects, state: Path, tmp_path: Path
    ) -> None:
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

        lines = run(backend, job)[1]

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
        self, backend: Backend, state: Path, tmp_path: Path
    ) -> None:
        reference = {"secretKeyRef": {"name": "known", "key": "token"}}
        job = shell(
            tmp_path / "job",
            'echo "$A-$B-${#S}"',
            environment={"A": "first", "B": "second\nline"},
            kubernetes={"env": [{"name": "S", "valueFrom": reference}]},
        )

        assert run(backend, job)[1] == ["first-second", "line-12"]
        said = (state / "calls").read_text()
        assert "first" not in said
        assert "second" not in said
        assert "hidden" not in said
        assert not Path(_value(_call(state), "--env-file")[0]).exists()

    def test_a_variable_that_docker_would_take_for_its_own(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        job = shell(tmp_path / "job", "true", environment={"DOCKER_HOST": "a\nb"})
        with pytest.raises(BadInputError, match="DOCKER_HOST"):
            run(backend, job)

    def test_an_image_s_own_program(self, backend: Backend, state: Path, tmp_path: Path) -> None:
        job = dataclasses.replace(shell(tmp_path / "job", "", "x"), command=())
        with pytest.raises(BadInputError, match="its own program"):
            run(backend, job)
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
        self, backend: Backend, tmp_path: Path, image: str, command: str, code: str
    ) -> None:
        job = shell(tmp_path / "job", "true")
        job = dataclasses.replace(job, image=image, command=(command,))
        with pytest.raises(ModelyardError) as caught:
            run(backend, job)
        assert caught.value.code == code

    def test_a_container_s_own_status_is_no_error_of_docker_s(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        assert run(backend, shell(tmp_path / "job", "exit 125"))[0].code == 125

    def test_its_container_is_removed_however_it_ended(
        self, backend: Backend, state: Path, tmp_path: Path
    ) -> None:
        run(backend, shell(tmp_path / "job", "sleep 600", seconds=0.5))

        (name,) = _value(_call(state), "--name")
        assert _calls(state)[-1] == ["rm", "-f", "-v", name]

    def test_no_image(self, backend: Backend, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="has no image"):
            backend.check(dataclasses.replace(shell(tmp_path / "job", ""), image=""))

    def test_no_docker(self, tmp_path: Path) -> None:
        job: Workload = shell(tmp_path / "job", "true")
        with pytest.raises(ModelyardError, match="no program no-docker") as caught:
            DockerBackend("no-docker").run(job, print, threading.Event())
        assert caught.value.code == "DockerUnavailable"

    def test_containers_of_the_dead_are_removed_and_no_others(
        self, backend: Backend, state: Path, tmp_path: Path
    ) -> None:
        mine = f"{os.getpid()}-{psutil.Process().create_time():.2f}"
        dead = f"{os.getpid()}-1.00"
        (state / "listed").write_text(f"theirs {dead}\nmine {mine}\n")

        run(backend, shell(tmp_path / "job", "true"))
        run(backend, shell(tmp_path / "job", "true"))

        removed = [call[-1] for call in _calls(state) if call[0] == "rm"]
        assert [name for name in removed if not name.startswith("modelyard-")] == ["theirs"]
        assert [call[0] for call in _calls(state)].count("ps") == 1
