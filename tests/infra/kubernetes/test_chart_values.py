"""The values that the chart takes, and those that it refuses."""

from __future__ import annotations

from typing import Any

import helm_python as helm
import pytest

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
