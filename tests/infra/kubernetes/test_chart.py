"""The chart: what Helm makes of it, and what holds for every object of it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from infra import instance_types
from infra.instance_types import InstanceType
from infra.kubernetes import cluster as clusters
from infra.settings import Settings
from tests.infra.kubernetes import charts
from tests.infra.kubernetes.charts import Object

SERVERS = {"prefect", "mlflow", "web"}
PARTS = SERVERS | {"scheduler", "worker"}
VERSIONS = ("1.33", "1.36")


@pytest.fixture(scope="module", params=charts.NAMES)
def rendered(request: pytest.FixtureRequest) -> list[Object]:
    return charts.objects(charts.values(request.param))


@pytest.fixture(scope="module")
def whole() -> list[Object]:
    return charts.objects(charts.values("whole"))


def of(kind: str, found: list[Object]) -> list[Object]:
    return [one for one in found if one["kind"] == kind]


def pods(found: list[Object]) -> dict[str, Object]:
    """The pod templates of a release, by component."""
    templates = [one["spec"]["template"] for one in of("Deployment", found) + of("Job", found)]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in templates}


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def name(one: Object) -> str:
    return f"{one['kind']} {one['metadata']['name']}"


def test_the_workers_read_the_clusters_file(rendered: list[Object], tmp_path: Path) -> None:
    (told,) = [one for one in of("ConfigMap", rendered) if "cluster.yaml" in one["data"]]
    file = tmp_path / "cluster.yaml"
    file.write_text(told["data"]["cluster.yaml"])

    read = clusters.load(Settings(cluster=file))

    accounts = {one["metadata"]["name"] for one in of("ServiceAccount", rendered)}
    assert {read.service_account, read.pipeline_service_account} <= accounts
    assert read.image
    assert read.config_map in {one["metadata"]["name"] for one in of("ConfigMap", rendered)}


def test_where_pipelines_stage_files_is_told_to_runs() -> None:
    given = charts.values("least", runs={"pipelineStagingUri": "s3://models/staging"})
    told = charts.one(charts.objects(given), "ConfigMap", "runs")

    assert told["data"]["MODELYARD_PIPELINE_STAGING_URI"] == "s3://models/staging"


def test_instance_types_are_told_to_all() -> None:
    mine = {
        "cpu": 0.5,
        "memory_gib": 64,
        "gpus": 1,
        "node_selector": {"nvidia.com/gpu.product": "NVIDIA-A10"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    found = charts.objects(charts.values("least", instanceTypes={"gpu.mine": mine}))

    for each in ("runs", "environment"):
        told = charts.one(found, "ConfigMap", each)["data"]["MODELYARD_INSTANCE_TYPES_SETTINGS"]
        table = instance_types.load_all(Settings(instance_types_settings=told))
        assert table["gpu.mine"] == InstanceType(**mine)


# Helm's own rules


@pytest.mark.parametrize("values", charts.NAMES)
def test_helm_finds_no_fault(values: str) -> None:
    report = helm.lint(charts.CHART, charts.values(values), strict=True, namespace="modelyard")

    assert report["errors"] == []
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("values", charts.NAMES)
def test_it_renders_as_it_did(values: str) -> None:
    expected = (charts.RENDERED / f"{values}.yaml").read_text()

    assert charts.golden(values) == expected, "python -m tests.infra.kubernetes.charts rewrites it"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_of_kubernetes(rendered: list[Object], version: str) -> None:
    for one in rendered:
        kubernetes_validate.validate(one, version, strict=True)


def test_an_object_with_a_fault_would_be_found(whole: list[Object]) -> None:
    broken = json.loads(json.dumps(charts.one(whole, "Deployment", "web")))
    broken["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="redinessProbe"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_no_two_objects_are_the_same(rendered: list[Object]) -> None:
    keys = [(one["kind"], one["metadata"].get("namespace"), name(one)) for one in rendered]

    assert len(set(keys)) == len(keys)


# Names


@pytest.mark.parametrize("release", ["x", "modelyard", "a" * 53, "team-a-modelyard-" + "b" * 36])
def test_names_and_labels_are_short_enough(release: str) -> None:
    found = charts.objects(charts.values("whole"), release)

    for one in found:
        longest = 57 if one["kind"] == "Job" else 63  # a Job's pods get a suffix
        assert len(one["metadata"]["name"]) <= longest, name(one)
        assert all(len(value) <= 63 for value in one["metadata"]["labels"].values())
        kubernetes_validate.validate(one, VERSIONS[-1], strict=True)


def test_long_releases_do_not_share_names() -> None:
    first, second = ("a" * 50 + end for end in ("one", "two"))
    names = [
        {name(one) for one in charts.objects(charts.values("least"), release)}
        for release in (first, second)
    ]

    assert not names[0] & names[1]


def test_releases_of_two_namespaces_share_no_cluster_role() -> None:
    with helm.Chart.load(charts.CHART) as chart:
        texts = [
            chart.render(charts.values("least"), name="modelyard", namespace=space)
            for space in ("a", "b")
        ]
    roles = [
        {
            one["metadata"]["name"]
            for one in yaml.safe_load_all(text["modelyard/templates/rights.yaml"])
            if one and one["kind"].startswith("ClusterRole")
        }
        for text in texts
    ]

    assert roles[0]
    assert not roles[0] & roles[1]


# Secrets


def test_no_secret_is_in_any_object(rendered: list[Object]) -> None:
    """Only references: what names a secret has no value, but for what is made of references."""
    secret = re.compile(
        r"(DATABASE_URL|CONNECTION_URL|_STORE|ACCESS_KEY|ACCESS_KEY_ID|PASSWORD|CREDENTIAL)$"
    )
    made = {
        "PREFECT_API_AUTH_STRING": "modelyard:$(MLFLOW_TRACKING_PASSWORD)",
        "PREFECT_SERVER_API_AUTH_STRING": "modelyard:$(MODELYARD_CREDENTIAL)",
    }
    for pod in pods(rendered).values():
        for container in containers(pod):
            before: set[str] = set()
            for variable in container.get("env", []):
                if variable["name"] in made:
                    assert variable["value"] == made[variable["name"]]
                    assert variable["value"].partition("(")[2].rstrip(")") in before
                before.add(variable["name"])
                if secret.search(variable["name"]):
                    assert set(variable) == {"name", "valueFrom"}, variable
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}
    for config in of("ConfigMap", rendered):
        assert not [key for key in config["data"] if secret.search(key)]


@pytest.mark.parametrize(
    ("part", "variables"),
    [
        ("prefect", {"PREFECT_API_DATABASE_CONNECTION_URL",
                     "PREFECT_SERVER_DATABASE_CONNECTION_URL", "MODELYARD_CREDENTIAL"}),
        ("mlflow", {"_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_REGISTRY_STORE",
                    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MODELYARD_CREDENTIAL"}),
        ("web", {"MODELYARD_DATABASE_URL", "MODELYARD_S3_ACCESS_KEY_ID",
                 "MODELYARD_S3_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD",
                 "MODELYARD_CREDENTIAL"}),
        ("scheduler", {"MODELYARD_DATABASE_URL", "MLFLOW_TRACKING_PASSWORD"}),
        ("worker", {"MODELYARD_DATABASE_URL", "MLFLOW_TRACKING_PASSWORD",
                    "MODELYARD_CREDENTIAL"}),
        ("deploy", {"MODELYARD_DATABASE_URL", "MLFLOW_TRACKING_PASSWORD"}),
    ],
)  # fmt: skip
def test_a_part_reads_only_its_own_secrets(
    whole: list[Object], part: str, variables: set[str]
) -> None:
    (container,) = containers(pods(whole)[part])

    assert {one["name"] for one in container["env"] if "valueFrom" in one} == variables


def test_a_credential_is_made_where_none_is_named() -> None:
    """Of 43 letters and digits, which no other release has, and the same wherever it is read."""
    apart = charts.objects(charts.values("least", runs={"namespace": "trainings"}))
    others = charts.objects(charts.values("least"), release="other-modelyard")
    made = {one["metadata"]["namespace"]: one["data"] for one in of("Secret", apart)}
    (other,) = of("Secret", others)

    assert made.keys() == {"modelyard", "trainings"}
    assert made["modelyard"] == made["trainings"]
    assert re.fullmatch(rb"[A-Za-z0-9]{43}", base64.b64decode(made["trainings"]["credential"]))
    assert other["data"] != made["modelyard"]


def test_a_credential_that_is_named_is_not_made(whole: list[Object]) -> None:
    assert of("Secret", whole) == []


def test_an_upgrade_keeps_the_credential() -> None:
    """Helm's own renderer asks the cluster for it, which there is none of here."""
    template = (charts.CHART / "templates/door.yaml").read_text()

    assert 'lookup "v1" "Secret" .Release.Namespace $made' in template


