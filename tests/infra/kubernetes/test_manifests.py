from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from infra.kubernetes import manifests, names
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.attempt_spec import Placement
from infra.kubernetes.cluster import ClusterConfig
from tests.infra.kubernetes.shapes import CASES, GOLDEN, OWNER, RUN, shape, wanted, written

_KUBERNETES = "1.36"
_CLUSTER = ClusterConfig(image="registry.example/modelyard:1")
_CANARY = "canary-3f9c"


def _job(
    placement: Placement | None = None, cluster: ClusterConfig = _CLUSTER, **changes: Any
) -> Any:
    return manifests.job(wanted(placement, **changes), cluster)


def _pod(*args: Any, **changes: Any) -> Any:
    return _job(*args, **changes)["spec"]["template"]["spec"]


def _container(*args: Any, **changes: Any) -> Any:
    (container,) = _pod(*args, **changes)["containers"]
    return container


def _env(*args: Any, **changes: Any) -> dict[str, Any]:
    found = _container(*args, **changes)["env"]
    assert len({one["name"] for one in found}) == len(found)
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in found}


def test_the_golden_files_are_those_of_the_cases() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_is_as_the_golden_file_has_it(case: str) -> None:
    assert written(case) == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_the_manifest(case: str) -> None:
    for document in yaml.safe_load_all(written(case)):
        assert kubernetes_validate.validate(document, _KUBERNETES, strict=True) == _KUBERNETES


def test_the_schema_refuses_what_is_wrong() -> None:
    job = _job()
    job["spec"]["template"]["spec"]["tolerations"] = [{"keys": "x"}]

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, _KUBERNETES, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_job_pods_and_service_have_the_same_labels_and_the_selector_finds_the_pods(
    case: str,
) -> None:
    attempt, cluster = CASES[case]
    job = manifests.job(attempt, cluster)
    service = manifests.service(attempt)
    labels = names.labels(attempt)

    assert job["metadata"]["labels"] == labels
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert (service is None) == (attempt.placement.nodes == 1)
    if service is not None:
        assert service["metadata"]["labels"] == labels
        assert service["spec"]["selector"].items() <= labels.items()
        assert "ownerReferences" not in service["metadata"]


def test_pods_with_gpus_have_their_runtime_class() -> None:
    cluster = _CLUSTER.model_copy(update={"gpu_runtime_class": "nvidia"})
    given = {
        True: InstanceType(cpu=1, memory_gib=1, gpus=1),
        False: InstanceType(cpu=1, memory_gib=1),
    }

    for has_gpu, asked in given.items():
        found = _pod(cluster=cluster, placement=Placement(asked))
        assert found.get("runtimeClassName") == ("nvidia" if has_gpu else None)


def test_a_pools_priority_class_comes_before_the_clusters() -> None:
    cluster = _CLUSTER.model_copy(update={"priority_class": "low"})

    assert _pod(cluster=cluster)["priorityClassName"] == "low"
    assert _pod(cluster=cluster, priority_class="high")["priorityClassName"] == "high"


@pytest.mark.parametrize("case", CASES)
def test_every_pod_meets_the_restricted_standard(case: str) -> None:
    """What "Pod Security Standards" of Kubernetes' documentation asks under "Restricted"."""
    pod = manifests.job(*CASES[case])["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is CASES[case][0].placement.makes_jobs
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not any("hostPath" in volume for volume in pod["volumes"])
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_a_run_has_exactly_the_devices_of_its_type(gpus: int) -> None:
    mine = InstanceType(
        cpu=1.5,
        memory_gib=3.5,
        gpus=gpus,
        gpu_resource="example.com/accelerator",
        node_selector={"accelerator": "mine"},
        tolerations=[{"key": "accelerator", "operator": "Exists"}],
    )

    pod = _pod(Placement(mine))
    resources = pod["containers"][0]["resources"]

    devices = {"example.com/accelerator": str(gpus)} if gpus else {}
    assert resources["limits"] == {"cpu": "1500m", "memory": "3584Mi", **devices}
    assert resources["requests"] == resources["limits"]
    assert pod["nodeSelector"] == {"accelerator": "mine"}
    assert pod["tolerations"][:-2] == [{"key": "accelerator", "operator": "Exists"}]


def test_a_toleration_of_both_stands_once_and_the_types_label_wins() -> None:
    gpu = shape("gpu.t4")
    cluster = _CLUSTER.model_copy(
        update={
            "tolerations": gpu.tolerations,
            "node_selector": {"nvidia.com/gpu.product": "any", "zone": "a"},
        }
    )

    pod = _pod(Placement(gpu), cluster)

    assert pod["tolerations"][:-2] == gpu.tolerations
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "Tesla-T4", "zone": "a"}


