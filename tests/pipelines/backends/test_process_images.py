"""Which images a process can do without, and what it has in their place."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.settings import Settings
from infra.workloads.base import Backend
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitStatus
from pipelines.backends.process import ComponentProcessBackend
from tests.infra.workloads.shell import run, shell
from tests.pipelines.backends.jobs import python

_ANSWER = "def run() -> str:\n    return 'answer'\n"


@pytest.fixture
def backend(environments: EnvironmentCache, settings: Settings) -> Iterator[Backend]:
    backend = ComponentProcessBackend(environments, settings)
    yield backend
    backend.close()


class TestCheck:
    @pytest.mark.parametrize(
        "command",
        [
            ("sh", "-c", "no-such-program"),
            ("/bin/sh", "-c", "exit"),
            ("cat",),
            ("python3", "-c", "pass"),
            ("python", "{{$.inputs.artifacts['program'].path}}"),
            ("pip", "list"),
            ("{{$.inputs.parameters['program']}}",),
            ("bash", "env"),
        ],
    )
    def test_what_the_machine_has(
        self, backend: Backend, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        backend.check(dataclasses.replace(shell(tmp_path, ""), command=command, arguments=()))

    @pytest.mark.parametrize(
        ("command", "why"),
        [
            ((), "its command is the image's own"),
            (("no-such-program", "x"), "this machine has no program 'no-such-program'"),
            (("/no/such/program",), "this machine has no program '/no/such/program'"),
            (("python3", "/app/train.py"), "this machine has no /app/train.py"),
            (("sh", "run.sh"), "this machine has no run.sh"),
            (("python3", "src/train.py"), "this machine has no src/train.py"),
            (("python3", "-m", "kfp.dsl.executor_main"), "its Python code is in the image"),
        ],
    )
    def test_what_only_the_image_has(
        self, backend: Backend, tmp_path: Path, command: tuple[str, ...], why: str
    ) -> None:
        job = dataclasses.replace(
            shell(tmp_path, ""), command=command, arguments=("--executor_input", "{{$}}")
        )
        with pytest.raises(BadInputError, match=why) as caught:
            backend.check(job)
        assert caught.value.code == "ImageNotRunnable"
        assert "alpine:3" in caught.value.message
        assert "MODELYARD_PIPELINE_LAUNCHER" in caught.value.hint

    def test_a_program_of_ours_is_not_the_machine_s(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}")
        job = dataclasses.replace(shell(tmp_path, ""), command=("prefect",))
        with pytest.raises(BadInputError, match="no program 'prefect'"):
            backend.check(job)

    def test_a_script_that_an_earlier_task_makes(self, backend: Backend, tmp_path: Path) -> None:
        job = shell(tmp_path, "", inputs=(tmp_path / "made" / "code",))
        for path in (tmp_path / "made" / "code" / "main.py", tmp_path / "own.py"):
            backend.check(dataclasses.replace(job, command=("python3", str(path))))

    def test_a_script_in_its_own_folder(self, backend: Backend, tmp_path: Path) -> None:
        (tmp_path / "main.py").touch()
        backend.check(dataclasses.replace(shell(tmp_path, ""), command=("python3", "main.py")))

    def test_a_lightweight_component_of_any_image(self, backend: Backend, tmp_path: Path) -> None:
        backend.check(dataclasses.replace(python(tmp_path, _ANSWER), image="mine:1"))


class TestShell:
    @pytest.mark.parametrize(
        ("image", "program"),
        [
            ("alpine:3", "bash"),
            ("ghcr.io/containerd/busybox", "bash"),
            ("registry.access.redhat.com/ubi9/python-311:latest", "bash"),
            ("python:3.11-slim", "sh"),
        ],
    )
    def test_its_shell_is_of_its_image_s_kind(
        self, backend: Backend, tmp_path: Path, image: str, program: str
    ) -> None:
        asked = "import os, shutil; print(os.path.realpath(shutil.which('sh')))"
        script = 'python3 -c "$1"' + ("; [[ $2 == on ]] && echo on" if program == "bash" else "")
        job = dataclasses.replace(shell(tmp_path / "job", script, asked, "on"), image=image)

        ended, lines = run(backend, job)

        assert ended == ExitStatus(0), lines
        assert os.path.realpath(shutil.which(program) or "") in lines