def test_the_door_can_be_switched_off() -> None:
    found = charts.objects(charts.values("least", door={"enabled": False}))
    for part, pod in pods(found).items():
        env = {one["name"]: one.get("value") for one in containers(pod)[0]["env"]}
        assert not {"MLFLOW_TRACKING_PASSWORD", "MODELYARD_CREDENTIAL"} & env.keys()
        assert env.get("MODELYARD_DOOR") == ("false" if part in SERVERS else None)
    assert of("Secret", found) == []
    assert told(found)["env"] == {}


# Pods


def test_every_part_is_there(rendered: list[Object]) -> None:
    assert set(pods(rendered)) == PARTS | {"deploy"}


def test_pods_may_do_nothing_that_they_need_not(rendered: list[Object]) -> None:
    """As the Pod Security Standard "restricted" asks, and the root file system is only read."""
    for pod in pods(rendered).values():
        spec = pod["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 1000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert {key for volume in spec["volumes"] for key in volume} <= {
            "name", "emptyDir", "configMap",
        }  # fmt: skip
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            places = {one["mountPath"] for one in container["volumeMounts"]}
            assert {"/tmp", "/modelyard/home"} <= places


def test_containers_say_what_they_need(rendered: list[Object]) -> None:
    for pod in pods(rendered).values():
        for container in containers(pod):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_what_goes_on_for_ever_has_probes(rendered: list[Object]) -> None:
    for part, pod in pods(rendered).items():
        (container,) = pod["spec"]["containers"]
        has = {key for key in container if key.endswith("Probe")}
        assert has == (set() if part == "deploy" else
                       {"startupProbe", "readinessProbe", "livenessProbe"})  # fmt: skip
        for key in has:
            assert ("httpGet" in container[key]) == (part != "scheduler")


