from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import instance_types
from infra.kubernetes import doctor
from infra.kubernetes.capacity import Capacity, NodeCapacity
from infra.kubernetes.checks import Check
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.secret_checks import SecretFacts
from infra.kubernetes.transport import RetryPolicy
from infra.settings import Settings
from tests.infra.kubernetes.scripted import Answer, Asked, ScriptedServer, kubeconfig, status

_TYPES = instance_types.load_all(Settings())
_VARIABLES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MODELYARD_DATABASE_URL")


def _thing(name: str, **rest: Any) -> dict[str, Any]:
    labels = rest.pop("labels", {})
    return {
        "metadata": {"name": name, "labels": labels, "annotations": rest.pop("annotations", {})},
        **rest,
    }


def _node(name: str, gpus: int = 0, *, ready: bool = True, **labels: str) -> dict[str, Any]:
    given = {"nvidia.com/gpu.product": labels["product"]} if "product" in labels else {}
    allocatable = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "500Gi", "pods": "110"}
    return _thing(
        name,
        labels=given,
        spec={},
        status={
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            "allocatable": allocatable | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
        },
    )


@pytest.mark.parametrize(
    ("release", "result"),
    [
        ("v1.36.0", "ok"),
        ("v1.33.4-gke.1", "ok"),
        ("1.33+", "ok"),
        ("v2.0.0", "ok"),
        ("v1.32.9", "failed"),
        ("", "warning"),
    ],
)
def test_the_version(release: str, result: str) -> None:
    found = doctor.version(release)

    assert found.result == result
    assert (found.result == "ok") == (not found.remedy)


class TestNamespace:
    def test_it_is_there(self) -> None:
        assert doctor.namespace(ClusterConfig(), "runs", _thing("runs")).result == "ok"

    def test_it_is_not(self) -> None:
        found = doctor.namespace(ClusterConfig(), "runs", None)

        assert found.result == "failed"
        assert "kubectl create namespace runs" in found.remedy

    def test_it_is_being_deleted(self) -> None:
        going = _thing("runs", status={"phase": "Terminating"})

        assert doctor.namespace(ClusterConfig(), "runs", going).result == "failed"

    @pytest.mark.parametrize(
        ("volume", "level", "result"),
        [
            ({"server": "s", "path": "/p"}, "restricted", "failed"),
            ({"server": "s", "path": "/p"}, "baseline", "ok"),
            ({"claim": "c"}, "restricted", "warning"),
        ],
    )
    def test_restricted_pods_mount_no_server(
        self, volume: dict[str, str], level: str, result: str
    ) -> None:
        cluster = ClusterConfig.model_validate({"nas": {"shared": volume}})
        labels = {"pod-security.kubernetes.io/enforce": level}

        assert doctor.namespace(cluster, "runs", _thing("runs", labels=labels)).result == result


class TestRights:
    def test_all_that_is_needed(self) -> None:
        assert [doctor.right(one, []).result for one in doctor.RIGHTS] == ["ok"] * 7

    def test_one_that_is_missing(self) -> None:
        jobs = doctor.RIGHTS[0]
        found = doctor.right(jobs, ["list", "delete"])

        assert found.result == "failed"
        assert "list, delete of jobs.batch" in found.remedy

    def test_one_that_goes_without(self) -> None:
        nodes = next(one for one in doctor.RIGHTS if one.resource == "nodes")
        found = doctor.right(nodes, ["list"])

        assert found.result == "warning"
        assert nodes.lost in found.message


class TestNodes:
    def _checks(self, *nodes: dict[str, Any], **cluster: Any) -> dict[str, Check]:
        return {one.name: one for one in doctor.nodes(ClusterConfig(**cluster), list(nodes))}

    def test_with_gpus(self) -> None:
        found = self._checks(_node("a", 8, product="NVIDIA-H200"), _node("b"))

        assert {name: one.result for name, one in found.items()} == {"nodes": "ok", "gpus": "ok"}
        assert "8 in 1 nodes" in found["gpus"].message

    def test_without_a_device_plugin(self) -> None:
        found = self._checks(_node("a", 0, product="NVIDIA-H200"), _node("b", 8))

        assert found["device plugin"].result == "failed"
        assert "a" in found["device plugin"].message
        assert found["gpus"].result == "ok"

    def test_a_vendor_that_is_seen_on_the_bus(self) -> None:
        node = _node("a")
        node["metadata"]["labels"] = {
            "feature.node.kubernetes.io/pci-0302_10de.present": "true",
        }

        assert self._checks(node)["device plugin"].result == "failed"

    def test_none_has_gpus(self) -> None:
        assert self._checks(_node("a"))["gpus"].result == "warning"
        assert "gpus" not in self._checks(_node("a"), nodes_may_come=True)

    def test_one_that_is_not_ready(self) -> None:
        found = list(doctor.nodes(ClusterConfig(), [_node("a", ready=False), _node("b")]))

        assert [one.result for one in found[:2]] == ["warning", "ok"]
        assert "Not ready: a." in found[0].message

    def test_none_is_there(self) -> None:
        assert self._checks()["nodes"].result == "failed"
        assert self._checks(nodes_may_come=True)["nodes"].result == "ok"


