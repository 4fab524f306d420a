"""What every backend keeps."""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import socket
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.workloads.base import Backend, ResourceRequest, Workload
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.local_objects import LocalObjects
from tests.infra.workloads.shell import run, shell
from tests.processes import eventually

# Starts a process that ignores SIGTERM, which writes its id; goes on itself.
DETACHED = """
setsid sh -c 'trap "" TERM; echo $$ > "$1"; while :; do sleep 1; done' sh "$1" &
while :; do sleep 1; done
"""

# Starts a process that ignores SIGTERM, which marks in the shared folder that it has begun.
_BEGUN = """
setsid sh -c 'trap "" TERM; : > "$1/begun-$0"; while :; do sleep 0.05; done' "$1" "$2" &
"""
_DEAF = f'trap "" TERM{_BEGUN}while :; do sleep 0.05; done'


def secret(name: str) -> dict[str, str]:
    if name != "known":
        raise NotFoundError(f"There is no secret {name}.", code="SecretMissing")
    return {"token": "hidden-token", "two.lines": "hidden\nlines"}


def mounts(**volumes: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    """Volumes, each mounted at a folder of its name."""
    return {
        "volumes": [{"name": name, **volume} for name, volume in volumes.items()],
        "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in volumes],
    }


@dataclasses.dataclass(frozen=True)
class SharedFolder:
    """A folder that a test and its workload both see.

    Attributes:
        here: Its path in the test.
        there: Its path in the workload.
        folders: How the workload has it mounted; see :class:`Workload`.
    """

    here: Path
    there: str
    folders: Mapping[str, str]


def alive(token: str) -> list[int]:
    """Processes with this word in their command line."""
    return [
        one.pid for one in psutil.process_iter(["cmdline"]) if token in (one.info["cmdline"] or ())
    ]


class BackendContract:
    """What every backend keeps.

    Attributes:
        parallel: How many workloads run at once.
        stop_codes: Exit codes of a workload that ignores SIGTERM and is stopped.
    """

    parallel = 24
    stop_codes = frozenset({-signal.SIGTERM, -signal.SIGKILL})

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    @pytest.fixture
    def shared(self) -> SharedFolder:
        raise NotImplementedError

    @staticmethod
    def deaf(folder: Path, shared: SharedFolder, token: str, **others: Any) -> Workload:
        """A workload that ignores signals, as does a process that it has detached."""
        return shell(folder, _DEAF, token, shared.there, folders=shared.folders, **others)

    def test_lines_are_told_as_they_come(
        self, backend: Backend, shared: SharedFolder, tmp_path: Path
    ) -> None:
        go = f"go-{uuid.uuid4().hex}"
        script = 'echo here; while [ ! -e "$1" ]; do sleep 0.02; done; echo on'
        job = shell(tmp_path / "job", script, f"{shared.there}/{go}", folders=shared.folders)
        lines: list[str] = []

        def told(line: str) -> None:
            lines.append(line)
            (shared.here / go).touch()

        assert backend.run(job, told, threading.Event()) == ExitStatus(0)
        assert lines == ["here", "on"]

    def test_nothing_runs_after_a_stop(
        self, backend: Backend, shared: SharedFolder, tmp_path: Path
    ) -> None:
        token = uuid.uuid4().hex
        cancelled = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            job = self.deaf(tmp_path / "job", shared, token)
            ending = pool.submit(backend.run, job, print, cancelled)
            eventually((shared.here / f"begun-{token}").exists, "it has begun")
            assert alive(token)
            cancelled.set()
            ended = ending.result()

        assert ended.code in self.stop_codes
        assert (ended.reason, ended.cause) == ("It was stopped.", ExitCause.STOPPED)
        assert not alive(token)

    def test_nothing_runs_after_its_time(
        self, backend: Backend, shared: SharedFolder, tmp_path: Path
    ) -> None:
        token = uuid.uuid4().hex
        ended, _ = run(backend, self.deaf(tmp_path / "job", shared, token, seconds=1.5))

        assert ended.code in self.stop_codes
        assert ended.reason == "It did not end within its 1.5 seconds."
        assert ended.cause is ExitCause.TIMED_OUT
        assert not alive(token)

    def test_what_it_leaves_running_is_ended(
        self, backend: Backend, shared: SharedFolder, tmp_path: Path
    ) -> None:
        token = uuid.uuid4().hex
        script = f'{_BEGUN}while [ ! -e "$2/begun-$1" ]; do sleep 0.02; done'
        job = shell(tmp_path / "job", script, token, shared.there, folders=shared.folders)

        assert run(backend, job)[0] == ExitStatus(0)
        assert (shared.here / f"begun-{token}").exists()
        eventually(lambda: not alive(token), "it is ended")

    def test_a_stopped_one_may_tidy_up(
        self, backend: Backend, shared: SharedFolder, tmp_path: Path
    ) -> None:
        end = f"end-{uuid.uuid4().hex}"
        script = (
            "trap 'echo tidied > \"$1\"; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        )
        job = shell(tmp_path / "job", script, f"{shared.there}/{end}", folders=shared.folders)
        cancelled = threading.Event()

        ended = backend.run(job, lambda _: cancelled.set(), cancelled)

        assert ended.code < 0
        assert (shared.here / end).read_text() == "tidied\n"

    def test_many_at_once(self, backend: Backend, tmp_path: Path) -> None:
        def one(number: int) -> tuple[ExitStatus, list[str]]:
            job = shell(tmp_path / f"job{number}", f"echo {number}; exit {number}")
            return run(backend, dataclasses.replace(job, name=f"loop/{number}/task"))

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(one, range(self.parallel)))

        assert [ended.code for ended, _ in found] == list(range(self.parallel))
        assert [lines for _, lines in found] == [[str(n)] for n in range(self.parallel)]

    def test_a_job_that_ends_well(self, backend: Backend, tmp_path: Path) -> None:
        assert run(backend, shell(tmp_path / "job", "exit 0")) == (ExitStatus(0), [])

    def test_lines_that_are_not_empty_are_told_without_their_ends(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        script = r"printf 'one\ntwo\r\n10%%\r20%%\r'; echo err >&2; printf 'bad \377 byte\n\nend'"

        ended, lines = run(backend, shell(tmp_path / "job", script))

        assert ended == ExitStatus(0)
        assert lines == ["one", "two", "10%", "20%", "err", "bad \ufffd byte", "end"]

    def test_it_works_in_its_folder_with_its_words_and_variables(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        variables = {"PLAIN": "a b=c", "EMPTY": "", "LINES": "one\ntwo '$x'", "WORD": "ü"}
        script = (
            'pwd; for word; do echo "<$word>"; done; echo "$PLAIN|$EMPTY|$WORD"; echo "$LINES"'
        )
        job = shell(tmp_path / "job", script, "x y", "", "$HOME", "*", environment=variables)

        _, lines = run(backend, job)

        said = ["<x y>", "<>", "<$HOME>", "<*>", "a b=c||ü", "one", "two '$x'"]
        assert lines == [str(tmp_path / "job"), *said]

    def test_it_reads_and_writes_where_it_is_told(self, backend: Backend, tmp_path: Path) -> None:
        (tmp_path / "given").mkdir()
        (tmp_path / "given" / "in,put").write_text("word")
        (tmp_path / "made").mkdir()
        job = shell(
            tmp_path / "job",
            'cat "$1" > "$2"; echo more > beside',
            str(tmp_path / "given" / "in,put"),
            str(tmp_path / "made" / "output"),
            inputs=(tmp_path / "given" / "in,put",),
            outputs=(tmp_path / "made" / "output",),
        )

        assert run(backend, job) == (ExitStatus(0), [])
        assert (tmp_path / "made" / "output").read_text() == "word"
        assert (tmp_path / "job" / "beside").read_text() == "more\n"

    def test_one_without_a_limit_runs_until_it_is_stopped(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        lines: queue.Queue[str] = queue.Queue()
        job = shell(tmp_path / "job", "echo ready; while :; do sleep 0.05; done")
        handle = backend.start(job, lines.put)
        assert lines.get(timeout=30) == "ready"
        assert handle.is_running()
        with pytest.raises(TimeoutError):
            handle.wait(0.01)

        handle.stop()
        ended = handle.wait()
        assert (ended.reason, ended.cause) == ("It was stopped.", ExitCause.STOPPED)
        assert not handle.is_running()
        assert handle.wait() == ended

    def test_what_cannot_be_started_is_raised_to_whoever_waits(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        reference = {"secretKeyRef": {"name": "missing", "key": "token"}}
        settings = {"env": [{"name": "A", "valueFrom": reference}]}
        handle = backend.start(shell(tmp_path / "job", "true", kubernetes=settings), print)

        with pytest.raises(NotFoundError):
            handle.wait()

    def test_the_cluster_s_own_time_limit_counts(self, backend: Backend, tmp_path: Path) -> None:
        job = shell(
            tmp_path / "job", "sleep 600", seconds=500, kubernetes={"activeDeadlineSeconds": 1}
        )

        assert run(backend, job)[0].reason == "It did not end within its 1 seconds."

    def test_secrets_are_variables(self, backend: Backend, tmp_path: Path) -> None:
        def wanted(name: str, optional: bool) -> dict[str, object]:
            reference = {"name": name, "key": "token", "optional": optional}
            return {"name": name.upper(), "valueFrom": {"secretKeyRef": reference}}

        settings = {"env": [wanted("known", False), wanted("unknown", True)]}
        job = shell(tmp_path / "job", 'echo "$KNOWN|$UNKNOWN" > seen', kubernetes=settings)
        assert run(backend, job) == (ExitStatus(0), [])
        assert (job.folder / "seen").read_text() == "hidden-token|\n"

        settings["env"].append(wanted("missing", False))
        with pytest.raises(NotFoundError) as caught:
            backend.run(job, print, threading.Event())
        assert caught.value.code == "SecretMissing"

    def test_a_secret_that_is_printed_is_not_told(self, backend: Backend, tmp_path: Path) -> None:
        reference = {"secretKeyRef": {"name": "known", "key": "token"}}
        settings = {"env": [{"name": "A", "valueFrom": reference}]}
        script = 'echo "a=$A."; echo "it was $A" >&2; exit 3'
        ended, lines = run(backend, shell(tmp_path / "job", script, kubernetes=settings))

        assert sorted(lines) == ["a=***.", "it was ***"]
        assert "hidden" not in ended.reason
        assert "***" in ended.reason

    def test_a_secret_without_a_key(self, backend: Backend, tmp_path: Path) -> None:
        reference = {"secretKeyRef": {"name": "known", "key": "other"}}
        settings = {"env": [{"name": "A", "valueFrom": reference}]}
        with pytest.raises(NotFoundError, match="The secret known has no key other"):
            run(backend, shell(tmp_path / "job", "true", kubernetes=settings))

    @pytest.mark.parametrize(
        ("volume", "code"),
        [
            ({"persistentVolumeClaim": {"claimName": "gone"}}, "ClaimMissing"),
            ({"persistentVolumeClaim": {"claimName": "../x"}}, "ClaimInvalid"),
            ({"secret": {"secretName": "gone", "optional": False}}, "SecretMissing"),
            ({"configMap": {"name": "gone"}}, "ConfigMapMissing"),
        ],
    )
    def test_a_volume_that_is_not_there(
        self, backend: Backend, tmp_path: Path, volume: dict[str, object], code: str
    ) -> None:
        job = shell(tmp_path / "job", "true", kubernetes=mounts(here=volume))
        with pytest.raises(ModelyardError) as caught:
            run(backend, job)
        assert caught.value.code == code


class LocalBackendContract(BackendContract):
    """What backends keep that run workloads on this machine, and stand in for a cluster."""

    @pytest.fixture
    def kept(self, tmp_path: Path) -> LocalObjects:
        return LocalObjects(tmp_path / "home", secret)

    @pytest.fixture
    def shared(self, tmp_path: Path) -> SharedFolder:
        return SharedFolder(tmp_path, str(tmp_path), {})

    def test_config_maps_are_variables(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        def wanted(name: str, key: str, optional: bool) -> dict[str, object]:
            reference = {"name": name, "key": key, "optional": optional}
            return {"name": f"{name}_{key}".upper(), "valueFrom": {"configMapKeyRef": reference}}

        folder = tmp_path / "home" / "configmaps" / "known"
        folder.mkdir(parents=True)
        (folder / "word").write_text("said")
        (folder / "bytes").write_bytes(b"\xff")
        settings = {"env": [wanted("known", "word", False), wanted("gone", "x", True)]}
        job = shell(tmp_path / "job", 'echo "$KNOWN_WORD|$GONE_X"', kubernetes=settings)
        assert run(backend, job) == (ExitStatus(0), ["said|"])

        for name, key, code in (
            ("gone", "x", "ConfigMapMissing"),
            ("known", "x", "ConfigMapMissing"),
            ("known", "bytes", "ConfigMapNotText"),
            ("../known", "word", "ConfigMapMissing"),
        ):
            job = shell(tmp_path / "job", "true", kubernetes={"env": [wanted(name, key, False)]})
            with pytest.raises(ModelyardError) as caught:
                run(backend, job)
            assert caught.value.code == code

    def test_facts_of_a_pod_are_variables(self, backend: Backend, tmp_path: Path) -> None:
        paths = {
            "NAME": "metadata.name", "SPACE": "metadata.namespace", "UID_": "metadata.uid",
            "TEAM": "metadata.labels['team']", "NONE": "metadata.annotations['none']",
            "IP": "status.podIP", "NODE": "spec.nodeName",
        }  # fmt: skip
        settings = {
            "env": [
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in paths.items()
            ],
            "metadata": {"labels": {"team": "blue"}},
        }
        script = 'echo "$NAME|$SPACE|$UID_|$TEAM|$NONE|$IP|$NODE"'
        found = []
        for number in (1, 1, 2):
            job = shell(tmp_path / f"job{number}", script, kubernetes=settings)
            found.append(run(backend, job)[1][-1].split("|"))

        assert found[0] == found[1]
        assert found[0][0].startswith("the-task-")
        assert found[0][0] != found[2][0]
        assert found[0][2] != found[2][2]
        assert found[0][1] == "default"
        assert found[0][3:] == ["blue", "", "127.0.0.1", socket.gethostname()]

    def test_what_has_no_use_here_is_told_once(self, backend: Backend, tmp_path: Path) -> None:
        settings = {
            "nodeSelector": {"kind": "fast"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "imagePullSecrets": [{"name": "registry"}],
            "metadata": {"labels": {"a": "b"}},
        }
        job = shell(tmp_path / "job", "echo ran", kubernetes=settings)

        told = ["node selectors", "tolerations", "affinities", "image pull secrets",
                "labels and annotations of pods"]  # fmt: skip
        assert run(backend, job)[1] == [
            *(f"On this machine there is no use for {what}." for what in told),
            "ran",
        ]
        assert run(backend, job)[1] == ["ran"]

    def test_what_only_a_cluster_has_is_refused(self, backend: Backend, tmp_path: Path) -> None:
        reference = {"fieldRef": {"fieldPath": "spec.schedulerName"}}
        settings = {"env": [{"name": "A", "valueFrom": reference}]}
        with pytest.raises(BadInputError, match=r"spec\.schedulerName in A") as caught:
            backend.check(shell(tmp_path / "job", "true", kubernetes=settings))
        assert caught.value.code == "PlatformUnsupported"

    def test_devices_by_a_resource_claim_are_refused(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        claim = {"name": "fast-one", "resourceClaimTemplateName": "fast-one"}
        job = shell(tmp_path / "job", "true", kubernetes={"resourceClaims": [claim]})
        with pytest.raises(BadInputError, match="the resource claim fast-one") as caught:
            backend.check(job)
        assert caught.value.code == "PlatformUnsupported"

    def test_a_part_of_a_claim_is_no_way_out_of_it(
        self, backend: Backend, kept: LocalObjects, tmp_path: Path
    ) -> None:
        claim = kept.claims.folder / "mine"
        claim.mkdir(parents=True)
        (claim / "away").symlink_to(tmp_path)
        settings = mounts(here={"persistentVolumeClaim": {"claimName": "mine"}})
        settings["volumeMounts"][0]["subPath"] = "away/x"
        with pytest.raises(BadInputError) as caught:
            run(backend, shell(tmp_path / "job", "true", kubernetes=settings))
        assert caught.value.code == "LinkPointsOutside"
        assert not (tmp_path / "x").exists()

    def test_more_than_the_machine_has_is_refused(self, backend: Backend, tmp_path: Path) -> None:
        job = shell(tmp_path / "job", "true")
        cores = (os.cpu_count() or 1) + 1
        asked = ResourceRequest(cpu_request=cores, memory_request=2**60)
        with pytest.raises(BadInputError) as caught:
            backend.check(dataclasses.replace(job, resources=asked))
        assert caught.value.code == "ResourcesUnavailable"
        assert f"{cores} cores, and this machine has {cores - 1}" in caught.value.message
        assert "1073741824.0 GiB of memory, and this machine has" in caught.value.message

        backend.check(dataclasses.replace(job, resources=ResourceRequest(cpu=cores, memory=2**60)))

    def test_an_accelerator_that_is_none_of_ours_is_refused(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        asked = ResourceRequest(accelerator="cloud-tpus.google.com/v3", accelerators=1)
        with pytest.raises(BadInputError, match=r"cloud-tpus\.google\.com/v3") as caught:
            backend.check(shell(tmp_path / "job", "true", resources=asked))
        assert caught.value.code == "ResourcesUnavailable"

    @pytest.mark.parametrize(
        ("script", "code", "reason"),
        [
            ("exit 3", 3, "It ended with exit status 3."),
            ("echo a; echo why >&2; echo; exit 1", 1, "It ended with exit status 1: why"),
            ("kill -TERM $$", -15, "It ended with signal SIGTERM."),
            (
                "kill -KILL $$",
                -9,
                "It ended with signal SIGKILL (perhaps for want of memory).",
            ),
            ("no-such-program", 127, "It ended with exit status 127: "),
        ],
    )
    def test_a_job_that_fails_says_why(
        self, backend: Backend, tmp_path: Path, script: str, code: int, reason: str
    ) -> None:
        ended, _ = run(backend, shell(tmp_path / "job", script))

        assert ended.code == code
        assert ended.reason.startswith(reason)
