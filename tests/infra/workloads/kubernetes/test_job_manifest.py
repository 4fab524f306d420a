from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from infra.errors import BadInputError
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.cluster import ClusterConfig, NasVolume, SecretKey
from infra.workloads.base import ResourceRequest, Sidecar
from infra.workloads.kubernetes import job_manifest
from infra.workloads.kubernetes.job_manifest import COMPONENT, STAGE_IN, STAGE_OUT
from tests.cluster import pod_security
from tests.infra.workloads.kubernetes.shapes import (
    BASE,
    CASES,
    GOLDEN,
    ROOT,
    SIDECAR,
    built,
    job,
    settings,
    written,
)

_KUBERNETES = "1.36"


def _pod(manifest: Any) -> Any:
    return manifest["spec"]["template"]["spec"]


def _containers(manifest: Any) -> dict[str, Any]:
    pod = _pod(manifest)
    return {one["name"]: one for one in (*pod["initContainers"], *pod["containers"])}


def test_the_golden_files_are_those_of_the_cases() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_is_as_the_golden_file_has_it(case: str) -> None:
    assert written(case) == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_the_manifest(case: str) -> None:
    assert kubernetes_validate.validate(CASES[case], _KUBERNETES, strict=True) == _KUBERNETES


@pytest.mark.parametrize("case", CASES)
def test_no_pod_gets_more_rights_than_it_needs(case: str) -> None:
    pod = _pod(CASES[case])

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["restartPolicy"] == "Never"
    for container in _containers(CASES[case]).values():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("case", CASES)
def test_a_component_has_nothing_of_ours(case: str) -> None:
    containers = _containers(CASES[case])

    assert [name for name in containers if name != "server"] == [STAGE_IN, COMPONENT, STAGE_OUT]
    component = containers[COMPONENT]
    assert "envFrom" not in component
    assert not [one for one in component["env"] if one["name"].startswith("MODELYARD")]
    assert component["image"] == "python:3.11"


def test_credentials_reach_the_containers_that_stage() -> None:
    containers = _containers(CASES["settings-of-kubernetes"])

    for name in (STAGE_IN, STAGE_OUT):
        assert containers[name]["envFrom"] == [
            {"configMapRef": {"name": "modelyard"}}, {"secretRef": {"name": "modelyard-keys"}}
        ]  # fmt: skip
        variables = {one["name"]: one for one in containers[name]["env"]}
        assert "MODELYARD_S3_SECRET_ACCESS_KEY" in variables
        assert "K" not in variables


def test_words_are_what_the_component_is_given() -> None:
    """Kubernetes makes ``$`` of ``$$``, and would fill in ``$(NAME)``."""
    component = _containers(built(job(environment={"PRICE": "5$"})))[COMPONENT]

    assert component["command"] == ["sh", "-c", "echo $$(hostname) $$$$"]
    assert component["args"] == ["--text", "$$(HOME)"]
    assert component["env"] == [{"name": "PRICE", "value": "5$$"}]


def test_the_image_s_own_program_runs_where_no_command_is_given() -> None:
    component = _containers(built(job(command=(), arguments=())))[COMPONENT]

    assert not {"command", "args"} & component.keys()


def test_a_variable_of_the_job_wins_over_one_of_its_settings() -> None:
    config = {"fieldPathAsEnv": [{"name": "A", "fieldPath": "metadata.name"}]}
    made = built(job(environment={"A": "mine"}, kubernetes=settings(config)))

    assert _containers(made)[COMPONENT]["env"] == [{"name": "A", "value": "mine"}]


def test_labels_of_the_platform_stay() -> None:
    config = {"podMetadata": {"labels": {"modelyard/flow-run": "another", "team": "blue"}}}
    template = built(job(kubernetes=settings(config)))["spec"]["template"]

    assert template["metadata"]["labels"]["team"] == "blue"
    assert template["metadata"]["labels"]["modelyard/flow-run"] != "another"


def test_what_is_only_read_cannot_be_written() -> None:
    data = Path("/data/table.csv")
    component = _containers(built(job(inputs=(data,))))[COMPONENT]
    mounts = {one["mountPath"]: one.get("readOnly", False) for one in component["volumeMounts"]}

    assert mounts[str(data)] is True
    assert mounts[str(ROOT / "tasks" / "train")] is False


