from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.instance_types import InstanceType
from infra.kubernetes import capacity
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.capacity import Capacity, NodeCapacity, Quota, Taint
from infra.kubernetes.cluster import ClusterConfig
from tests.infra.kubernetes.scripted import Answer, Asked, ScriptedServer, kubeconfig, status
from tests.infra.kubernetes.shapes import shape

_GIB = 2**30
_H200 = {"nvidia.com/gpu.product": "NVIDIA-H200"}
_T4 = {"nvidia.com/gpu.product": "Tesla-T4"}
_LABELS = ("nvidia.com/gpu.product", "tenant", "zone")
_GPU_TAINT = Taint(key="nvidia.com/gpu", value="present", effect="NoSchedule")


def _node(
    cpu: float, memory_gib: float, gpus: int = 0, disk_gib: float = 100, **rest: Any
) -> NodeCapacity:
    amounts = {"cpu": cpu, "memory": memory_gib * _GIB, "ephemeral-storage": 100 * _GIB}
    return NodeCapacity(allocatable=amounts | ({"nvidia.com/gpu": gpus} if gpus else {}), **rest)


def _quota(name: str, resource: str, hard: float, used: float = 0) -> Capacity:
    return Capacity(quotas=(Quota(name=name, hard={resource: hard}, used={resource: used}),))


def _nodes(*nodes: NodeCapacity, **rest: Any) -> Capacity:
    return Capacity(nodes=nodes, labels=_LABELS, **rest)


def _refused(placement: Placement, found: Capacity, type_name: str = "mine") -> ClusterError:
    refused = capacity.find_shortage(placement, type_name, found)
    assert refused is not None
    assert refused.hint
    return refused


# What is known and what is not


def test_of_a_cluster_of_which_nothing_is_known_nothing_is_refused() -> None:
    assert capacity.find_shortage(Placement(shape("gpu.h200x8"), nodes=9), "x", Capacity()) is None


def test_a_capacity_is_plain_data_and_back() -> None:
    found = _nodes(
        _node(4, 16, labels=_T4, taints=(_GPU_TAINT,)),
        quotas=(Quota(name="q", hard={"pods": 3}, used={}),),
        most_gpus=8,
        tolerations=({"operator": "Exists"},),
    )

    assert Capacity(**json.loads(json.dumps(found.model_dump(mode="json")))) == found


# The bound of one run


def test_more_gpus_than_one_run_may_have_are_refused_with_the_numbers() -> None:
    refused = _refused(Placement(shape("gpu.h100x8"), nodes=2), Capacity(most_gpus=8))

    assert refused.code == "PoolLimitExceeded"
    assert "asks for 16 GPUs (2 nodes with 8 each), and one run may have 8" in refused.message


def test_as_many_as_one_run_may_have_are_not_refused() -> None:
    found = Capacity(most_gpus=8)

    assert capacity.find_shortage(Placement(shape("gpu.h100"), nodes=8), "x", found) is None


# Quotas


@pytest.mark.parametrize(
    ("resource", "hard", "said"),
    [
        ("requests.nvidia.com/gpu", 1, "asks for 2 nvidia.com/gpu, and the namespace's quota q "
         "allows 1 (1 used)"),
        ("cpu", 7, "asks for 8 cpu, and the namespace's quota q allows 7 (1 used)"),
        ("limits.cpu", 7.5, "asks for 8 cpu, and the namespace's quota q allows 7500m"),
        ("requests.memory", 31 * _GIB, "asks for 32Gi memory, and the namespace's quota q "
         "allows 31Gi"),
        ("pods", 1, "asks for 2 pods"),
        ("count/jobs.batch", 0, "asks for 1 jobs.batch, and the namespace's quota q allows 0"),
        ("count/services", 0, "asks for 1 services"),
        ("requests.ephemeral-storage", _GIB, "asks for 80Gi ephemeral-storage"),
    ],
)  # fmt: skip
def test_more_than_a_quota_allows_is_refused_with_the_numbers(
    resource: str, hard: float, said: str
) -> None:
    placement = Placement(
        shape("gpu.t4"), nodes=2, boot_storage_gib=30, data_storage_gib=10
    )  # 2 x 4 cores, 16 GiB, 1 GPU

    refused = _refused(placement, _quota("q", resource, hard, used=1))

    assert refused.code == "QuotaExceeded"
    assert said in refused.message


