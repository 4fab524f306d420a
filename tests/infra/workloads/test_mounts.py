"""Volumes of jobs that run as processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from infra.errors import BadInputError
from infra.settings import Settings
from infra.workloads import mounts as mounting
from infra.workloads.base import Backend
from infra.workloads.environments import EnvironmentCache
from infra.workloads.exit_status import ExitStatus
from infra.workloads.local_objects import LocalObjects
from infra.workloads.process import ProcessBackend
from tests.infra.workloads.backend_contract import DETACHED, mounts, secret
from tests.infra.workloads.shell import run, shell
from tests.processes import eventually, pid_in, runs

_ROOT = Path(__file__).parents[3]

needs_namespaces = pytest.mark.skipif(
    bool(mounting.impossible()), reason=f"mounts: {mounting.impossible()}"
)


@pytest.fixture
def kept(tmp_path: Path) -> LocalObjects:
    return LocalObjects(tmp_path / "home", secret)


@pytest.fixture
def backend(
    environments: EnvironmentCache, settings: Settings, kept: LocalObjects
) -> Iterator[ProcessBackend]:
    backend = ProcessBackend(environments, settings, objects=kept)
    yield backend
    backend.close()


def _claim(kept: LocalObjects, name: str = "mine") -> Path:
    folder = kept.claims.folder / name
    folder.mkdir(parents=True)
    return folder


_MINE = {"persistentVolumeClaim": {"claimName": "mine"}}


@needs_namespaces
class TestMounts:
    def test_a_claim_is_where_it_is_wanted_and_nowhere_else(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = _claim(kept)
        (claim / "given").write_text("word\n")
        script = "pwd; cat /here/given; echo made > /here/made; echo beside > beside; id -u"
        job = shell(tmp_path / "job", script, kubernetes=mounts(here=_MINE))

        assert run(backend, job) == (
            ExitStatus(0), [str(tmp_path / "job"), "word", str(os.getuid())]
        )  # fmt: skip
        assert (claim / "made").read_text() == "made\n"
        assert (tmp_path / "job" / "beside").exists()
        assert not Path("/here").exists()

    def test_a_part_of_a_claim_is_made_where_it_is_missing(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = _claim(kept)
        settings = mounts(here=_MINE)
        settings["volumeMounts"][0]["subPath"] = "a/b"

        run(backend, shell(tmp_path / "job", "touch /here/x", kubernetes=settings))

        assert (claim / "a" / "b" / "x").exists()

    @pytest.mark.parametrize(
        "path", ["/etc/modelyard-test/deep", "/usr/share/modelyard-test", "/here/a/b/c"]
    )
    def test_a_mount_point_below_folders_that_stay_as_they_are(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path, path: str
    ) -> None:
        claim = _claim(kept)
        settings = mounts(here=_MINE)
        settings["volumeMounts"][0]["mountPath"] = path
        above = str(Path(path).parent)
        script = 'ls -A / /etc /usr/share; readlink /bin; echo x > "$1/x"'

        ended, lines = run(backend, shell(tmp_path / "job", script, path, kubernetes=settings))

        assert ended == ExitStatus(0)
        folders = [Path("/etc"), Path("/usr/share")]
        there = {"etc", "tmp", "proc"} | {one.name for two in folders for one in two.iterdir()}
        assert there <= set(lines)
        assert (claim / "x").exists()
        assert not Path(path).exists()
        assert not Path(above).name.startswith("modelyard") or not Path(above).exists()

    def test_a_folder_that_is_there_is_covered(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = _claim(kept)
        over = tmp_path / "over"
        over.mkdir()
        (over / "own").touch()
        settings = mounts(here=_MINE)
        settings["volumeMounts"][0]["mountPath"] = str(over)

        _, lines = run(
            backend, shell(tmp_path / "job", f"ls {over}; touch {over}/x", kubernetes=settings)
        )

        assert lines == []
        assert (claim / "x").exists()
        assert [one.name for one in over.iterdir()] == ["own"]

    def test_one_within_another(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = _claim(kept)
        settings = mounts(here=_MINE, inner={"emptyDir": {}})
        settings["volumeMounts"].reverse()
        settings["volumeMounts"][0]["mountPath"] = "/here/inner"

        script = "touch /here/outer /here/inner/x; ls /here /here/inner"
        _, lines = run(backend, shell(tmp_path / "job", script, kubernetes=settings))

        assert lines == ["/here:", "inner", "outer", "/here/inner:", "x"]
        assert sorted(one.name for one in claim.rglob("*")) == ["inner", "outer"]

    def test_secrets_and_config_maps_are_files_that_cannot_be_written(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        config = tmp_path / "home" / "configmaps" / "c"
        config.mkdir(parents=True)
        (config / "key").write_bytes(b"\xff\n")
        (config / "no key").write_text("")
        settings = mounts(
            secret={"secret": {"secretName": "known"}},
            config={"configMap": {"name": "c"}},
            none={"secret": {"secretName": "gone", "optional": True}},
            nor={"configMap": {"name": "gone", "optional": True}},
        )
        script = """