class TestInstanceTypes:
    def _capacity(self, *products: str) -> Capacity:
        amounts = {"cpu": 128.0, "memory": 2.0**41, "ephemeral-storage": 2.0**41, "pods": 110.0}
        nodes = [NodeCapacity(allocatable=amounts)]
        nodes += [
            NodeCapacity(
                labels={"nvidia.com/gpu.product": product},
                allocatable={**amounts, "nvidia.com/gpu": 4.0},
            )
            for product in products
        ]
        return Capacity(nodes=tuple(nodes), labels=("nvidia.com/gpu.product",))

    def test_those_that_some_node_has(self) -> None:
        found = list(doctor.instance_types(_TYPES, self._capacity("NVIDIA-H200")))

        assert found[0].result == "ok"
        assert "gpu.h200" in found[0].message
        assert "gpu.t4, " in found[1].message
        assert "(no node has their GPUs)" in found[1].message
        assert found[1].result == "warning"
        assert "gpu.h200x8 (no node is as large)" in found[1].message
        assert len(found) == 2  # one line, however many there are

    def test_that_there_is_no_t4_is_no_fault_of_a_cluster_with_other_gpus(self) -> None:
        types = {name: _TYPES[name] for name in ("cpu.small", "gpu.h200", "gpu.t4")}
        found = list(doctor.instance_types(types, self._capacity("NVIDIA-H200")))

        assert [one.result for one in found] == ["ok", "ok"]

    def test_no_gpus_at_all(self) -> None:
        found = list(doctor.instance_types(_TYPES, self._capacity()))

        assert [one.result for one in found] == ["ok", "warning"]

    def test_no_room_for_the_default(self) -> None:
        tiny = Capacity(nodes=(NodeCapacity(allocatable={"cpu": 1.0, "memory": 2.0**30}),))
        found = {one.name: one for one in doctor.instance_types(_TYPES, tiny)}

        assert found["type cpu.small"].result == "failed"
        assert found["instance types"].result == "warning"
        assert "cpu.large" in found["instance types"].message


class TestStorage:
    def test_nodes_own_disks(self) -> None:
        assert doctor.storage_class(ClusterConfig(), []).result == "ok"

    def test_the_class(self) -> None:
        annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
        there = [_thing("slow", annotations=annotations), _thing("fast")]

        found = doctor.storage_class(ClusterConfig(storage_class="fast"), there)
        assert found.result == "ok"
        assert "default class is slow" in found.message
        missing = doctor.storage_class(ClusterConfig(storage_class="other"), there)
        assert missing.result == "failed"
        assert "fast, slow" in missing.remedy

    @pytest.mark.parametrize(
        ("phase", "modes", "result"),
        [
            ("Bound", ["ReadWriteMany"], "ok"),
            ("Bound", ["ReadWriteOnce"], "warning"),
            ("Pending", ["ReadWriteMany"], "warning"),
            ("Lost", ["ReadWriteMany"], "failed"),
        ],
    )
    def test_a_claim(self, phase: str, modes: list[str], result: str) -> None:
        claim = _thing("data", spec={"accessModes": modes}, status={"phase": phase})

        assert doctor.claim("shared", "data", claim).result == result

    def test_a_claim_that_is_not_there(self) -> None:
        assert doctor.claim("shared", "data", None).result == "failed"


class TestQuota:
    def _quota(self, used: str) -> dict[str, Any]:
        hard = {"requests.nvidia.com/gpu": "8", "requests.memory": "1Ti"}
        status = {"hard": hard, "used": {"requests.nvidia.com/gpu": used}}
        return _thing("gpus", status=status)

    def test_with_room(self) -> None:
        found = doctor.quota(self._quota("4"))

        assert found.result == "ok"
        assert "requests.nvidia.com/gpu 4 of 8" in found.message

    def test_used_up(self) -> None:
        assert doctor.quota(self._quota("8")).result == "warning"

    def test_a_limit_range(self) -> None:
        limits = [{"type": "Container", "max": {"memory": "64Gi"}, "default": {"cpu": "1"}}]

        found = doctor.limit_range(_thing("l", spec={"limits": limits}))
        assert "Container max memory 64Gi" in found.message


def test_runs_have_an_image() -> None:
    assert doctor.image(ClusterConfig(image="i")).result == "ok"
    assert doctor.image(ClusterConfig()).result == "warning"


_FORBIDDEN = 'is forbidden: User "a" cannot get resource "x" in API group ""'
_SECRET = {"MODELYARD_DATABASE_URL": "canary"}