@pytest.mark.parametrize(
    ("resource", "hard"),
    [("requests.storage", 19 * _GIB), ("persistentvolumeclaims", 1), ("count/pods", 1)],
)
def test_data_storage_of_a_class_counts_as_storage(resource: str, hard: float) -> None:
    placement = Placement(shape("cpu.small"), nodes=2, data_storage_gib=10)
    found = _quota("q", resource, hard).model_copy(update={"local_data": False})

    assert _refused(placement, found).code == "QuotaExceeded"


@pytest.mark.parametrize(
    ("resource", "hard"),
    [
        ("requests.nvidia.com/gpu", 2), ("cpu", 8), ("memory", 32 * _GIB), ("pods", 2),
        ("configmaps", 0), ("requests.amd.com/gpu", 0), ("requests.storage", 0),
    ],
)  # fmt: skip
def test_what_a_quota_just_allows_or_does_not_speak_of_is_not_refused(
    resource: str, hard: float
) -> None:
    placement = Placement(shape("gpu.t4"), nodes=2, data_storage_gib=10)
    found = _quota("q", resource, hard, used=hard)

    assert capacity.find_shortage(placement, "x", found) is None


def test_what_others_use_is_waited_for() -> None:
    found = _quota("gpus", "requests.nvidia.com/gpu", 8, used=6)

    assert capacity.find_shortage(Placement(shape("gpu.h100x8")), "x", found) is None


# Nodes


def test_a_gpu_that_no_node_has_is_refused_with_those_there_are() -> None:
    found = _nodes(_node(64, 512, 8, labels=_T4), _node(64, 512))

    refused = _refused(Placement(shape("gpu.h200")), found, "gpu.h200")

    assert refused.code == "NodesLackGpu"
    assert "GPU of gpu.h200, NVIDIA-H200, for runs. There are: Tesla-T4." in refused.message


@pytest.mark.parametrize("nodes", [(), (_node(64, 512),)])
def test_no_gpu_at_all_is_said(nodes: tuple[NodeCapacity, ...]) -> None:
    refused = _refused(Placement(shape("gpu.t4")), _nodes(*nodes))

    assert refused.code == "NodesLackGpu"
    assert "There are: none." in refused.message


def test_a_gpu_without_a_product_is_told_by_its_resource() -> None:
    refused = _refused(Placement(shape("gpu.t4")), _nodes(_node(64, 512, 8)))

    assert "There are: nvidia.com/gpu." in refused.message


def test_of_a_device_of_another_name_the_nodes_are_asked() -> None:
    mine = InstanceType(cpu=1, memory_gib=1, gpus=1, gpu_resource="amd.com/gpu", gpu_kind="MI300")

    assert "MI300" in _refused(Placement(mine), _nodes(_node(64, 512, 8))).message


def test_a_run_that_may_do_without_gpus_fits_without() -> None:
    found = _nodes(_node(64, 512))
    placement = Placement(shape("gpu.t4"), allow_cpu=True)

    assert _refused(placement, found).code == "NodesLackGpu"
    without = capacity.without_gpus(placement.shape)
    assert (without.gpus, without.cpu, without.memory_gib) == (0, 4, 16)
    assert capacity.find_shortage(Placement(without), "gpu.t4", found) is None


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (Placement(InstanceType(cpu=9, memory_gib=1)), "asks for 9 cpu; the most that nodes have "
         "is 8 cpu"),
        (Placement(InstanceType(cpu=1, memory_gib=65)), "65Gi memory; the most that nodes have "
         "is 64Gi memory"),
        (Placement(shape("cpu.small"), data_storage_gib=80, boot_storage_gib=30),
         "110Gi ephemeral-storage; the most that nodes have is 100Gi ephemeral-storage"),
        # Each is to be had, but not on one node.
        (Placement(InstanceType(cpu=8, memory_gib=60)), "asks for 8 cpu, 60Gi memory; the most "
         "that nodes have is 8 cpu, 64Gi memory"),
    ],
)  # fmt: skip
def test_a_shape_larger_than_any_node_is_refused_with_the_numbers(
    placement: Placement, said: str
) -> None:
    found = _nodes(_node(8, 32), _node(4, 64))

    refused = _refused(placement, found, "cpu.huge")

    assert refused.code == "NodesTooSmall"
    assert "No node of the cluster is as large as cpu.huge" in refused.message
    assert said in refused.message


