from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.settings import Settings
from infra.workloads.base import Backend, ResourceRequest
from infra.workloads.environment_spec import EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.local_objects import LocalObjects
from infra.workloads.process import ProcessBackend
from tests.infra.workloads import packages
from tests.infra.workloads.backend_contract import LocalBackendContract
from tests.infra.workloads.shell import run, shell
from tests.processes import pid_in, runs

pytestmark = pytest.mark.integration


class TestProcessBackend(LocalBackendContract):
    @pytest.fixture
    def backend(  # type: ignore[override]
        self, environments: EnvironmentCache, settings: Settings, kept: LocalObjects
    ) -> Iterator[ProcessBackend]:
        backend = ProcessBackend(environments, settings, objects=kept)
        yield backend
        backend.close()

    def test_limits_are_noted_once(self, backend: Backend, tmp_path: Path) -> None:
        workload = shell(tmp_path / "job", "echo on", resources=ResourceRequest(cpu=1))

        assert run(backend, workload)[1] == [
            "Limits of CPU and memory are not enforced on processes.", "on",
        ]  # fmt: skip
        assert run(backend, workload)[1] == ["on"]

    def test_without_packages_it_has_no_environment(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        _, lines = run(backend, shell(tmp_path / "job", 'echo "$VIRTUAL_ENV|$PATH"'))

        assert lines[0].startswith("|")
        assert sys.prefix not in lines[0]

    def test_its_packages_come_first_and_what_it_installs_is_its_own(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        given = packages.wheel(tmp_path, "given", "WORD = 'given'")
        added = packages.wheel(tmp_path, "added", "WORD = 'added'")
        spec = EnvironmentSpec((PipInstall((str(given),)),))
        script = (
            'python3 -c "import added" 2> /dev/null && echo shared; pip install -q "$1" && '
            'python3 -c "import given, added; print(given.WORD, added.WORD)"'
        )
        for number in range(2):
            workload = shell(tmp_path / f"job{number}", script, str(added), python=spec)
            ended, lines = run(backend, workload)
            assert ended == ExitStatus(0), lines
            assert lines[-1] == "given added"
            assert "shared" not in lines

    @pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "late"])
    def test_one_that_ends_while_packages_are_installed_never_begins(
        self, backend: Backend, tmp_path: Path, stopped: bool
    ) -> None:
        source = packages.slow_source(tmp_path / "slow", tmp_path)
        spec = EnvironmentSpec((PipInstall((str(source),)),))
        workload = shell(
            tmp_path / "job", "touch begun", python=spec, seconds=None if stopped else 0.01
        )
        handle = backend.start(workload, print)
        if stopped:
            pid = pid_in(tmp_path / "pid")
            handle.stop()
            assert handle.wait().cause is ExitCause.STOPPED
            assert not runs(pid)
        assert handle.wait().cause is (ExitCause.STOPPED if stopped else ExitCause.TIMED_OUT)
        assert not (tmp_path / "job" / "begun").exists()

    def test_a_program_of_an_environment_needs_one(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        workload = dataclasses.replace(shell(tmp_path / "job", ""), command=("pip", "list"))
        backend.check(dataclasses.replace(workload, python=EnvironmentSpec()))
        with pytest.raises(BadInputError) as caught:
            backend.check(workload)
        assert caught.value.code == "ImageNotRunnable"
        assert "MODELYARD" not in caught.value.hint  # a workload need not be a pipeline's