@pytest.mark.parametrize(
    ("asked", "staging"),
    [
        ({}, {"runAsUser": 1000, "runAsGroup": 1000}),
        ({"runAsUser": 0}, {"runAsUser": 1000, "runAsGroup": 1000}),
        ({"runAsUser": 7, "runAsGroup": 8}, {"runAsUser": 7, "runAsGroup": 8}),
        ({"runAsNonRoot": True}, {"runAsUser": 1000, "runAsGroup": 1000}),
    ],
)
def test_our_containers_are_the_components_user_and_never_root(
    asked: dict[str, Any], staging: dict[str, Any]
) -> None:
    containers = _containers(built(job(kubernetes=settings({"securityContext": asked}))))

    found = containers[STAGE_OUT]["securityContext"]
    assert {key: found[key] for key in staging} == staging
    assert found["runAsNonRoot"] is True
    assert found["capabilities"] == {"drop": ["ALL"]}
    assert containers[COMPONENT]["securityContext"].items() >= asked.items()


RESTRICTED = ClusterConfig(image="registry.example/modelyard:1", component_user=1234)


def test_with_a_user_of_components_a_restricted_namespace_takes_them() -> None:
    made = built(job(), RESTRICTED)

    assert pod_security.violations("restricted", _pod(made)) == []
    users = {one["securityContext"]["runAsUser"] for one in _containers(made).values()}
    assert users == {1234}
    assert {"name": "HOME", "value": "/tmp"} in _containers(made)[COMPONENT]["env"]


def test_without_one_the_component_alone_is_refused_there() -> None:
    (first, *more) = pod_security.violations("restricted", _pod(built(job())))

    assert "component" in first
    assert not any("stage" in told for told in (first, *more))


def test_what_the_pipeline_says_of_a_user_wins() -> None:
    asked = settings({"securityContext": {"runAsUser": 0}})
    component = _containers(built(job(kubernetes=asked), RESTRICTED))[COMPONENT]

    assert component["securityContext"]["runAsUser"] == 0
    assert not [one for one in component["env"] if one["name"] == "HOME"]


@pytest.mark.parametrize(
    ("kind", "device"),
    [
        ("nvidia.com/gpu", "nvidia.com/gpu"),
        ("NVIDIA_TESLA_K80", "nvidia.com/gpu"),
        ("amd.com/gpu", "amd.com/gpu"),
    ],
)
def test_devices_have_the_names_of_the_nodes(kind: str, device: str) -> None:
    made = built(job(resources=ResourceRequest(accelerator=kind, accelerators=3)))

    assert _containers(made)[COMPONENT]["resources"]["limits"] == {device: "3"}


@pytest.mark.parametrize(("gpus", "runtime"), [(1, "nvidia"), (0, None)])
def test_components_with_gpus_have_their_runtime_class(gpus: int, runtime: str | None) -> None:
    cluster = ClusterConfig(image="registry.example/modelyard:1", gpu_runtime_class="nvidia")
    made = built(
        job(resources=ResourceRequest(accelerator="nvidia.com/gpu", accelerators=gpus)), cluster
    )

    assert _pod(made).get("runtimeClassName") == runtime


def test_a_sidecar_runs_beside_the_component_with_its_own_resources() -> None:
    pod, containers = _pod(CASES["sidecar"]), _containers(CASES["sidecar"])
    server, component = containers["server"], containers[COMPONENT]

    assert list(containers) == [STAGE_IN, "server", COMPONENT, STAGE_OUT]
    assert server["restartPolicy"] == "Always"
    assert server["resources"]["limits"] == {"cpu": "2500m", "memory": "12Gi",
                                             "nvidia.com/gpu": "1"}  # fmt: skip
    assert "nvidia.com/gpu" not in component["resources"]["limits"]
    assert pod["runtimeClassName"] == "nvidia"
    assert server["command"][-1] == "exec serve $$PORT"


def test_a_sidecar_sees_the_common_folder_and_no_credentials() -> None:
    containers = _containers(CASES["sidecar"])
    server, component = containers["server"], containers[COMPONENT]

    (shared, shm) = server["volumeMounts"]
    assert shared["mountPath"] == "/modelyard/server"
    assert shared in component["volumeMounts"]
    assert "readOnly" not in shared
    assert shm == {"name": "shm", "mountPath": "/dev/shm"}
    assert shm["name"] not in [one["name"] for one in component["volumeMounts"]]
    assert "envFrom" not in server
    assert server["env"] == [{"name": "PORT", "value": "8000"}]


