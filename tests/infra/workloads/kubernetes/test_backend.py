from __future__ import annotations

import dataclasses
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ModelyardError
from infra.instance_types import InstanceType
from infra.workloads.base import Backend, ResourceRequest, Sidecar, Workload
from infra.workloads.exit_status import ExitCause, ExitStatus
from infra.workloads.kubernetes.job_manifest import InstanceSpec
from tests.cluster.faults import Fault
from tests.infra.workloads.backend_contract import (
    BackendContract,
    SharedFolder,
    alive,
    mounts,
)
from tests.infra.workloads.kubernetes.small_cluster import Running
from tests.infra.workloads.shell import run, shell
from tests.processes import eventually

pytestmark = pytest.mark.integration


class TestKubernetesBackend(BackendContract):
    parallel = 4
    stop_codes = frozenset({-15})

    @pytest.fixture
    def backend(self, running: Running) -> Backend:  # type: ignore[override]
        return running.backend()

    @pytest.fixture(autouse=True)
    def nothing_is_left(self, running: Running) -> Any:
        yield
        assert running.objects("Job") == []
        assert running.objects("Pod") == []
        assert not list((running.nas / "staging").rglob("jobs/*/*"))

    @pytest.fixture
    def shared(self, running: Running) -> SharedFolder:
        return SharedFolder(running.nas, "/mnt/own", {"/mnt/own": "nas://own:/"})

    @pytest.mark.parametrize(
        ("script", "ended"),
        [
            ("echo why >&2; exit 3", ExitStatus(3, "It ended with exit status 3: why")),
            ("exit 143", ExitStatus(-15, "It ended with signal SIGTERM.")),
            (
                "exit 137",
                ExitStatus(-9, "It ended with signal SIGKILL (perhaps for want of memory)."),
            ),
        ],
    )
    def test_a_component_that_fails_says_why(
        self, backend: Backend, tmp_path: Path, script: str, ended: ExitStatus
    ) -> None:
        assert run(backend, shell(tmp_path / "job", script))[0] == ended

    def test_jobs_and_pods_are_watched_until_it_is_closed(
        self, running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend, watched = running.backend(), []
        really = backend.api.watch

        def watch(kind: str, labels: Any) -> Any:
            watched.append(kind)
            return really(kind, labels)

        monkeypatch.setattr(backend.api, "watch", watch)
        run(backend, shell(tmp_path / "first", "true"))
        run(backend, shell(tmp_path / "second", "true"))
        assert sorted(watched) == ["Job", "Pod"]

        backend.close()
        assert run(backend, shell(tmp_path / "third", "true"))[0] == ExitStatus(0)

    def test_config_maps_of_the_cluster_are_variables(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        reference = {"configMapKeyRef": {"name": "known", "key": "word"}}
        settings = {"env": [{"name": "A", "valueFrom": reference}]}

        job = shell(tmp_path / "job", 'echo "$A"', kubernetes=settings)
        assert run(backend, job) == (ExitStatus(0), ["said"])

    def test_a_pod_s_own_facts_are_variables(self, backend: Backend, tmp_path: Path) -> None:
        paths = {
            "NAME": "metadata.name", "SPACE": "metadata.namespace",
            "TEAM": "metadata.labels['team']", "WHY": "metadata.annotations['why']",
            "NODE": "spec.nodeName",
        }  # fmt: skip
        settings = {
            "env": [
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in paths.items()
            ],
            "metadata": {"labels": {"team": "blue"}, "annotations": {"why": "because"}},
        }
        script = 'echo "$NAME|$SPACE|$TEAM|$WHY|$NODE"'
        _, (line,) = run(backend, shell(tmp_path / "job", script, kubernetes=settings))

        name, *others = line.split("|")
        assert name.startswith("my-")
        assert others[:3] == ["default", "blue", "because"]
        assert others[3] in {"node-a", "node-b"}

    def test_volumes(self, backend: Backend, running: Running, tmp_path: Path) -> None:
        claims = running.backend().claims
        claims.create(_claim("shared"), "a task")
        settings = mounts(
            claim={"persistentVolumeClaim": {"claimName": "shared"}},
            keys={"secret": {"secretName": "known", "optional": False}},
            words={"configMap": {"name": "known", "optional": False}},
            room={"emptyDir": {}},
        )
        script = 'cat /words/word /keys/token; touch /room/x; echo "$1" >> /claim/all'
        job = shell(tmp_path / "job", script, "one", kubernetes=settings)
        assert run(backend, job) == (ExitStatus(0), ["said***"])
        job = shell(tmp_path / "job", f"{script}; cat /claim/all", "two", kubernetes=settings)
        assert run(backend, job) == (ExitStatus(0), ["said***one", "two"])

        claims.delete("shared")
        eventually(lambda: not running.objects("PersistentVolumeClaim"), "the claim is gone")

    def test_a_sidecar_serves_the_component_while_it_runs(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        folder = Path("/modelyard/server")
        serve = 'until [ -e "$0/asked" ]; do sleep 0.05; done; echo served; ' + (
            'echo "$WORD" > "$0/said"; sleep 600'
        )
        ask = f"touch {folder}/asked; until [ -s {folder}/said ]; do sleep 0.05; done; "
        job = shell(
            tmp_path / "job", f"{ask} cat {folder}/said",
            sidecar=Sidecar(
                "server", "alpine:3", ("sh", "-c", serve, str(folder)), folder, {"WORD": "hi"}
            ),
        )  # fmt: skip
        ended, lines = run(backend, job)

        assert ended == ExitStatus(0)
        assert sorted(lines) == ["hi", "server: served"]
        assert not list((tmp_path / "job").iterdir())

    def test_a_sidecar_that_ends_is_started_again_and_the_log_says_how_it_ended(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        folder = Path("/modelyard/server")
        serve = (
            'until [ -e "$0/asked" ]; do sleep 0.05; done; echo x >> "$0/starts"; echo last words;'
            ' [ $(wc -l < "$0/starts") = 1 ] && exit 7;'
        )
        wait = (
            f"sleep 0.5; touch {folder}/asked;"
            f' until [ "$(cat {folder}/starts 2>/dev/null | wc -l)" = 2 ]; do sleep 0.05; done;'
            " sleep 0.5; exit 3"
        )
        job = shell(
            tmp_path / "job", wait,
            sidecar=Sidecar(
                "server", "alpine:3", ("sh", "-c", f"{serve} sleep 600", str(folder)), folder
            ),
        )  # fmt: skip
        ended, lines = run(backend, job)

        assert ended == ExitStatus(3, "It ended with exit status 3.")
        assert lines.count("server: last words") == 2
        assert "server: It ended with exit status 7. It is started again." in lines

    def test_a_sidecar_without_its_program_is_given_up(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        sidecar = Sidecar("server", "alpine:3", ("no-such-program",), Path("/modelyard/server"))
        with pytest.raises(BadInputError, match="of server has no program 'no-such") as caught:
            run(backend, shell(tmp_path / "job", "sleep 600", sidecar=sidecar))
        assert caught.value.code == "ProgramMissing"

    def test_a_sidecar_whose_devices_no_cluster_has(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        asked = ResourceRequest(accelerator="TPU_V3", accelerators=1)
        sidecar = Sidecar("server", "alpine:3", ("sh",), Path("/x"), resources=asked)
        with pytest.raises(BadInputError, match="server asks for 1 of TPU_V3"):
            backend.check(shell(tmp_path / "job", "true", sidecar=sidecar))

    def test_what_no_node_has_is_given_up_with_the_reason(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        job = shell(tmp_path / "job", "true", kubernetes={"nodeSelector": {"kind": "none"}})
        lines: list[str] = []

        with pytest.raises(ModelyardError, match="No node can take it") as caught:
            backend.run(job, lines.append, threading.Event())
        assert caught.value.code == "Unschedulable"
        assert lines[0].startswith("It waits. Unschedulable: No node can take it")

    def test_a_run_has_no_more_pods_than_its_instances_have_room_for(
        self, running: Running, tmp_path: Path
    ) -> None:
        """Stopped while it waits, one never gets a pod; the disk is what was asked for."""
        one = InstanceSpec(
            "mine", InstanceType(cpu=1, memory_gib=4), boot_storage_gib=1, data_storage_gib=2
        )
        backend = running.backend(instances=one)
        whole = ResourceRequest(cpu=1)
        holder, waiting = (
            dataclasses.replace(shell(tmp_path / name, script), name=name, resources=whole)
            for name, script in (("holder", "sleep 60"), ("waiting", "true"))
        )
        stop_holder, stop, waits = threading.Event(), threading.Event(), threading.Event()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(backend.run, holder, lambda _: None, stop_holder)
            eventually(lambda: running.objects("Pod"), "the first has its pod")
            second = pool.submit(backend.run, waiting, lambda _: waits.set(), stop)
            assert waits.wait(30)
            (pod,) = running.cluster.call(running.cluster.store.list, "Pod", "default")
            stop.set()
            assert second.result(30).cause == ExitCause.STOPPED
            stop_holder.set()
            first.result(60)

        component = pod["spec"]["initContainers"][1]
        assert component["resources"]["limits"]["ephemeral-storage"] == "3Gi"
        with pytest.raises(BadInputError, match="an instance of mine has 1"):
            backend.check(dataclasses.replace(waiting, resources=ResourceRequest(cpu=2)))

    def test_what_others_have_is_waited_for_longer_than_a_start_may_take(
        self, backend: Backend, running: Running, tmp_path: Path
    ) -> None:
        def asking(name: str, script: str) -> Workload:
            gpus = ResourceRequest(accelerator="nvidia.com/gpu", accelerators=2)
            return dataclasses.replace(shell(tmp_path / name, script), name=name, resources=gpus)

        with ThreadPoolExecutor(2) as pool:
            holder = pool.submit(run, backend, asking("holder", "sleep 6"))
            eventually(lambda: running.objects("Pod"), "the first has its pod")
            ended, lines = run(backend, asking("waiter", "echo had"))

        assert holder.result()[0] == ExitStatus(0)
        assert ended == ExitStatus(0)
        assert lines[0].startswith("It waits. Unschedulable: No node can take it now")
        assert lines[-1] == "had"

    def test_what_pod_security_refuses_ends_at_once(
        self, running: Running, tmp_path: Path
    ) -> None:
        backend = running.backend(pending_minutes=60)
        running.label_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
        try:
            with pytest.raises(ModelyardError, match="violates PodSecurity") as caught:
                run(backend, shell(tmp_path / "job", "true"))
        finally:
            running.label_namespace(**{"pod-security.kubernetes.io/enforce": None})
        assert caught.value.code == "ConfigInvalid"
        assert "component_user" in caught.value.hint

    def test_a_user_of_the_cluster_s_for_components(
        self, running: Running, tmp_path: Path
    ) -> None:
        backend = running.backend(component_user=1234)
        job = shell(tmp_path / "job", "id -u; echo $HOME; echo 1 > own; chmod 600 own")

        assert run(backend, job) == (ExitStatus(0), ["1234", "/tmp"])
        assert (job.folder / "own").read_text() == "1\n"

    def test_an_image_that_cannot_be_pulled(self, backend: Backend, tmp_path: Path) -> None:
        job = dataclasses.replace(shell(tmp_path / "job", "true"), image="gone:1")

        with pytest.raises(BadInputError, match="The image gone:1 cannot be pulled") as caught:
            run(backend, job)
        assert caught.value.code == "ImagePull"

    def test_a_program_that_the_image_does_not_have(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        job = dataclasses.replace(shell(tmp_path / "job", ""), command=("no-such-program",))

        with pytest.raises(BadInputError, match="has no program 'no-such-program'") as caught:
            run(backend, job)
        assert caught.value.code == "ProgramMissing"

    def test_devices(self, backend: Backend, running: Running, tmp_path: Path) -> None:
        asked = ResourceRequest(
            accelerator="nvidia.com/gpu", accelerators=2, cpu=0.5, memory=2**28
        )
        reference = {"fieldRef": {"fieldPath": "spec.nodeName"}}
        settings = {"env": [{"name": "NODE", "valueFrom": reference}]}
        job = shell(tmp_path / "job", "echo $NODE", resources=asked, kubernetes=settings)

        assert run(backend, job) == (ExitStatus(0), ["node-b"])

    def test_an_api_that_is_away_for_a_while_makes_no_difference(
        self, backend: Backend, running: Running, shared: SharedFolder, tmp_path: Path
    ) -> None:
        faults = running.cluster.server.faults
        go = f"go-{uuid.uuid4().hex}"
        script = 'echo here; while [ ! -e "$1" ]; do sleep 0.02; done; echo on'
        lines: list[str] = []

        def told(line: str) -> None:
            lines.append(line)
            if line == "here":
                running.cluster.call(faults.add, Fault("answer", seconds=2.0, code=503))
                (running.nas / go).touch()

        running.cluster.call(faults.add, Fault("drop", method="POST", path="/jobs$"))
        running.cluster.call(faults.add, Fault("close", method="DELETE", path="/jobs/"))
        job = shell(tmp_path / "job", script, f"{shared.there}/{go}", folders=shared.folders)

        assert backend.run(job, told, threading.Event()) == ExitStatus(0)
        assert lines == ["here", "on"]
        assert faults.met >= 3

    def test_a_job_that_somebody_deletes(
        self, backend: Backend, running: Running, shared: SharedFolder, tmp_path: Path
    ) -> None:
        token = uuid.uuid4().hex
        job = self.deaf(tmp_path / "job", shared, token)
        api = running.backend().api
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(backend.run, job, print, threading.Event())
            eventually((running.nas / f"begun-{token}").exists, "it has begun")
            (name,) = running.objects("Job")
            api.delete("Job", name)

            assert ending.result().reason.startswith("Gone: Its Job was deleted")
        assert not alive(token)

    def test_components_go_with_the_run_s_own_job(
        self, running: Running, shared: SharedFolder, tmp_path: Path
    ) -> None:
        run_id, token = str(uuid.uuid4()), uuid.uuid4().hex
        container = {"name": "run", "image": "alpine:3", "command": ["sleep", "600"]}
        pod = {"containers": [container], "restartPolicy": "Never",
               "terminationGracePeriodSeconds": 1}  # fmt: skip
        running.make("Job", f"my-{run_id}-1", spec={"template": {"spec": pod}})
        job = self.deaf(tmp_path / "job", shared, token)
        backend = running.backend(run=run_id)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(backend.run, job, print, threading.Event())
            eventually((running.nas / f"begun-{token}").exists, "it has begun")
            backend.api.delete("Job", f"my-{run_id}-1", grace_seconds=0)

            assert ending.result().reason.startswith("Gone: Its Job was deleted")
        eventually(lambda: not running.objects("Pod"), "the run's own pod is gone")

    def test_files_that_cannot_be_brought(
        self, backend: Backend, running: Running, tmp_path: Path
    ) -> None:
        place = tmp_path / "brought" / "x"
        job = shell(tmp_path / "job", "true", inputs=(place,),
                    fetched={place: "nas://own:/gone"})  # fmt: skip

        with pytest.raises(ModelyardError, match="nothing at nas://own:/gone") as caught:
            run(backend, job)
        assert caught.value.code == "StagingFailed"

    def test_what_an_earlier_attempt_has_left_is_ended(
        self, running: Running, shared: SharedFolder, tmp_path: Path
    ) -> None:
        name, token = str(uuid.uuid4()), uuid.uuid4().hex
        first, second = (running.backend(number, name) for number in (1, 2))
        job = self.deaf(tmp_path / "job", shared, token)
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(first.run, job, print, threading.Event())
            eventually((running.nas / f"begun-{token}").exists, "it has begun")

            assert run(second, shell(tmp_path / "next", "true")) == (ExitStatus(0), [])
            assert not alive(token)
            assert "Gone" in ending.result().reason


def _claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }  # fmt: skip


def test_what_no_pod_can_be_is_refused(running: Running, tmp_path: Path) -> None:
    backend, job = running.backend(), shell(tmp_path / "job", "true")

    def refused(job: Workload) -> str:
        with pytest.raises(BadInputError) as caught:
            backend.check(job)
        return caught.value.code

    assert refused(dataclasses.replace(job, image="")) == "ImageNotRunnable"
    tpu = ResourceRequest(accelerator="TPU_V3", accelerators=1)
    assert refused(dataclasses.replace(job, resources=tpu)) == "ResourcesUnavailable"
