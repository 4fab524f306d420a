from __future__ import annotations

from infra.kubernetes import pods
from infra.kubernetes.cluster import ClusterConfig

_GIB = 2**30


def test_resources_of_a_component_may_be_requested_below_their_limits() -> None:
    found = pods.resources(
        cpu=2,
        memory=4 * _GIB,
        devices={"nvidia.com/gpu": 1},
        cpu_request=0.5,
        memory_request=_GIB,
    )

    assert found == {
        "limits": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
        # Of a device, both are equal: Kubernetes takes nothing else.
        "requests": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"},
    }


def test_requests_may_stand_alone() -> None:
    assert pods.resources(cpu_request=1, memory_request=1000) == {
        "requests": {"cpu": "1", "memory": "1000"}
    }


def test_no_resources_are_none() -> None:
    assert pods.resources() == {}
    assert pods.resources(devices={"nvidia.com/gpu": 0}) == {}


def test_a_pod_of_a_plain_cluster_may_be_on_any_node_and_leaves_a_lost_one_soon() -> None:
    spec = pods.nodes(ClusterConfig())

    assert set(spec) == {"tolerations"}
    assert [(one["key"], one["tolerationSeconds"]) for one in spec["tolerations"]] == [
        ("node.kubernetes.io/not-ready", 10), ("node.kubernetes.io/unreachable", 10),
    ]  # fmt: skip


def test_how_long_a_lost_node_is_waited_for_is_the_clusters_to_say() -> None:
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
           "tolerationSeconds": 600}  # fmt: skip
    spec = pods.nodes(ClusterConfig(tolerations=[own]))

    assert [one["tolerationSeconds"] for one in spec["tolerations"]] == [600, 10]


def test_a_later_variable_wins_and_stands_last() -> None:
    merged = pods.merged_env(
        [pods.env_value("A", "1"), pods.env_value("B", "1")], [pods.env_value("A", "2")], []
    )

    assert merged == [{"name": "B", "value": "1"}, {"name": "A", "value": "2"}]


def test_a_variable_of_the_cluster_may_use_a_secret() -> None:
    cluster = ClusterConfig(
        env={"CREDENTIALS": "me:$(PGPASS)"},
        secret_env={"PGPASS": {"name": "db", "key": "password"}},
    )

    assert [one["name"] for one in pods.cluster_env(cluster)] == ["PGPASS", "CREDENTIALS"]
    assert pods.cluster_env(cluster)[1]["value"] == "me:$(PGPASS)"


def test_no_shared_memory_leaves_the_usual() -> None:
    assert pods.shared_memory(0) == []
