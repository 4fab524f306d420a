"""The admission policy: which Jobs the worker's and the pipelines' accounts may not make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import cel
import pytest

from infra.kubernetes import cluster as clusters
from infra.kubernetes import manifests
from infra.settings import Settings
from tests.infra.kubernetes import charts, shapes
from tests.infra.kubernetes.charts import Object

DATABASES = {"name": "databases"}


@pytest.fixture(scope="module")
def whole() -> list[Object]:
    return charts.objects(charts.values("whole"))


@pytest.fixture(scope="module")
def policy(whole: list[Object]) -> Object:
    (found,) = [one for one in whole if one["kind"] == "ValidatingAdmissionPolicy"]
    return found


@pytest.fixture(scope="module")
def run(whole: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Object:
    """The Job of a run, as the worker makes it."""
    file = tmp_path_factory.mktemp("cluster") / "cluster.yaml"
    file.write_text(charts.one(whole, "ConfigMap", "cluster")["data"]["cluster.yaml"])
    return manifests.job(shapes.wanted(), clusters.load(Settings(cluster=file)))


def refusals(policy: Object, job: Object, user: str) -> list[str]:
    """Why the API server refuses the creation of a Job; evaluated as it evaluates a policy."""
    known: dict[str, Any] = {"object": job, "request": {"userInfo": {"username": user}}}
    if not all(cel.evaluate(one["expression"], known) for one in policy["matchConditions"]):
        return []
    variables: dict[str, Any] = {}
    for one in policy["variables"]:
        variables[one["name"]] = cel.evaluate(one["expression"], {**known, "variables": variables})
    known["variables"] = variables
    return [
        one["message"]
        for one in policy["validations"]
        if not cel.evaluate(one["expression"], known)
    ]


ACCOUNTS = (
    "system:serviceaccount:modelyard:modelyard-worker",
    "system:serviceaccount:trainings:modelyard-pipelines",
)


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_job_of_a_run_is_let_through(policy: Object, run: Object, account: str) -> None:
    names = {one["name"] for one in run["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert "MODELYARD_DATABASE_URL" in names
    assert refusals(policy["spec"], run, account) == []


def container(name: str, **parts: Any) -> dict[str, Any]:
    return {"name": name, "image": "theirs", **parts}


def variable(secret: str, key: str) -> dict[str, Any]:
    return {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}]}


def adding(**parts: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod.update(parts)


def volume(source: str, **parts: Any) -> Callable[[dict[str, Any]], None]:
    return adding(volumes=[{"name": "v", source: parts}])


@pytest.mark.parametrize(
    "changed",
    [
        adding(containers=[container("run", **variable("databases", "prefect-url"))]),
        adding(containers=[container("component", **variable("databases", "catalogue-url"))]),
        adding(containers=[container("component", **variable("registry", ".dockerconfigjson"))]),
        adding(containers=[container("run")],
               initContainers=[container("x", **variable("storage", "secret-access-key"))]),
        adding(containers=[container("run", envFrom=[{"secretRef": {"name": "door"}}])]),
        volume("secret", secretName="databases"),
        volume("projected", sources=[{"secret": DATABASES}]),
        volume("csi", driver="x", nodePublishSecretRef=DATABASES),
        volume("hostPath", path="/"),
        adding(serviceAccountName="somebody"),
    ],
)  # fmt: skip
def test_what_would_read_a_secret_of_ours_is_refused(
    policy: Object, run: Object, changed: Callable[[dict[str, Any]], None]
) -> None:
    job = copy.deepcopy(run)
    changed(job["spec"]["template"]["spec"])

    assert len(refusals(policy["spec"], job, ACCOUNTS[1])) == 1
    assert refusals(policy["spec"], job, "somebody-else") == []


@pytest.mark.parametrize(
    "changed",
    [
        adding(containers=[container("component", **variable("hub", "token"))]),
        adding(containers=[container("component", envFrom=[{"configMapRef": {"name": "x"}}])]),
        volume("secret", secretName="hub"),
        volume("projected", sources=[{"configMap": {"name": "x"}}]),
        volume("persistentVolumeClaim", claimName="x"),
        adding(serviceAccountName="modelyard-pipelines"),
    ],
)
def test_a_components_own_secrets_are_let_through(
    policy: Object, run: Object, changed: Callable[[dict[str, Any]], None]
) -> None:
    job = copy.deepcopy(run)
    changed(job["spec"]["template"]["spec"])

    assert refusals(policy["spec"], job, ACCOUNTS[1]) == []


def test_the_policy_holds_where_runs_are(whole: list[Object], policy: Object) -> None:
    (binding,) = [one for one in whole if one["kind"] == "ValidatingAdmissionPolicyBinding"]
    selector = policy["spec"]["matchConstraints"]["namespaceSelector"]

    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert selector["matchLabels"] == {"kubernetes.io/metadata.name": "trainings"}
    assert policy["spec"]["failurePolicy"] == "Fail"


def test_every_account_that_makes_jobs_is_under_it(whole: list[Object], policy: Object) -> None:
    makes = {
        (one["subjects"][0]["namespace"], one["subjects"][0]["name"])
        for one in whole
        if one["kind"] == "RoleBinding" and _makes_jobs(whole, one["roleRef"]["name"])
    }
    (condition,) = policy["spec"]["matchConditions"]

    assert {f"system:serviceaccount:{space}:{name}" for space, name in makes} == set(ACCOUNTS)
    assert all(account in condition["expression"] for account in ACCOUNTS)


def _makes_jobs(found: Iterable[Object], role: str) -> bool:
    return any(
        "jobs" in rule["resources"] and "create" in rule["verbs"]
        for one in found
        if one["kind"] == "Role" and one["metadata"]["name"] == role
        for rule in one["rules"]
    )


def test_who_may_not_make_policies_goes_without() -> None:
    found = charts.objects(charts.values("least", admissionPolicy={"enabled": False}))

    assert not [one for one in found if one["kind"].startswith("ValidatingAdmission")]