def test_several_nodes_are_one_indexed_job_whose_pods_have_names() -> None:
    attempt = wanted(Placement(shape("gpu.a100"), nodes=3))
    name = f"my-{RUN}-1"

    spec = manifests.job(attempt, _CLUSTER)["spec"]
    service = manifests.service(attempt, OWNER)

    assert service is not None
    assert spec["completionMode"] == "Indexed"
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (3, 3, 0)
    assert spec["template"]["spec"]["subdomain"] == service["metadata"]["name"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["metadata"]["ownerReferences"][0]["uid"] == OWNER["metadata"]["uid"]
    env = _env(Placement(shape("gpu.a100"), nodes=3))
    assert env["MODELYARD_NODES"] == "3"
    assert env["MODELYARD_MASTER"] == f"{name}-0.{name}"
    assert env["MODELYARD_NODE"]["fieldRef"]["fieldPath"] == (
        "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    )


def test_a_single_node_is_node_0_of_1() -> None:
    env = _env()

    assert (env["MODELYARD_NODES"], env["MODELYARD_NODE"]) == ("1", "0")
    assert env["MODELYARD_MASTER"] == "localhost"


def test_the_job_outlasts_the_runs_own_limit_by_what_starting_and_ending_take() -> None:
    cluster = _CLUSTER.model_copy(update={"pending_minutes": 5, "grace_seconds": 60})

    job = _job(Placement(shape("cpu.small"), seconds=0.5), cluster)
    spec = job["spec"]["template"]["spec"]

    assert spec["activeDeadlineSeconds"] == 1 + 5 * 60 + 60 + 600
    assert "activeDeadlineSeconds" not in job["spec"]  # which would count a queue as well
    assert "activeDeadlineSeconds" not in _job()["spec"]["template"]["spec"]


def test_data_on_the_nodes_disk_is_asked_of_it() -> None:
    placement = Placement(shape("cpu.small"), data_storage_gib=30)

    container = _container(placement)

    assert container["resources"]["requests"]["ephemeral-storage"] == "30Gi"
    assert "ephemeral-storage" not in container["resources"]["limits"]
    stored = _container(placement, _CLUSTER.model_copy(update={"storage_class": "fast"}))
    assert "ephemeral-storage" not in stored["resources"]["requests"]


@pytest.mark.parametrize(
    ("mounts", "paths"),
    [
        ((), []),
        (("b",), ["/nas/b"]),
        (("b", "a", "b"), ["/nas/a", "/nas/b"]),
        (("*",), ["/nas/a", "/nas/b"]),
        (("*", "a"), ["/nas/a", "/nas/b"]),
    ],
)
def test_network_folders_are_mounted_by_their_ids(
    mounts: tuple[str, ...], paths: list[str]
) -> None:
    cluster = ClusterConfig(
        image="i", nas={"b": {"claim": "c"}, "a": {"server": "s", "path": "/p"}}
    )
    placement = Placement(shape("cpu.small"), mounts=mounts)

    container = _container(placement, cluster)

    mounted = [one for one in container["volumeMounts"] if one["name"].startswith("nas")]
    assert [one["mountPath"] for one in mounted] == paths
    assert not any(one.get("readOnly") for one in mounted)
    setting = json.loads(_env(placement, cluster)["MODELYARD_NAS"])
    assert sorted(setting.values()) == paths
    assert all(path == f"/nas/{one}" for one, path in setting.items())


def test_a_network_folder_that_the_cluster_lacks_is_refused() -> None:
    cluster = ClusterConfig(image="i", nas={"data": {"claim": "c"}})

    with pytest.raises(BadInputError, match=r"no NAS with the id other\. It has: data") as caught:
        _job(Placement(shape("cpu.small"), mounts=("data", "other")), cluster)

    assert caught.value.code == "NasUnknown"


def test_the_runs_image_goes_before_the_clusters() -> None:
    assert _container()["image"] == _CLUSTER.image
    assert _container(Placement(shape("cpu.small"), image="mine:2"))["image"] == "mine:2"


def test_no_image_at_all_is_refused() -> None:
    with pytest.raises(ClusterError, match="No image is named") as caught:
        _job(cluster=ClusterConfig())

    assert caught.value.code == "ImageMissing"


def test_a_command_and_its_variables_stay_as_they_are() -> None:
    """Kubernetes makes $ of $$, and fills in $(NAME)."""
    container = _container(command=("sh", "-c", "echo $(HOME) $$"), env={"PRICE": "$(HOME) $$ $"})

    env = {one["name"]: one.get("value") for one in container["env"]}
    assert container["args"] == ["sh", "-c", "echo $$(HOME) $$$$"]
    assert env["PRICE"] == "$$(HOME) $$$$ $$"


def test_the_run_may_change_the_clusters_variables_but_not_those_that_are_fixed() -> None:
    cluster = ClusterConfig(image="i", env={"A": "cluster", "B": "cluster", "HOME": "/cache"})

    env = _env(cluster=cluster, env={"B": "run", "MODELYARD_ATTEMPT": "7"}, attempt=2)

    assert (env["A"], env["B"], env["HOME"]) == ("cluster", "run", "/cache")
    assert env["MODELYARD_ATTEMPT"] == "2"


def test_no_secrets_value_is_in_a_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELYARD_DATABASE_URL", "MODELYARD_S3_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, _CANARY)
    cluster = ClusterConfig(
        image="i",
        secret="all-of-it",
        secret_env={"WANDB_API_KEY": {"name": "wandb", "key": "token"}},
    )
    # The run's own variables do not undo the reference, as where a process handed on its own.
    attempt = wanted(Placement(shape("gpu.t4"), nodes=2), env={"WANDB_API_KEY": _CANARY})

    job = manifests.job(attempt, cluster)
    service = manifests.service(attempt, OWNER)

    assert _CANARY not in json.dumps([job, service])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [one for one in container["env"] if one["name"] == "WANDB_API_KEY"] == [
        {
            "name": "WANDB_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "token"}},
        }
    ]
    assert container["envFrom"] == [{"secretRef": {"name": "all-of-it"}}]