def _whole(asked: Asked) -> Answer:
    """A cluster that has everything."""
    namespaced = "/api/v1/namespaces/runs"
    objects: dict[str, Any] = {
        "/version": {"gitVersion": "v1.36.0"},
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": {"status": {"allowed": True}},
        namespaced: _thing("runs"),
        "/api/v1/nodes": {"items": [_node("a", 8, product="NVIDIA-H200")]},
        "/apis/storage.k8s.io/v1/storageclasses": {"items": [_thing("fast")]},
        f"{namespaced}/resourcequotas": {"items": []},
        f"{namespaced}/limitranges": {"items": []},
        f"{namespaced}/serviceaccounts/runs": _thing("runs"),
        f"{namespaced}/secrets/registry": _thing("r", type="kubernetes.io/dockerconfigjson"),
        f"{namespaced}/secrets/keys": _thing("keys", data=_SECRET),
        f"{namespaced}/configmaps/urls": _thing("urls", data=dict.fromkeys(_VARIABLES[:2], "u")),
        f"{namespaced}/persistentvolumeclaims/data": _thing(
            "data", spec={"accessModes": ["ReadWriteMany"]}, status={"phase": "Bound"}
        ),
    }
    if asked.path in objects:
        return Answer(body=objects[asked.path])
    return status(404, "NotFound", f'"{asked.path}" not found')


_CLUSTER = ClusterConfig.model_validate(
    {
        "image": "i",
        "image_pull_secrets": ["registry"],
        "service_account": "runs",
        "config_map": "urls",
        "secret": "keys",
        "storage_class": "fast",
        "nas": {"shared": {"claim": "data"}},
    }
)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(doctor, "_PATIENCE", RetryPolicy(attempts=2, first_wait=0.001))
    with ScriptedServer(_whole) as made:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", made.url)))
        yield made


class TestExamine:
    def test_a_cluster_that_has_everything(self, server: ScriptedServer) -> None:
        found = doctor.examine(_CLUSTER, _TYPES)

        assert {one.name for one in found if one.result == "failed"} == set()
        assert {"access", "version", "may: pods/log", "gpus", "nas shared"} <= {
            one.name for one in found
        }
        assert "canary" not in str(found)
        assert all(asked.method == "GET" or "review" in asked.path for asked in server.asked)

    def test_an_empty_one(self, server: ScriptedServer) -> None:
        def empty(asked: Asked) -> Answer:
            plural = asked.path.rsplit("/", 1)[-1]
            lists = {"nodes", "storageclasses", "resourcequotas", "limitranges"}
            return Answer(body={"items": []}) if plural in lists else _missing(asked)

        def _missing(asked: Asked) -> Answer:
            kept = "/version" in asked.path or "review" in asked.path
            return _whole(asked) if kept else status(404, "NotFound", "x not found")

        server.answers = [empty]
        failed = {one.name for one in doctor.examine(_CLUSTER, _TYPES) if one.result == "failed"}

        assert failed >= {
            "namespace",
            "nodes",
            "storage class",
            "nas shared",
            "pull secret registry",
            "service account",
            "variables",
        }

    def _guarded(self, server: ScriptedServer) -> None:
        def guarded(asked: Asked) -> Answer:
            if "review" in asked.path:
                return Answer(body={"status": {"allowed": False}})
            return _whole(asked) if asked.path == "/version" else status(403, "", _FORBIDDEN)

        server.answers = [guarded]

    def test_an_account_that_may_do_nothing(self, server: ScriptedServer) -> None:
        self._guarded(server)

        found = doctor.examine(_CLUSTER, _TYPES)

        failed = {one.name for one in found if one.result == "failed"}
        assert failed == {f"may: {one.role_name}" for one in doctor.RIGHTS if not one.lost}
        unseen = {one.name for one in found if one.result == "unseen"}
        assert unseen >= {"namespace", "storage class", "variables", "secrets", "service account"}
        assert all(one.remedy for one in found if one.result == "unseen")

    def test_what_the_deployment_saw_of_secrets_stands_in_for_them(
        self, server: ScriptedServer
    ) -> None:
        self._guarded(server)
        seen = {
            "registry": SecretFacts(type="Opaque"),
            "keys": SecretFacts(keys=frozenset(_VARIABLES)),
        }

        found = {one.name: one for one in doctor.examine(_CLUSTER, _TYPES, seen)}

        assert found["variables"].result == "ok"
        assert found["pull secret registry"].result == "failed"
        assert "secrets" not in found

    def test_credentials_that_are_no_good(self, server: ScriptedServer) -> None:
        def stranger(asked: Asked) -> Answer:
            public = asked.path == "/version"
            return _whole(asked) if public else status(401, "Unauthorized", "Unauthorized")

        server.answers = [stranger]
        found = doctor.examine(_CLUSTER, _TYPES)

        assert [one.result for one in found].count("failed") == 1
        assert "log in again" in found[-1].remedy

    def test_nobody_answers(self, server: ScriptedServer) -> None:
        server.answers = [status(503, "ServiceUnavailable", "starting")]

        found = doctor.examine(_CLUSTER, _TYPES)

        assert [(one.name, one.result) for one in found] == [("access", "failed")]

    def test_no_kubeconfig(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

        found = doctor.examine(_CLUSTER, _TYPES)

        assert [one.result for one in found] == ["failed"]
        assert "no kubeconfig" in found[0].message