for one in secret config none nor; do ls /$one; done
tr a-z A-Z < /secret/token; echo; od -An -tx1 /config/key
touch /secret/x 2>/dev/null || echo refused
touch /none/x 2>/dev/null || echo refused
"""
        _, lines = run(backend, shell(tmp_path / "job", script, kubernetes=settings))

        assert lines == [
            "token", "two.lines", "key", "HIDDEN-TOKEN", " ff 0a", "refused", "refused"
        ]  # fmt: skip
        left = [one for one in tmp_path.rglob("*") if one.is_file()]
        assert not [one for one in left if b"hidden" in one.read_bytes()]

    def test_empty_folders_are_empty_in_every_attempt_and_gone_afterwards(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        settings = mounts(
            disk={"emptyDir": {}},
            memory={"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            passing={"ephemeral": {"volumeClaimTemplate": {}}},
        )
        script = """
ls /disk /memory /passing | grep x; touch /disk/x /memory/x /passing/x
head -c 2000000 /dev/zero > /memory/large 2>/dev/null || echo full
"""
        for _ in range(2):
            _, lines = run(backend, shell(tmp_path / "job", script, kubernetes=settings))
            assert lines[-1] == "full"
            assert "x" not in lines
        assert list((tmp_path / "job").iterdir()) == []

    def test_a_program_in_a_volume(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        program = _claim(kept) / "program"
        program.write_text('#!/bin/sh\necho "ran $1"\n')
        program.chmod(0o755)
        job = shell(tmp_path / "job", "", kubernetes=mounts(here=_MINE))
        for command in (("/here/program",), ("sh", "/here/program")):
            job = dataclasses.replace(job, command=command, arguments=("it",))
            assert run(backend, job) == (ExitStatus(0), ["ran it"])

    def test_its_environment_is_what_it_would_be_without(
        self,
        backend: Backend,
        kept: LocalObjects,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        _claim(kept)
        for name in ("LC_ALL", "LC_CTYPE", "LANG"):
            monkeypatch.delenv(name, raising=False)
        # Where SIGPIPE were ignored, yes would complain of it.
        script = "env | grep -v ^_= | sort; yes | head -1"
        found = []
        for settings in ({}, mounts(here=_MINE)):
            job = shell(
                tmp_path / "job", script, environment={"A": "two\nlines"}, kubernetes=settings
            )
            found.append(run(backend, job)[1])

        assert "A=two" in found[0]
        assert _without_overlays(found[0]) == _without_overlays(found[1])

    def test_nothing_runs_after_a_stop(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        _claim(kept)
        cancelled = threading.Event()
        job = shell(
            tmp_path / "job", DETACHED, str(tmp_path / "pid"), kubernetes=mounts(here=_MINE)
        )
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(backend.run, job, print, cancelled)
            child = pid_in(tmp_path / "pid")
            cancelled.set()
            ended = ending.result()

        assert ended.reason == "It was stopped."
        assert not runs(child)
        assert str(kept.claims.folder) not in Path("/proc/self/mounts").read_text()

    def test_everything_ends_with_an_owner_that_was_killed(
        self, environments: EnvironmentCache, kept: LocalObjects, tmp_path: Path
    ) -> None:
        _claim(kept)
        script = "echo $$ > pid; sleep 600"
        job = shell(tmp_path / "job", script, kubernetes=mounts(here=_MINE))
        owner = f"""
import sys, threading
sys.path.insert(0, {str(_ROOT)!r})
from pathlib import Path, PosixPath
from infra.settings import Settings
from infra.workloads.environments import EnvironmentCache
from infra.workloads.base import ResourceRequest, Workload
from infra.workloads.process import ProcessBackend
backend = ProcessBackend(EnvironmentCache(Path({str(environments.root)!r})),
                           Settings(home={str(tmp_path / "home")!r}))
