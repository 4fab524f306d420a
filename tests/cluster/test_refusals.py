"""What a real API server refuses is refused here, and told at the same field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import objects
from tests.cluster.refusals import Refusal
from tests.cluster.store import Store

pytestmark = pytest.mark.soak

_MOUNT = {"name": "v", "mountPath": "/v"}
_BOTH = {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}
_KEY = {"secretKeyRef": {"name": "s", "key": "k"}}
_CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {}}}}


def _one(**more: Any) -> dict[str, Any]:
    return {"containers": [objects.container(**more)]}


def _resources(**found: Any) -> dict[str, Any]:
    return _one(resources=found)


_PODS: list[tuple[dict[str, Any], str, str]] = [
    ({"containers": []}, "spec.containers", "Required value"),
    (_one(name="Run"), "spec.containers[0].name", "RFC 1123 label"),
    (_one(image=""), "spec.containers[0].image", "Required value"),
    (_one(imagePullPolicy="Often"), "spec.containers[0].imagePullPolicy", "Unsupported value"),
    ({"containers": [objects.container()] * 2}, "spec.containers[1].name", "Duplicate value"),
    (_one(volumeMounts=[_MOUNT]), "spec.containers[0].volumeMounts[0].name", 'Not found: "v"'),
    ({**_one(volumeMounts=[_MOUNT, _MOUNT]), "volumes": [{"name": "v"}]},
     "spec.containers[0].volumeMounts[1].mountPath", "must be unique"),
    ({"volumes": [{"name": "v"}, {"name": "v"}]}, "spec.volumes[1].name", "Duplicate value"),
    ({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]},
     "spec.volumes[0].hostPath", "may not specify more than 1 volume type"),
    ({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "relative"}}]},
     "spec.volumes[0].nfs.path", "must be an absolute path"),
    ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": _CLAIM}}]},
     "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]", "Required value"),
    (_one(env=[{"name": "A=B"}]), "spec.containers[0].env[0].name", "other than '='"),
    (_one(env=[{"name": "A", "value": "1", "valueFrom": _KEY}]),
     "spec.containers[0].env[0].valueFrom", "`value` is not empty"),
    (_one(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.none"}}}]),
     "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath", "field label not supported"),
    (_resources(limits={"memory": "much"}), "spec.containers[0].resources.limits[memory]",
     "quantities must match"),
    (_resources(limits={"memory": "-1"}), "spec.containers[0].resources.limits[memory]",
     "greater than or equal to 0"),
    (_resources(limits={"gpus": "1"}), "spec.containers[0].resources.limits[gpus]",
     "must be a standard resource"),
    (_resources(limits={"nvidia.com/gpu": "0.5"}),
     "spec.containers[0].resources.limits[nvidia.com/gpu]", "must be an integer"),
    (_resources(requests={"nvidia.com/gpu": "1"}), "spec.containers[0].resources.limits",
     "Limit must be set for non overcommitable resources"),
    (_resources(**_BOTH), "spec.containers[0].resources.requests",
     "must be equal to nvidia.com/gpu limit of 2"),
    (_resources(requests={"cpu": "2"}, limits={"cpu": "1"}),
     "spec.containers[0].resources.requests", "must be less than or equal to cpu limit of 1"),
    (_one(ports=[{"containerPort": 0}]), "spec.containers[0].ports[0].containerPort", "65535"),
    (_one(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
     "spec.containers[0].securityContext", "cannot set `allowPrivilegeEscalation` to false"),
    (_one(securityContext={"runAsUser": -1}), "spec.containers[0].securityContext.runAsUser",
     "must be between 0"),
    ({"securityContext": {"seccompProfile": {"type": "Localhost"}}},
     "spec.securityContext.seccompProfile.localhostProfile", "Required value"),
    ({"hostname": "A.b"}, "spec.hostname", "RFC 1123 label"),
    ({"subdomain": "a_b"}, "spec.subdomain", "RFC 1123 label"),
    ({"restartPolicy": "Sometimes"}, "spec.restartPolicy", "Unsupported value"),
    ({"nodeSelector": {"a b": "c"}}, "spec.nodeSelector", "name part must consist of"),
    ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds", "must be between 1"),
    ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator", "must be Exists"),
    ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
     "spec.tolerations[0].operator", "value must be empty"),
]  # fmt: skip


def _refused(kind: str, obj: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        Store().create(kind, obj)
    return refused.value


def _told(refusal: Refusal, field: str, message: str) -> None:
    assert (refusal.code, refusal.reason) == (422, "Invalid")
    causes = {cause["field"]: cause["message"] for cause in refusal.details["causes"]}
    assert field in causes, causes
    assert message in refusal.message


@pytest.mark.parametrize(("spec", "field", "message"), _PODS)
def test_pods(spec: dict[str, Any], field: str, message: str) -> None:
    _told(_refused("Pod", objects.pod(**spec)), field, message)


_INDEXED = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
_ALWAYS = {"restartPolicy": "Always"}
_POLICY = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}
_JOBS: list[tuple[dict[str, Any], str, str]] = [
    ({"pod_spec": _ALWAYS}, "spec.template.spec.restartPolicy", '"OnFailure", "Never"'),
    ({"pod_spec": {"containers": []}}, "spec.template.spec.containers", "Required value"),
    ({"backoffLimit": -1}, "spec.backoffLimit", "must be greater than or equal to 0"),
    ({"completionMode": "Indexed", "parallelism": 2}, "spec.completions",
     "Required value: when completion mode is Indexed"),
    ({"name": "j" * 62, **_INDEXED}, "metadata.name", "invalid DNS label"),
    ({"name": "j" * 64}, "spec.template.labels", "must be no more than 63 characters"),
    ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, "spec.successPolicy",
     "requires indexed completion mode"),
    ({**_INDEXED, "successPolicy": {"rules": [{"succeededIndexes": "2"}]}},
     "spec.successPolicy.rules[0].succeededIndexes", "too large index"),
    ({**_INDEXED, "successPolicy": {"rules": [{}]}}, "spec.successPolicy.rules[0]",
     "at least one of succeededCount or succeededIndexes"),
    ({"podFailurePolicy": _POLICY}, "spec.podFailurePolicy.rules[0].onExitCodes.values[0]",
     "must not be 0 for the In operator"),
    ({"podFailurePolicy": {"rules": []}, "podReplacementPolicy": "TerminatingOrFailed"},
     "spec.podReplacementPolicy", "Unsupported value"),
    ({"podFailurePolicy": {"rules": []}, "pod_spec": {"restartPolicy": "OnFailure"}},
     "spec.template.spec.restartPolicy", 'only "Never" is supported'),
    ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector", "not auto-generated"),
    ({"maxFailedIndexes": 1}, "spec.maxFailedIndexes", "requires indexed completion mode"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "field", "message"), _JOBS)
def test_jobs(given: dict[str, Any], field: str, message: str) -> None:
    _told(_refused("Job", objects.job(**given)), field, message)


@pytest.mark.parametrize(
    ("kind", "obj", "field", "message"),
    [
        ("Service", {"metadata": {"name": "1a"}, "spec": {"clusterIP": "None"}}, "metadata.name",
         "DNS-1035"),
        ("Service", {"metadata": {"name": "s"}, "spec": {}}, "spec.ports", "Required value"),
        ("Secret", {"metadata": {"name": "s"}, "data": {"a b": "eA=="}}, "data[a b]",
         "valid config key"),
        ("ConfigMap", {"metadata": {"name": "c"}, "data": {"a": "x" * 1048577}}, "data",
         "Too long"),
        ("ConfigMap", {"metadata": {"name": "c", "labels": {"a": "-"}}}, "metadata.labels",
         "a valid label must be"),
        ("ConfigMap", {"metadata": {}}, "metadata.name", "name or generateName is required"),
        ("Namespace", {"metadata": {"name": "a.b"}}, "metadata.name", "RFC 1123 label"),
        ("PersistentVolumeClaim", {"metadata": {"name": "c"}, "spec": {}}, "spec.accessModes",
         "at least 1 access mode"),
        ("Event", {"metadata": {"name": "e"}, "involvedObject": {"namespace": "another"}},
         "involvedObject.namespace", "does not match event.namespace"),
    ],
)  # fmt: skip
def test_other_kinds(kind: str, obj: dict[str, Any], field: str, message: str) -> None:
    _told(_refused(kind, obj), field, message)


@pytest.mark.parametrize(
    ("kind", "obj", "changes", "message"),
    [
        ("Job", objects.job("x"), {"spec": {"template": {"spec": {"hostname": "h"}}}},
         "spec.template: Invalid value"),
        ("Job", objects.job("x"), {"spec": {"completions": 3}}, "field is immutable"),
        ("Pod", objects.pod("x"), {"spec": {"hostname": "h"}}, "pod updates may not change"),
        ("Service", {"metadata": {"name": "x"}, "spec": {"clusterIP": "None"}},
         {"spec": {"clusterIP": "10.0.0.1"}}, "may not change once set"),
        ("Secret", {"metadata": {"name": "x"}, "immutable": True}, {"data": {"a": "eA=="}},
         "field is immutable when `immutable` is set"),
        ("PersistentVolumeClaim", {"metadata": {"name": "x"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
         {"spec": {"accessModes": ["ReadWriteMany"]}}, "spec is immutable after creation"),
    ],
)  # fmt: skip
def test_what_is_fixed(
    kind: str, obj: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    store = Store()
    store.create(kind, obj)
    with pytest.raises(Refusal, match=message) as refused:
        store.patch(kind, "default", "x", changes)
    assert refused.value.code == 422


def test_what_may_change() -> None:
    store = Store()
    store.create("Pod", objects.pod())
    store.patch("Pod", "default", "p", {"metadata": {"labels": {"a": "b"}}})
    store.create("Job", objects.job(suspend=True, **_INDEXED))
    store.patch("Job", "default", "j", {"spec": {"completions": 3, "parallelism": 3}})
    changed = store.patch("Job", "default", "j", {"spec": {"suspend": False}})
    assert changed["metadata"]["generation"] == 3


@pytest.mark.parametrize(
    ("kind", "obj", "message"),
    [
        ("Job", objects.job(parallelism="two"), "spec.parallelism: expected integer, not string"),
        ("Job", objects.job(parallelism=2**31), "spec.parallelism: 2147483648 is beyond int32"),
        ("Secret", {"metadata": {"name": "s"}, "data": {"a": "!"}}, "data.a: illegal base64"),
    ],
)
def test_a_value_that_is_no_value_of_its_field(
    kind: str, obj: dict[str, Any], message: str
) -> None:
    refusal = _refused(kind, obj)
    assert refusal.code == 400
    assert message in refusal.message


def test_an_account_that_is_not_there() -> None:
    refusal = _refused("Pod", objects.pod(serviceAccountName="nobody"))
    assert refusal.code == 403
    assert 'serviceaccount "nobody" not found' in refusal.message


def test_an_account_gives_its_pull_secrets() -> None:
    store = Store()
    secrets = {"imagePullSecrets": [{"name": "registry"}]}
    store.patch("ServiceAccount", "default", "default", secrets)
    made = store.create("Pod", objects.pod())
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_limit_ranges() -> None:
    store = Store()
    store.create(
        "LimitRange",
        {"metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "default": {"memory": "1Gi"}, "max": {"memory": "2Gi"}}]}},
    )  # fmt: skip
    made = store.create("Pod", objects.pod())
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "1Gi"},
        "requests": {"memory": "1Gi"},
    }
    with pytest.raises(Refusal) as refused:
        store.create("Pod", objects.pod("q", **_resources(limits={"memory": "3Gi"})))
    assert str(refused.value) == (
        'pods "q" is forbidden: maximum memory usage per Container is 2Gi, but limit is 3Gi'
    )
