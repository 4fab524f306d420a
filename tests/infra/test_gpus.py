from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from infra import gpus
from infra.errors import BadInputError, StackError
from infra.leash_client import SpawnedLeash
from infra.settings import Settings
from tests.processes import eventually


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gpus"
    path.mkdir()
    monkeypatch.setattr(gpus, "folder", lambda: path)
    return path


def _settings(listed: str | None = None) -> Settings:
    return Settings(gpus=listed)


class TestDevices:
    @pytest.mark.parametrize(
        ("listed", "visible", "found"),
        [
            ("0,1", None, ("0", "1")),
            (" 0 , GPU-1a ,", None, ("0", "GPU-1a")),
            ("none", "0", ()),
            ("1", "0", ("1",)),
            (None, "2,3", ("2", "3")),
            (None, "", ()),
            (None, "-1", ()),
            (None, "NoDevFiles", ()),
        ],
    )
    def test_settings_come_before_the_environment(
        self, listed: str | None, visible: str | None, found: tuple[str, ...]
    ) -> None:
        environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

        assert gpus.devices(_settings(listed), environment) == found

    def test_else_the_driver_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 3)

        assert gpus.devices(_settings(), {}) == ("0", "1", "2")

    def test_without_a_driver_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

        monkeypatch.setattr(pynvml, "nvmlInit", missing)

        assert gpus.devices(_settings(), {}) == ()


class TestCheck:
    @pytest.mark.parametrize(
        ("count", "listed", "allow_cpu"), [(0, "none", False), (2, "0,1", False), (3, "0,1", True)]
    )
    def test_enough(self, count: int, listed: str, allow_cpu: bool) -> None:
        gpus.check(count, _settings(listed), allow_cpu=allow_cpu)

    def test_a_missing_one_is_refused(self) -> None:
        with pytest.raises(BadInputError, match="needs 3 GPUs, and this machine has 2") as raised:
            gpus.check(3, _settings("0,1"), allow_cpu=False)

        assert raised.value.code == "GpuMissing"
        assert "allow_cpu" in raised.value.hint


def _lease(  # type: ignore[no-untyped-def]
    count: int,
    *,
    shared: bool = False,
    holder: str = "somebody",
    waiting: Callable[[list[str]], None] = lambda _: None,
    give_up: Callable[[], bool] = lambda: False,
):
    return gpus.lease(
        ("0", "1"), count, holder=holder, shared=shared, waiting=waiting, give_up=give_up
    )


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_POLL_SECONDS", 0.01)


class TestLease:
    def test_two_runs_get_different_ones(self) -> None:
        with _lease(1) as first, _lease(1) as second:
            assert first is not None
            assert second is not None
            assert {*first.names, *second.names} == {"0", "1"}

    def test_none_are_always_free(self) -> None:
        with _lease(2), _lease(0) as lease:
            assert lease == gpus.GpuLease((), ())

    def test_a_third_waits_and_is_told_for_whom(self) -> None:
        told: list[list[str]] = []
        asked = iter([False, False, True])

        with (
            _lease(1, holder="run a"),
            _lease(1, holder="run b"),
            _lease(1, waiting=told.append, give_up=lambda: next(asked)) as third,
        ):
            assert third is None

        assert told == [["0 by run a", "1 by run b"]]

    def test_whoever_waits_gets_it_when_it_is_free(self) -> None:
        got = threading.Event()
        waits = threading.Event()

        def wait() -> None:
            with _lease(2, waiting=lambda _: waits.set()):
                got.set()

        with _lease(1):
            thread = threading.Thread(target=wait)
            thread.start()
            assert waits.wait(10)
            assert not got.is_set()
        assert got.wait(10)
        thread.join()

    def test_whoever_waits_for_many_is_not_passed_by(self) -> None:
        waits = threading.Event()
        order: list[str] = []

        def wait(name: str, count: int) -> None:
            with _lease(count, waiting=lambda _: waits.set()):
                order.append(name)

        with _lease(1):
            many = threading.Thread(target=wait, args=("many", 2))
            many.start()
            assert waits.wait(10)
            one = threading.Thread(target=wait, args=("one", 1))  # one is free, but not its turn
            one.start()
            one.join(0.1)
            assert order == []
        many.join(10)
        one.join(10)
        assert order == ["many", "one"]

    def test_nothing_is_held_by_whoever_waits(self) -> None:
        asked = iter([False, True])

        with _lease(1, holder="a") as first:
            with _lease(2, give_up=lambda: next(asked)) as many:
                assert many is None
            with _lease(1) as second:
                assert second is not None
                assert first is not None
                assert second.names != first.names

    def test_those_who_share_do_and_others_do_not(self) -> None:
        asked = iter([False, True])

        with _lease(1, shared=True) as first, _lease(1, shared=True) as second, _lease(1) as third:
            assert first is not None
            assert second is not None
            assert third is not None
            assert first.names == second.names != third.names
            with _lease(1, give_up=lambda: next(asked)) as fourth:
                assert fourth is None

    def test_it_is_held_until_the_script_is_gone_too(self, folder: Path, tmp_path: Path) -> None:
        with _lease(1) as lease:
            assert lease is not None
            script = SpawnedLeash(
                ["sh", "-c", "trap '' TERM; echo up; exec 1>&-; while :; do sleep 0.05; done"],
                env={"PATH": os.environ["PATH"]},
                cwd=tmp_path,
                grace=0.5,
                keep=[lock.fileno() for lock in lease.locks],
            )
            assert script.output.readline() == b"up\n"
        (name,) = lease.names

        def held() -> bool:
            with (folder / f"{name}.lock").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
            return False

        assert held()
        script.stop()
        script.output.close()
        script.wait()
        eventually(lambda: not held(), "the GPU is free")

    def test_a_holder_that_was_killed_holds_nothing(self, folder: Path) -> None:
        code = (
            "import fcntl, sys, time\n"
            f"file = open({str(folder / '0.lock')!r}, 'a+')\n"
            "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        holder.stdout.readline()
        with _lease(1) as lease:
            assert lease is not None
            assert lease.names == ("1",)
        holder.kill()
        holder.wait()
        holder.stdout.close()

        with _lease(2) as lease:
            assert lease is not None
            assert lease.names == ("0", "1")


def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 4711)

    with pytest.raises(StackError, match="belongs to another user"):
        gpus.folder()