backend.run({job!r}, print, threading.Event())
"""
        process = subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.DEVNULL)
        child = pid_in(tmp_path / "job" / "pid")
        process.kill()
        process.wait()
        eventually(lambda: not runs(child), "it has ended")

    def test_it_ends_with_a_leash_that_was_killed(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        _claim(kept)
        script = "echo $$ > pid; exec sleep 600"
        job = shell(tmp_path / "job", script, kubernetes=mounts(here=_MINE))
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(backend.run, job, print, threading.Event())
            child = pid_in(tmp_path / "job" / "pid")
            leash = psutil.Process(child).parent()
            assert leash is not None
            os.kill(leash.pid, signal.SIGKILL)
            assert ending.result().code == -signal.SIGKILL
        eventually(lambda: not runs(child), "the kernel has ended it")

    def test_folders_of_a_nas_are_there_for_every_component(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "nas" / "data").mkdir(parents=True)
        (tmp_path / "nas" / "data" / "given").write_text("word\n")
        monkeypatch.setenv("MODELYARD_NAS", json.dumps({"n1": str(tmp_path / "nas")}))
        script = "cat /mnt/one/given; touch /mnt/two/made"
        folders = {"/mnt/one": "nas://n1:/data", "/mnt/two": "nas://n1:/"}

        ended, lines = run(backend, shell(tmp_path / "job", script, folders=folders))

        assert (ended, lines) == (ExitStatus(0), ["word"])
        assert (tmp_path / "nas" / "made").exists()

    def test_a_folder_that_is_not_on_this_machine_is_refused(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_NAS", json.dumps({"n1": str(tmp_path)}))
        for uri in ("s3://bucket/folder", "nas://n1:/gone"):
            with pytest.raises(BadInputError) as caught:
                run(backend, shell(tmp_path / "job", "true", folders={"/mnt/x": uri}))
            assert caught.value.code == "FolderElsewhere"
            assert uri in caught.value.message

    def test_what_cannot_be_mounted_is_named(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        _claim(kept)
        file = tmp_path / "file"
        file.touch()
        settings = mounts(here=_MINE)
        settings["volumeMounts"][0]["mountPath"] = f"{file}/below"

        ended, _ = run(backend, shell(tmp_path / "job", "true", kubernetes=settings))

        assert ended.reason == (
            f"It ended with exit status 125: {file} cannot be mounted: it is a file"
        )


def _without_overlays(lines: list[str]) -> list[str]:
    return [one for one in lines if not one.startswith(("PATH=", "VIRTUAL_ENV="))]


class TestCheck:
    @pytest.mark.parametrize(
        ("path", "what"),
        [
            ("/", "would hide /,"),
            ("/usr", "would hide /usr,"),
            ("/proc", "would hide /proc,"),
            ("/proc/1", "a process can have none"),
            ("/dev/sub", "a process can have none"),
            ("{folder}", "would hide {folder},"),
            ("{above}", "would hide {above}/"),
        ],
    )
    def test_a_mount_that_would_hide_what_it_runs_with(
        self,
        backend: Backend,
        tmp_path: Path,
        path: str,
        what: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(mounting, "impossible", lambda: "")
        named = {"folder": str(tmp_path / "job"), "above": str(tmp_path)}
        settings = mounts(here=_MINE)
        settings["volumeMounts"][0]["mountPath"] = path.format(**named)
        with pytest.raises(BadInputError) as caught:
            backend.check(shell(tmp_path / "job", "true", kubernetes=settings))
        assert caught.value.code == "PlatformUnsupported"
        assert what.format(**named) in caught.value.message

    def test_a_machine_without_namespaces(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mounting, "impossible", lambda: "they are switched off")
        job = shell(tmp_path / "job", "true", kubernetes=mounts(here=_MINE))
        with pytest.raises(BadInputError) as caught:
            backend.check(job)
        assert caught.value.code == "PlatformUnsupported"
        assert caught.value.message == (
            "the-task needs a mount at /here, which a process cannot have: they are switched off."
        )
        assert "Docker" in caught.value.hint
        backend.check(shell(tmp_path / "job", "true"))

    def test_why_there_are_no_namespaces(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failing = tmp_path / "mounter.py"
        failing.write_text("import sys; sys.exit('it is forbidden')")
        monkeypatch.setattr(mounting, "_MOUNTER", failing)
        assert mounting.impossible.__wrapped__() == (
            "this machine gives its users no namespaces of their own (it is forbidden)"
        )
        monkeypatch.setattr(sys, "platform", "darwin")
        assert mounting.impossible.__wrapped__() == "only Linux has them"

    def test_root_does_not_run_what_must_not_be_root(
        self, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = shell(
            tmp_path / "job", "true", kubernetes={"securityContext": {"runAsNonRoot": True}}
        )
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        with pytest.raises(BadInputError, match="must not run as root") as caught:
            backend.check(job)
        assert caught.value.code == "PlatformUnsupported"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        backend.check(job)
