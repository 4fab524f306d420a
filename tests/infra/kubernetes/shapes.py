"""The attempts whose manifests are kept under ``golden/``.

``python -m tests.infra.kubernetes.shapes`` writes them anew, for a look at the difference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from infra import instance_types
from infra.instance_types import InstanceType
from infra.kubernetes import manifests
from infra.kubernetes.attempt_spec import AttemptSpec, Placement
from infra.kubernetes.cluster import ClusterConfig
from infra.settings import Settings

GOLDEN = Path(__file__).parent / "golden"
RUN = "0b0e7a3c-5d1f-4222-8333-123456789abc"
OWNER = {"metadata": {"name": f"my-{RUN}-2", "uid": "7f0c5a52-0a3e-4a55-9a7e-2d0f2b9c1d11"}}


def shape(name: str) -> InstanceType:
    """A built-in instance type."""
    return instance_types.find(name, Settings(instance_types=None))


def wanted(placement: Placement | None = None, **changes: Any) -> AttemptSpec:
    """An attempt like many."""
    return replace(
        AttemptSpec(
            flow_run_id=RUN,
            attempt=1,
            pool="gpu",
            flow="train",
            run_name="first-try",
            experiment="Default",
            placement=placement or Placement(shape("cpu.small")),
        ),
        **changes,
    )


_PLAIN = ClusterConfig(image="registry.example/modelyard:1")
_STORED = _PLAIN.model_copy(update={"storage_class": "fast"})
_SHARED = ClusterConfig(
    image="registry.example/modelyard:1",
    nas={
        "data": {"server": "10.0.0.5", "path": "/exports/data"},
        "Team_A.models": {"claim": "models"},
    },
)
_PRIVATE = ClusterConfig(
    image="registry.example/modelyard:1",
    image_pull_secrets=["registry-account"],
    image_pull_policy="Always",
    service_account="runs",
    config_map="addresses",
    secret="credentials",
    env={"TZ": "Asia/Seoul", "HF_HOME": "/modelyard/home/hub"},
    secret_env={"WANDB_API_KEY": {"name": "wandb", "key": "token"}},
    run_as_user=2000,
    run_as_group=2001,
    fs_group=2002,
    node_selector={"tenant": "vision"},
    tolerations=[{"key": "tenant", "operator": "Equal", "value": "vision"}],
    priority_class="low",
    pending_minutes=30,
    finished_seconds=600,
    grace_seconds=45,
)

CASES: dict[str, tuple[AttemptSpec, ClusterConfig]] = {
    "cpu-small": (wanted(pool="cpu"), _PLAIN),
    "gpu": (wanted(Placement(shape("gpu.t4"))), _PLAIN),
    "eight-gpus": (wanted(Placement(shape("gpu.h100x8"), boot_storage_gib=200)), _PLAIN),
    "several-nodes": (
        wanted(Placement(shape("gpu.a100x8"), nodes=4, seconds=7200), attempt=2),
        _PLAIN,
    ),
    "data-on-the-node": (
        wanted(Placement(shape("cpu.large"), data_storage_gib=100, boot_storage_gib=50)),
        _PLAIN,
    ),
    "data-of-a-class": (
        wanted(Placement(shape("cpu.large"), data_storage_gib=100.5, boot_storage_gib=50)),
        _STORED,
    ),
    "nas": (wanted(Placement(shape("cpu.small"), mounts=("*",))), _SHARED),
    "private-image": (
        wanted(
            Placement(shape("gpu.l4"), image="private.example/team/image@sha256:" + "0" * 64),
            env={"PREFECT_LOGGING_LEVEL": "DEBUG", "PRICE": "$(HOME) costs $5"},
        ),
        _PRIVATE,
    ),
    "pipeline": (
        wanted(Placement(shape("cpu.small"), makes_jobs=True), flow="pipeline-run", pool="cpu"),
        _PRIVATE.model_copy(update={"pipeline_service_account": "pipelines"}),
    ),
    "long-names": (
        wanted(run_name="아주 긴 이름 " * 40, experiment="Größe/№ 7: " + "x" * 200, flow="train"),
        _PLAIN,
    ),
    "schedule-slot": (
        wanted(
            schedule="3c2f1c9a-2b1d-4d6e-9f0a-111111111111",
            slot="2026-03-29T02:30:00+02:00[Europe/Berlin]",
        ),
        _PLAIN,
    ),
    "deadline": (wanted(Placement(shape("cpu.small"), seconds=90.5)), _PLAIN),
}


def written(case: str) -> str:
    """The manifests of a case as its golden file has them."""
    attempt, cluster = CASES[case]
    documents = [manifests.job(attempt, cluster), manifests.service(attempt, OWNER)]
    return yaml.safe_dump_all(
        [one for one in documents if one], sort_keys=False, allow_unicode=True, width=99
    )


if __name__ == "__main__":
    for old in GOLDEN.glob("*.yaml"):
        old.unlink()
    for name in CASES:
        (GOLDEN / f"{name}.yaml").write_text(written(name), encoding="utf-8")