def test_tokens_are_only_where_they_are_used(rendered: list[Object]) -> None:
    mounted = {part for part, pod in pods(rendered).items()
               if pod["spec"]["automountServiceAccountToken"]}  # fmt: skip
    accounts = of("ServiceAccount", rendered)

    assert mounted == {"worker", "deploy"}
    assert not any(one["automountServiceAccountToken"] for one in accounts)
    assert {pod["spec"]["serviceAccountName"] for pod in pods(rendered).values()} < {
        one["metadata"]["name"] for one in accounts
    }


def test_parts_survive_the_drain_of_a_node(rendered: list[Object]) -> None:
    budgets = of("PodDisruptionBudget", rendered)
    for deployment in of("Deployment", rendered):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        matching = [one for one in budgets
                    if one["spec"]["selector"]["matchLabels"].items() <= labels.items()
                    ]  # fmt: skip
        assert len(matching) == 1
        assert matching[0]["spec"]["maxUnavailable"] == 1
        (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_selectors_and_services_meet_their_pods(rendered: list[Object]) -> None:
    templates = pods(rendered)
    for one in of("Deployment", rendered):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in of("Service", rendered):
        (part,) = [part for part, pod in templates.items()
                   if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
                   ]  # fmt: skip
        (container,) = templates[part]["spec"]["containers"]
        assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"]
    assert len(of("Service", rendered)) == len(SERVERS)


def test_a_new_environment_starts_pods_anew() -> None:
    marks = [
        {part: pod["metadata"]["annotations"]["modelyard/environment"]
         for part, pod in pods(charts.objects(charts.values("least", runs=runs))).items()}
        for runs in ({}, {}, {"mostGpus": 2})
    ]  # fmt: skip

    assert marks[0] == marks[1]
    assert all(marks[1][part] != marks[2][part] for part in PARTS)


def test_what_is_mounted_and_read_is_made(rendered: list[Object]) -> None:
    made = {one["metadata"]["name"] for one in of("ConfigMap", rendered)}
    for pod in pods(rendered).values():
        assert {v["configMap"]["name"] for v in pod["spec"]["volumes"] if "configMap" in v} <= made
        for container in containers(pod):
            assert {one["configMapRef"]["name"] for one in container["envFrom"]} <= made


def test_the_database_of_mlflow_is_upgraded_when_told() -> None:
    found = charts.objects(charts.values("least", mlflow={"upgradeDatabase": True}))
    deployment = charts.one(found, "Deployment", "mlflow")
    (first,) = deployment["spec"]["template"]["spec"]["initContainers"]

    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert first["args"][:2] == ["sh", "-c"]
    assert "mlflow db upgrade" in first["args"][2]
    assert [one["name"] for one in first["env"] if "valueFrom" in one] == [
        "_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_REGISTRY_STORE",
    ]  # fmt: skip


def test_another_image_is_another_deploy_job() -> None:
    def job(tag: str) -> str:
        image = {"repository": "a/b", "tag": tag}
        (found,) = of("Job", charts.objects(charts.values("least", image=image)))
        return str(found["metadata"]["name"])

    assert job("1") == job("1")
    assert job("1") != job("2")


# What workers are told of the cluster


def told(found: list[Object]) -> dict[str, Any]:
    text = charts.one(found, "ConfigMap", "cluster")["data"]["cluster.yaml"]
    return dict(yaml.safe_load(text))


def test_workers_know_where_runs_go(whole: list[Object]) -> None:
    cluster = told(whole)
    accounts = {(one["metadata"]["namespace"], one["metadata"]["name"])
                for one in of("ServiceAccount", whole)}  # fmt: skip
    configs = {(one["metadata"]["namespace"], one["metadata"]["name"])
               for one in of("ConfigMap", whole)}  # fmt: skip

    assert cluster["namespace"] == "trainings"
    assert cluster["image"] == "registry.example/modelyard-torch:0.1.0"
    assert ("trainings", cluster["service_account"]) in accounts
    assert ("trainings", cluster["config_map"]) in configs
    assert cluster["secret_env"] == {
        "MODELYARD_DATABASE_URL": {"name": "databases", "key": "catalogue-url"},
        "MODELYARD_S3_ACCESS_KEY_ID": {"name": "storage", "key": "access-key-id"},
        "MODELYARD_S3_SECRET_ACCESS_KEY": {"name": "storage", "key": "secret-access-key"},
        "MLFLOW_TRACKING_PASSWORD": {"name": "door", "key": "credential"},
    }
    assert cluster["env"] == {
        "NCCL_DEBUG": "WARN",
        "MLFLOW_TRACKING_USERNAME": "modelyard",
        "PREFECT_API_AUTH_STRING": "modelyard:$(MLFLOW_TRACKING_PASSWORD)",
    }
    assert cluster["nas"] == {
        "shared": {"claim": "shared"},
        "old": {"server": "10.0.0.9", "path": "/export"},
    }
    assert cluster["most_gpus"] == 16
    assert cluster["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


def test_runs_are_told_where_the_servers_are(whole: list[Object]) -> None:
    services = {one["metadata"]["name"]: one["spec"]["ports"][0]["port"]
                for one in of("Service", whole)}  # fmt: skip
    (runs,) = [one["data"] for one in of("ConfigMap", whole)
               if one["metadata"]["namespace"] == "trainings"]  # fmt: skip

    for variable, service in {
        "PREFECT_API_URL": "prefect",
        "MLFLOW_TRACKING_URI": "mlflow",
    }.items():
        host = f"modelyard-{service}"
        assert runs[variable].startswith(f"http://{host}.modelyard.svc:{services[host]}")
    assert runs["MODELYARD_S3_ENDPOINT_URL"] == "https://storage.example"
    assert "MODELYARD_HOME" not in runs


def test_hosts_of_the_ingress_are_served(whole: list[Object]) -> None:
    (ingress,) = of("Ingress", whole)
    hosts = {rule["host"]: rule["http"]["paths"][0]["backend"]["service"]["name"]
             for rule in ingress["spec"]["rules"]}  # fmt: skip
    env = {part: {one["name"]: one.get("value") for one in containers(pod)[0]["env"]}
           for part, pod in pods(whole).items()}  # fmt: skip

    assert hosts == {
        "prefect.example": "modelyard-prefect",
        "mlflow.example": "modelyard-mlflow",
        "modelyard.example": "modelyard-web",
    }
    assert env["prefect"]["PREFECT_UI_API_URL"] == "https://prefect.example/api"
    assert "mlflow.example" in env["mlflow"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert env["mlflow"]["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"] == "https://mlflow.example"
    assert "modelyard.example" in env["web"]["MODELYARD_WEB_HOSTS"].split(",")


@pytest.mark.parametrize("values", charts.NAMES)
def test_the_next_steps_name_what_is_there(values: str) -> None:
    text = charts.sources(charts.values(values))["modelyard/templates/NOTES.txt"]
    found = {f"{one['kind'].lower()}/{one['metadata']['name']}"
             for one in charts.objects(charts.values(values))}  # fmt: skip
    named = {one.replace("deploy/", "deployment/") for one in
             re.findall(r"\b(?:service|deploy)/[\w-]+", text)}  # fmt: skip

    assert len(named) == 4
    assert named <= found
