"""The values that the chart takes, and those that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python as helm
import pytest

from infra.kubernetes import cluster as clusters
from infra.settings import Settings
from tests.infra.kubernetes import charts

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"image": {}}, "repository"),
    "an empty image": ({"image": {"repository": ""}}, "repository"),
    "a digest that is none": (
        {"image": {"repository": "a/b", "digest": "sha256:12"}}, "digest"),
    "no place for artifacts": ({"storage": {"artifacts": ""}}, "artifacts"),
    "artifacts in a folder": ({"storage": {"artifacts": "/data"}}, "artifacts"),
    "a password in an address": (
        {"storage": {"artifacts": "s3://b", "endpoint": "http://u:p@host"}}, "endpoint"),
    "a database as an address": ({"database": {"prefect": "postgresql://u:p@h/d"}}, "prefect"),
    "a misspelt key": ({"workr": {}}, "workr"),
    "a misspelt key inside": ({"worker": {"replica": 2}}, "replica"),
    "two Prefect servers": ({"prefect": {"replicas": 2}}, "replicas"),
    "no worker": ({"worker": {"replicas": 0}}, "replicas"),
    "a pool that there is not": ({"worker": {"pools": ["tpu"]}}, "pools"),
    "a secret among the variables": ({"web": {"env": {"DB_PASSWORD": "x"}}}, "PASSWORD"),
    "a password in a variable": ({"runs": {"env": {"PROXY": "http://u:p@proxy"}}}, "PROXY"),
    "a number as a variable": ({"runs": {"env": {"THREADS": 4}}}, "THREADS"),
    "an instance type without memory": ({"instanceTypes": {"cpu.mine": {"cpu": 2}}}, "memory_gib"),
    "nas of two kinds": (
        {"runs": {"nas": {"n": {"claim": "c", "server": "s", "path": "/p"}}}}, "nas"),
    "an age to tidy up": ({"runs": {"graceSeconds": 7200}}, "graceSeconds"),
    "weeks of waiting": ({"runs": {"pendingMinutes": 20000}}, "pendingMinutes"),
    "a label that is none": ({"runs": {"nodeSelector": {"a b": "c"}}}, "a b"),
    "a label's value that is none": ({"runs": {"nodeSelector": {"a": "b c"}}}, "nodeSelector"),
    "a toleration of any value, and of one": (
        {"runs": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}, "value"),
    "a toleration of no key": ({"pods": {"tolerations": [{"value": "b"}]}}, "key"),
    "a time for what has none": (
        {"runs": {"tolerations": [{"key": "a", "tolerationSeconds": 3}]}}, "effect"),
    "a secret as it is": ({"runs": {"secretEnv": {"HF_TOKEN": "canary"}}}, "HF_TOKEN"),
    "nas without a path": ({"runs": {"nas": {"n": {"server": "s"}}}}, "nas"),
    "a port that only root has": ({"web": {"port": 80}}, "port"),
    "no such pull policy": ({"image": {"repository": "a", "pullPolicy": "Often"}}, "pullPolicy"),
    "an ingress to nothing": ({"ingress": {"enabled": True}}, "hosts"),
    "an upgrade by two at once": (
        {"mlflow": {"upgradeDatabase": True, "replicas": 2}}, "replicas"),
    "addresses without a length": (
        {"networkPolicy": {"database": {"cidrs": ["10.0.0.1"], "ports": [5432]}}}, "cidrs"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_the_schema_refuses(case: str) -> None:
    wrong, told = BAD[case]

    with pytest.raises(helm.HelmError, match=told):
        charts.sources(charts.values("least", **wrong))


def test_the_schema_knows_every_value_with_a_default() -> None:
    """Each default is named in the schema, and each name of the schema has a default."""
    with helm.Chart.load(charts.CHART) as chart:
        defaults, schema = chart.values, chart.schema
    assert schema is not None

    def walk(value: Any, rule: dict[str, Any], where: str) -> None:
        if "$ref" in rule:
            rule = schema["definitions"][rule["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and "properties" in rule:
            known = set(rule["properties"]) - {"global"}
            assert set(value) == known, where
            for key, inner in value.items():
                walk(inner, rule["properties"][key], f"{where}.{key}")

    walk(defaults, schema, "values")


def test_further_secrets_of_runs_are_told_and_none_of_ours_is_replaced(tmp_path: Path) -> None:
    of = {"secret": "theirs", "key": "k"}
    given = charts.values(
        "least", runs={"secretEnv": {"HF_TOKEN": of, "MODELYARD_DATABASE_URL": of}}
    )
    (told,) = [one for one in charts.objects(given) if "cluster.yaml" in (one.get("data") or {})]
    file = tmp_path / "cluster.yaml"
    file.write_text(told["data"]["cluster.yaml"])

    found = clusters.load(Settings(cluster=file)).secret_env

    assert (found["HF_TOKEN"].name, found["HF_TOKEN"].key) == ("theirs", "k")
    assert found["MODELYARD_DATABASE_URL"].name == "modelyard-database"


def test_a_namespace_of_digits_stays_a_name() -> None:
    found = charts.objects(charts.values("least", runs={"namespace": "123"}))

    named = {one["metadata"].get("namespace") for one in found}
    assert {"123", charts.NAMESPACE} <= named <= {"123", charts.NAMESPACE, None}