def test_a_pod_reserves_what_its_sidecar_requests_beside_its_largest_container() -> None:
    reserved = job_manifest.requests(
        job(sidecar=SIDECAR, resources=ResourceRequest(cpu=0.5, memory=2**29))
    )

    assert reserved == (3.0, 13 * 2**30, 1)
    assert job_manifest.requests(job(sidecar=Sidecar("s", "i", (), Path("/x")))) == (
        0.2, 2**30 + 2**28, 0,
    )  # fmt: skip


def test_a_sidecar_may_run_where_nobody_is_root() -> None:
    made = built(job(sidecar=SIDECAR), RESTRICTED)

    assert pod_security.violations("restricted", _pod(made)) == []
    assert {"name": "HOME", "value": "/tmp"} in _containers(made)["server"]["env"]


def test_a_device_that_no_node_has() -> None:
    with pytest.raises(BadInputError, match="TPU_V3, which is no device") as caught:
        built(job(resources=ResourceRequest(accelerator="TPU_V3", accelerators=1)))
    assert caught.value.code == "ResourcesUnavailable"


def test_a_cluster_without_an_image_of_ours() -> None:
    with pytest.raises(ClusterError, match="names no image") as caught:
        built(job(), ClusterConfig())
    assert caught.value.code == "ImageMissing"


def test_a_nas_that_the_cluster_does_not_have() -> None:
    with pytest.raises(BadInputError, match="no NAS with the id gone") as caught:
        built(job(folders={"/mnt/a": "nas://gone:/"}))
    assert caught.value.code == "NasUnknown"


@pytest.mark.parametrize("field", ["fetched", "sent"])
def test_a_nas_that_files_are_staged_through_is_mounted(field: str) -> None:
    share = ClusterConfig(image="i", nas={"team": NasVolume(server="nas.example", path="/export")})
    made = built(job(**{field: {ROOT / "model": "nas://team:/models/1"}}), share)

    volumes = made["spec"]["template"]["spec"]["volumes"]
    assert [one["nfs"]["server"] for one in volumes if "nfs" in one] == ["nas.example"]


def test_a_folder_that_is_on_no_nas() -> None:
    with pytest.raises(BadInputError, match="is not a folder of a NAS") as caught:
        built(job(folders={"/mnt/a": "s3://bucket/a"}), base=BASE)
    assert caught.value.code == "FolderElsewhere"


@pytest.mark.parametrize(
    "asked",
    [
        {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "secret"}}}]},
        {"env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "url"}}}]},
        {"volumes": [{"name": "v", "secret": {"secretName": "s3"}}]},
    ],
)
def test_a_component_that_asks_for_a_credential_of_the_platform(asked: dict[str, Any]) -> None:
    secret_env = {
        "MODELYARD_S3_SECRET_ACCESS_KEY": SecretKey(name="s3", key="secret"),
        "HF_TOKEN": SecretKey(name="hub", key="token"),
    }
    cluster = ClusterConfig(image="ours:1", secret="keys", secret_env=secret_env)
    with pytest.raises(BadInputError, match="the platform's credentials") as caught:
        built(job(kubernetes=asked), cluster)
    assert caught.value.code == "SecretReserved"

    own = {"volumes": [{"name": "v", "secret": {"secretName": "hub"}}]}
    assert built(job(kubernetes=own), cluster)


def test_an_instance_gives_its_nodes_and_its_disk() -> None:
    """The component's own labels win; what lies on the node counts against one limit."""
    pod = _pod(CASES["instances"])
    component = _containers(CASES["instances"])[COMPONENT]

    assert pod["nodeSelector"] == {"gpu": "mine", "kind": "fast"}
    assert {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    assert component["resources"]["limits"] == {"ephemeral-storage": "120Gi"}
    assert component["resources"]["requests"]["ephemeral-storage"] == "120Gi"
    assert pod["volumes"][0]["emptyDir"] == {"sizeLimit": "100Gi"}


def test_inputs_and_outputs_are_on_a_volume_of_the_storage_class() -> None:
    case = CASES["instances-with-a-storage-class"]
    claim = _pod(case)["volumes"][0]["ephemeral"]["volumeClaimTemplate"]

    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"]["requests"] == {"storage": "100Gi"}
    assert _containers(case)[COMPONENT]["resources"]["limits"] == {"ephemeral-storage": "20Gi"}