def test_only_nodes_with_the_gpu_count_for_a_gpu_shape() -> None:
    found = _nodes(_node(64, 512), _node(64, 512, 4, labels=_H200))

    refused = _refused(Placement(shape("gpu.h200x8").model_copy(update={"cpu": 8})), found)

    assert refused.code == "NodesTooSmall"
    assert "the most that nodes have is" in refused.message
    assert "4 nvidia.com/gpu" in refused.message


def test_a_label_that_no_node_has_is_refused() -> None:
    mine = InstanceType(cpu=1, memory_gib=1, node_selector={"zone": "a"})

    refused = _refused(Placement(mine), _nodes(_node(8, 32, labels={"zone": "b"})))

    assert refused.code == "NodesLackLabels"
    assert "zone=a" in refused.message


def test_of_a_label_that_was_not_looked_at_nothing_is_refused() -> None:
    mine = InstanceType(cpu=1, memory_gib=1, node_selector={"unheard-of": "a"})

    assert capacity.find_shortage(Placement(mine), "x", _nodes(_node(8, 32))) is None


def test_the_clusters_own_labels_count_too() -> None:
    found = _nodes(_node(8, 32), _node(64, 64, labels={"tenant": "b"}))
    mine = found.model_copy(update={"node_selector": {"tenant": "b"}})
    others = found.model_copy(update={"node_selector": {"tenant": "c"}})

    assert capacity.find_shortage(Placement(shape("cpu.xlarge")), "x", mine) is None
    assert _refused(Placement(shape("cpu.small")), others).code == "NodesLackLabels"


def _tainted(*tolerations: dict[str, Any]) -> ClusterError | None:
    taint = Taint(key="tenant", value="vision", effect="NoSchedule")
    found = _nodes(_node(8, 32, taints=(taint,)), tolerations=tolerations)
    return capacity.find_shortage(Placement(shape("cpu.small")), "x", found)


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "tenant", "value": "vision"},
        {"key": "tenant", "operator": "Equal", "value": "vision", "effect": "NoSchedule"},
        {"key": "tenant", "operator": "Exists"},
        {"operator": "Exists"},
        {"key": "tenant", "operator": "Exists", "effect": ""},
    ],
)
def test_a_taint_that_runs_tolerate_keeps_none_away(toleration: dict[str, Any]) -> None:
    assert _tainted({"key": "other", "operator": "Exists"}, toleration) is None


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "tenant", "value": "speech"},
        {"key": "tenant", "operator": "Exists", "effect": "NoExecute"},
        {"key": "tenants", "operator": "Exists"},
        {"operator": "Equal"},
    ],
)
def test_a_taint_that_runs_do_not_tolerate_does(toleration: dict[str, Any]) -> None:
    refused = _tainted(toleration)

    assert refused is not None
    assert refused.code == "NodesLackLabels"


def test_nodes_that_may_come_set_no_bound() -> None:
    found = _nodes(_node(1, 1), nodes_may_come=True)

    assert capacity.find_shortage(Placement(shape("gpu.h200x8")), "x", found) is None


# What the cluster says


def _of_the_api(name: str, labels: dict[str, str], cpu: str, **rest: Any) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": "16Gi", "hugepages-2Mi": "0", "pods": "110", **rest}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {},
        "status": {"allocatable": amounts},
    }


def _answers(**kinds: Answer | list[dict[str, Any]]) -> Any:
    def answer(asked: Asked) -> Answer:
        found = kinds[asked.path.rpartition("/")[2]]
        return found if isinstance(found, Answer) else Answer(200, {"items": found})

    return answer


@contextmanager
def _reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **kinds: Answer | list[dict[str, Any]]
) -> Iterator[Api]:
    with ScriptedServer(_answers(**kinds)) as server:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", server.url)))
        yield Api.connect(ClusterConfig())


