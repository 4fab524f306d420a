"""The rights of the chart's accounts."""

from __future__ import annotations

import pytest
import yaml

from tests.infra.kubernetes import charts
from tests.infra.kubernetes.charts import Object


@pytest.fixture(scope="module", params=charts.NAMES)
def rendered(request: pytest.FixtureRequest) -> list[Object]:
    return charts.objects(charts.values(request.param))


@pytest.fixture(scope="module")
def whole() -> list[Object]:
    return charts.objects(charts.values("whole"))


def of(kind: str, found: list[Object]) -> list[Object]:
    return [one for one in found if one["kind"] == kind]


WORKER = {
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list", "watch", "delete"},
    ("", "pods/log"): {"get"},
    ("", "services"): {"create", "get", "list", "delete"},
    ("", "events"): {"get", "list"},
    ("", "resourcequotas"): {"get", "list"},
    ("", "limitranges"): {"get", "list"},
    ("", "persistentvolumeclaims"): {"get"},
    ("", "namespaces"): {"get"},
    ("", "serviceaccounts"): {"get"},
    ("", "configmaps"): {"get"},
}
DEPLOY = {("", "secrets"): {"get"}}
PIPELINES = {
    ("batch", "jobs"): {"create", "get", "list", "watch", "delete"},
    ("", "pods"): {"get", "list", "watch", "delete"},
    ("", "pods/log"): {"get"},
    ("", "events"): {"get", "list"},
    ("", "persistentvolumeclaims"): {"create", "get", "list", "delete"},
}


def rights(role: Object) -> dict[tuple[str, str], set[str]]:
    return {
        (group, resource): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def test_roles_have_these_rights_and_no_other(rendered: list[Object]) -> None:
    found = {one["metadata"]["name"].rpartition("-")[2]: rights(one)
             for one in of("Role", rendered)}  # fmt: skip
    (cluster,) = of("ClusterRole", rendered)

    assert found == {"worker": WORKER, "pipelines": PIPELINES, "deploy": DEPLOY}
    assert rights(cluster) == {
        ("", "nodes"): {"get", "list"},
        ("storage.k8s.io", "storageclasses"): {"get", "list"},
    }


def test_the_deploy_job_may_read_the_secrets_that_runs_name_and_no_other(
    whole: list[Object],
) -> None:
    (role,) = [one for one in of("Role", whole) if one["metadata"]["name"].endswith("-deploy")]
    (rule,) = role["rules"]
    (told,) = [one for one in of("ConfigMap", whole) if "cluster.yaml" in one["data"]]
    named = yaml.safe_load(told["data"]["cluster.yaml"])

    assert set(rule["resourceNames"]) == {
        *(one["name"] for one in named["secret_env"].values()), *named["image_pull_secrets"]
    }  # fmt: skip


def test_nodes_are_seen_only_where_that_is_wanted() -> None:
    found = charts.objects(charts.values("least", worker={"seeNodes": False}))

    assert of("ClusterRole", found) == of("ClusterRoleBinding", found) == []


def test_rights_are_bound_where_runs_are(whole: list[Object]) -> None:
    bound = {
        (one["metadata"]["namespace"], one["roleRef"]["name"]):
            [(to["name"], to["namespace"]) for to in one["subjects"]]
        for one in of("RoleBinding", whole)
    }  # fmt: skip
    (everywhere,) = of("ClusterRoleBinding", whole)

    assert bound == {
        ("trainings", "modelyard-worker"): [("modelyard-worker", "modelyard")],
        ("trainings", "modelyard-pipelines"): [("modelyard-pipelines", "trainings")],
        ("trainings", "modelyard-deploy"): [("modelyard-deploy", "modelyard")],
    }
    assert {one["metadata"]["namespace"] for one in of("Role", whole)} == {"trainings"}
    assert [one["name"] for one in everywhere["subjects"]] == ["modelyard-worker"]
    assert everywhere["roleRef"]["name"] == of("ClusterRole", whole)[0]["metadata"]["name"]
