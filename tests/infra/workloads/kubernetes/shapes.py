"""Components to be made Jobs of, and their golden files.

``python -m tests.infra.workloads.kubernetes.shapes`` writes the files anew.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from infra.instance_types import InstanceType
from infra.kubernetes.cluster import ClusterConfig, NasVolume, SecretKey
from infra.workloads.base import ResourceRequest, Sidecar, Workload
from infra.workloads.kubernetes import job_manifest
from infra.workloads.kubernetes.job_manifest import ANY_NODE, InstanceSpec, JobIdentity
from infra.workloads.kubernetes.staging_plan import plan
from pipelines import platform

GOLDEN = Path(__file__).with_name("golden")
RUN = "0193b0c2-7d1e-7c53-9a43-5d1f1a2b3c4d"
BASE = "s3://bucket/staging/runs/x/jobs/y"
CLUSTER = ClusterConfig(image="registry.example/modelyard:1")
ROOT = Path(f"/modelyard/home/runs/{RUN}")
OWNER = {"metadata": {"name": f"my-{RUN}-1", "uid": "5c2f3a52-0000-4000-8000-000000000000"}}


def job(**changes: Any) -> Workload:
    """A component of a container, which reads nothing."""
    return replace(
        Workload(
            name="train",
            image="python:3.11",
            command=("sh", "-c", "echo $(hostname) $$"),
            arguments=("--text", "$(HOME)"),
            folder=ROOT / "tasks" / "train",
            outputs=(ROOT / "artifacts" / "train" / "executor_output.json",),
        ),
        **changes,
    )


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a pod that settings of Kubernetes ask for."""
    return platform.resolve(platform.read(config), {})


def built(
    job: Workload, cluster: ClusterConfig = CLUSTER, base: str = BASE,
    instances: InstanceSpec = ANY_NODE, **named: Any,
) -> Any:  # fmt: skip
    """A component's Job."""
    labels = job_manifest.labels(RUN, 1)
    called = JobIdentity(f"my-{RUN}-1-0a1b2c3d", "89abcdef", labels, **named)
    uploaded = dict.fromkeys(job.inputs, f"{base}/input")
    made = plan(job, uploaded, base)
    return job_manifest.build_job(job, cluster, called, made, base, instances)


def _name(text: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": text}}


_EVERYTHING = {
    "secretAsEnv": [
        {"secretNameParameter": _name("keys"), "keyToEnv": [{"secretKey": "k", "envVar": "K"}]}
    ],
    "secretAsVolume": [{"secretName": "files", "mountPath": "/secret", "optional": True}],
    "configMapAsEnv": [
        {"configMapName": "words", "keyToEnv": [{"configMapKey": "w", "envVar": "W"}]}
    ],
    "configMapAsVolume": [{"configMapName": "words", "mountPath": "/words"}],
    "pvcMount": [{"constant": "shared", "mountPath": "/data", "subPath": "below"}],
    "nodeSelector": {"labels": {"kind": "fast"}},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeAffinity": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}], "weight": 5}
    ],
    "podAffinity": [
        {"matchPodLabels": {"app": "x"}, "topologyKey": "kubernetes.io/hostname", "anti": True}
    ],
    "podMetadata": {"labels": {"team": "blue"}, "annotations": {"why": "because"}},
    "imagePullSecret": [{"secretName": "registry"}],
    "imagePullPolicy": "Always",
    "activeDeadlineSeconds": 600,
    "fieldPathAsEnv": [{"name": "POD", "fieldPath": "metadata.name"}],
    "emptyDirMounts": [{"volumeName": "room", "mountPath": "/room", "sizeLimit": "1Gi"}],
    "genericEphemeralVolume": [
        {
            "volumeName": "passing", "mountPath": "/passing", "size": "5Gi",
            "accessModes": ["ReadWriteOnce"], "defaultStorageClass": True,
        }
    ],
    "enabledSharedMemory": {"size": "2Gi"},
    "securityContext": {"runAsUser": 1234, "runAsGroup": 99, "runAsNonRoot": True},
    "podResourceClaims": [{"resourceClaimTemplateName": "one-gpu"}],
}  # fmt: skip
_DRESSED = ClusterConfig(
    image="registry.example/modelyard:1",
    image_pull_policy="IfNotPresent",
    image_pull_secrets=["ours"],
    config_map="modelyard",
    secret="modelyard-keys",
    env={"MODELYARD_S3_REGION": "here"},
    secret_env={"MODELYARD_S3_SECRET_ACCESS_KEY": SecretKey(name="s3", key="secret")},
    node_selector={"pool": "training"},
    tolerations=[{"key": "training", "operator": "Exists"}],
    priority_class="low",
    grace_seconds=10,
)
_NAS = ClusterConfig(
    image="registry.example/modelyard:1",
    nas={"team": NasVolume(server="nas.example", path="/export"), "own": NasVolume(claim="own")},
)

INSTANCES = InstanceSpec(
    "gpu.mine",
    InstanceType(
        cpu=4, memory_gib=16, gpus=1, node_selector={"gpu": "mine", "kind": "any"},
        tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    ),
    count=2, boot_storage_gib=20, data_storage_gib=100,
)  # fmt: skip

SIDECAR = Sidecar(
    name="server",
    image="registry.example/server:1",
    command=("sh", "-c", "exec serve $PORT"),
    folder=Path("/modelyard/server"),
    environment={"PORT": "8000"},
    resources=ResourceRequest(
        cpu=2.5, memory=12 * 2**30, accelerator="nvidia.com/gpu", accelerators=1
    ),
    shared_memory=2**30,
)

CASES: dict[str, Any] = {
    "plain": built(job()),
    "owned": built(job(), owner=OWNER),
    "resources": built(
        job(
            resources=ResourceRequest(
                cpu=2, memory=4 * 2**30, accelerator="nvidia.com/gpu", accelerators=2,
                cpu_request=0.5, memory_request=2**30,
            )
        )
    ),
    "artifacts": built(
        job(
            inputs=(Path("/data/table.csv"),),
            fetched={ROOT / "brought" / "0a" / "model": "s3://bucket/models/1"},
            sent={ROOT / "artifacts" / "train": "s3://bucket/staging/artifacts/p/1/train"},
        )
    ),
    "settings-of-kubernetes": built(
        job(kubernetes=settings(_EVERYTHING), environment={"PRICE": "5$"}), _DRESSED
    ),
    "instances": built(
        job(kubernetes=settings({"nodeSelector": {"labels": {"kind": "fast"}}})),
        instances=INSTANCES,
    ),
    "instances-with-a-storage-class": built(
        job(), CLUSTER.model_copy(update={"storage_class": "fast"}), instances=INSTANCES
    ),
    "nas": built(job(folders={"/mnt/ours": "nas://team:/a/b"}), _NAS, "nas://own:/staging/x"),
    "sidecar": built(
        job(sidecar=SIDECAR, resources=ResourceRequest(cpu=0.5, memory=2**30)),
        _DRESSED.model_copy(update={"gpu_runtime_class": "nvidia"}), instances=INSTANCES,
    ),
    "non-root": built(
        job(kubernetes=settings({"securityContext": {"runAsNonRoot": True}}), command=())
    ),
}  # fmt: skip


def written(case: str) -> str:
    """The manifest of a case as its golden file has it."""
    text: str = yaml.safe_dump(CASES[case], sort_keys=False, width=99)
    return text


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in CASES:
        (GOLDEN / f"{name}.yaml").write_text(written(name), encoding="utf-8")