def test_nodes_are_read_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tainted = _of_the_api("d", {}, "32")
    tainted["spec"]["taints"] = [
        {"key": "control", "effect": "NoSchedule"},
        {"key": "soft", "effect": "PreferNoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"},
    ]
    nodes = [
        _of_the_api("a", {}, "3920m"),
        _of_the_api("b", _T4, "8", **{"nvidia.com/gpu": "1"}),
        _of_the_api("c", {}, "7910m"),
        tainted,
        _of_the_api("e", {"zone": "x", "unasked": "y"}, "4"),
    ]
    cluster = ClusterConfig(most_gpus=3, node_selector={"zone": "x"}, storage_class="fast")

    with _reading(tmp_path, monkeypatch, nodes=nodes, resourcequotas=[]) as api:
        found = capacity.read(api, cluster, {"gpu.t4": shape("gpu.t4")})

    plain = {"memory": 16.0 * _GIB}
    assert found == Capacity(
        quotas=(),
        nodes=(
            NodeCapacity(labels=_T4, allocatable={"cpu": 8, "nvidia.com/gpu": 1} | plain),
            NodeCapacity(allocatable={"cpu": 7.91} | plain),
            NodeCapacity(
                taints=(Taint(key="control", effect="NoSchedule"),),
                allocatable={"cpu": 32} | plain,
            ),
            NodeCapacity(labels={"zone": "x"}, allocatable={"cpu": 4} | plain),
        ),
        labels=("nvidia.com/gpu.product", "zone"),
        most_gpus=3,
        local_data=False,
        node_selector={"zone": "x"},
    )


def test_quotas_are_read_but_those_that_are_not_surely_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quota(name: str, **spec: Any) -> dict[str, Any]:
        status = {"hard": {"requests.cpu": "10"}, "used": {"requests.cpu": "2500m"}}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    fresh = {"metadata": {"name": "fresh"}, "spec": {"hard": {"pods": "4"}}}
    quotas = [
        quota("all"),
        quota("running", scopes=["NotTerminating"]),
        quota("short", scopes=["Terminating"]),
        quota("class", scopeSelector={"matchExpressions": []}),
        fresh,
    ]

    with _reading(tmp_path, monkeypatch, nodes=[], resourcequotas=quotas) as api:
        found = capacity.read(api, ClusterConfig(), {})

    cpu = {"hard": {"requests.cpu": 10.0}, "used": {"requests.cpu": 2.5}}
    assert found.quotas == (
        Quota(name="all", **cpu),
        Quota(name="fresh", hard={"pods": 4}, used={}),
    )


def test_what_the_account_may_not_list_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(kind: str) -> Answer:
        asked = f'cannot list resource "{kind}" in API group "" at the cluster scope'
        return status(403, "Forbidden", f'{kind} is forbidden: User "me" {asked}')

    refused = {kind: forbidden(kind) for kind in ("nodes", "resourcequotas")}
    with _reading(tmp_path, monkeypatch, **refused) as api:
        found = capacity.read(api, ClusterConfig(most_gpus=1), {})

    assert found == Capacity(most_gpus=1, labels=("nvidia.com/gpu.product",))


def test_a_cluster_that_cannot_be_asked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = status(401, "Unauthorized", "Unauthorized")

    with (
        _reading(tmp_path, monkeypatch, nodes=[], resourcequotas=missing) as api,
        pytest.raises(ClusterError),
    ):
        capacity.read(api, ClusterConfig(), {})


class TestCouldHold:
    """Whether nodes that run nothing else could have a run's pods."""

    POD = {
        "nodeSelector": {"zone": "x"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [{"resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "1"}}}],
    }  # fmt: skip

    def _node(self, **more: Any) -> NodeCapacity:
        usual: dict[str, Any] = {
            "labels": {"zone": "x", "other": "y"},
            "allocatable": {"cpu": 8, "nvidia.com/gpu": 2},
        }
        return NodeCapacity(**(usual | more))

    @pytest.mark.parametrize(
        ("more", "count", "holds"),
        [
            ({}, 1, True),
            ({}, 2, True),
            ({}, 3, False),
            ({"labels": {"zone": "z"}}, 1, False),
            ({"allocatable": {"cpu": 1, "nvidia.com/gpu": 2}}, 1, False),
            ({"allocatable": {"cpu": 8}}, 1, False),
            ({"taints": (Taint(key="gpu", effect="NoSchedule"),)}, 2, True),
            ({"taints": (Taint(key="mine", effect="NoSchedule"),)}, 1, False),
        ],
    )
    def test_one_node(self, more: dict[str, Any], count: int, holds: bool) -> None:
        assert capacity.can_hold(self.POD, count, [self._node(**more)]) is holds

    def test_several_nodes_together(self) -> None:
        assert capacity.can_hold(self.POD, 3, [self._node(), self._node()])
        assert not capacity.can_hold(self.POD, 1, [])

    def test_the_largest_of_the_first_containers_counts(self) -> None:
        large = {"resources": {"requests": {"cpu": "9"}}}

        assert not capacity.can_hold({**self.POD, "initContainers": [large]}, 1, [self._node()])
