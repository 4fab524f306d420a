from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.settings import Settings
from infra.workloads.base import Backend, ResourceRequest
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.process import ProcessBackend
from tests.infra.workloads.shell import shell
from tests.processes import eventually


@pytest.fixture
def environments(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "environments")


class TestCheck:
    def test_as_many_as_there_are(self, environments: EnvironmentCache, tmp_path: Path) -> None:
        asked = ResourceRequest(accelerator="nvidia.com/gpu", accelerators=2)
        job = shell(tmp_path, "", resources=asked)
        ProcessBackend(environments, Settings(gpus="0,1")).check(job)
        with pytest.raises(BadInputError, match=r"2 of nvidia\.com/gpu, and this machine has 1"):
            ProcessBackend(environments, Settings(gpus="0")).check(job)
        with pytest.raises(BadInputError) as raised:
            ProcessBackend(environments, Settings(gpus="")).check(job)
        assert "--allow-cpu" in raised.value.hint

    def test_none_where_it_may_do_without(
        self, environments: EnvironmentCache, tmp_path: Path
    ) -> None:
        asked = ResourceRequest(accelerator="cloud-tpus.google.com/v3", accelerators=1)
        job = shell(tmp_path, 'echo "<$CUDA_VISIBLE_DEVICES>"', resources=asked)
        backend = ProcessBackend(environments, Settings(gpus=""), allow_cpu=True)
        seen: list[str] = []
        backend.check(job)
        assert backend.run(job, seen.append, threading.Event()) == ExitStatus(0)
        backend.close()
        assert seen == [
            "This machine has no cloud-tpus.google.com/v3; what asks for one runs without.", "<>",
        ]  # fmt: skip
        some = ProcessBackend(environments, Settings(gpus="0"), allow_cpu=True)
        with pytest.raises(BadInputError, match="2 of gpu, and this machine has 1"):
            some.check(
                shell(tmp_path, "", resources=ResourceRequest(accelerator="gpu", accelerators=2))
            )


class TestGpus:
    @pytest.fixture
    def backend(self, environments: EnvironmentCache) -> Iterator[ProcessBackend]:
        # A name that no other run of the machine waits for.
        backend = ProcessBackend(
            environments, Settings(stop_grace_seconds=0.5, gpus=f"test-{os.getpid()}")
        )
        yield backend
        backend.close()

    def test_a_job_sees_its_own_and_one_that_waits_can_be_stopped(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        asked = ResourceRequest(accelerator="nvidia.com/gpu", accelerators=1)
        holds = 'echo "$CUDA_VISIBLE_DEVICES"; while [ ! -e go ]; do sleep 0.02; done'
        first = shell(tmp_path / "first", holds, resources=asked)
        second = shell(tmp_path / "second", "echo begun", resources=asked)
        cancelled = threading.Event()
        seen: list[str] = []
        waited: list[str] = []

        def waiting(line: str) -> None:
            waited.append(line)
            cancelled.set()

        with ThreadPoolExecutor(1) as pool:
            holding = pool.submit(backend.run, first, seen.append, threading.Event())
            eventually(lambda: seen, "the first runs")
            stopped = backend.run(second, waiting, cancelled)
            (tmp_path / "first" / "go").touch()
            assert holding.result() == ExitStatus(0)

        assert seen == [f"test-{os.getpid()}"]
        assert waited == [f"Waiting for a GPU: test-{os.getpid()} by the-task"]
        assert stopped == ExitStatus(
            -signal.SIGTERM, "It was stopped before it began.", ExitCause.STOPPED
        )
