from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.kubernetes import cluster as clusters
from infra.kubernetes.cluster import ClusterConfig
from infra.settings import Settings

_WHOLE = """
context: lab
namespace: training
image: registry.example/modelyard:1.2@sha256:0123
image_pull_secrets: [registry]
image_pull_policy: IfNotPresent
service_account: runs
config_map: modelyard
secret: modelyard
env: {TOKENIZERS_PARALLELISM: "false", A_SERVER: "https://user@host:1/x"}
secret_env: {AWS_SECRET_ACCESS_KEY: {name: storage, key: secret.key}}
nas:
  shared: {server: 10.0.0.1, path: /export}
  big: {claim: big-data}
run_as_user: 2000
node_selector: {example.com/pool: gpu, zone: ""}
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoExecute, tolerationSeconds: 60}
  - {operator: Exists}
priority_class: training
most_gpus: 16
storage_class: fast.ssd
pending_minutes: 0.5
finished_seconds: 0
grace_seconds: 60
"""


def _load(tmp_path: Path, text: str | bytes) -> ClusterConfig:
    file = tmp_path / "cluster.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return clusters.load(Settings(cluster=file))


def test_without_a_file_all_is_default() -> None:
    assert clusters.load(Settings()) == ClusterConfig()


def test_an_empty_file_is_one_of_defaults(tmp_path: Path) -> None:
    assert _load(tmp_path, "# later\n") == ClusterConfig()


def test_every_field(tmp_path: Path) -> None:
    found = _load(tmp_path, _WHOLE)

    assert (found.context, found.namespace, found.most_gpus) == ("lab", "training", 16)
    assert found.nas["shared"].path == "/export"
    assert found.nas["big"].claim == "big-data"
    assert found.secret_env["AWS_SECRET_ACCESS_KEY"].key == "secret.key"
    assert found.tolerations[1] == {"operator": "Exists"}  # as it was written


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("namespace: Training", "namespace"),
        ("namespace: a.b", "namespace"),
        (f"namespace: {'a' * 64}", "namespace"),
        ("namespce: training", "namespce"),
        ("image: a b", "image"),
        ("image_pull_secrets: [UPPER]", "image_pull_secrets.0"),
        ("image_pull_policy: Sometimes", "image_pull_policy"),
        ("config_map: -a", "config_map"),
        ("env: {1A: x}", "env.1A"),
        ("env: {A: 1}", "env.A"),
        ("secret_env: {A: {name: b}}", "secret_env.A.key"),
        ("secret_env: {A: {name: b, key: c d}}", "secret_env.A.key"),
        ("secret_env: {A: {name: b, key: c, value: d}}", "secret_env.A.value"),
        ("env: {A: x}\nsecret_env: {A: {name: b, key: c}}", "A is in env and in secret_env"),
        ("nas: {'a/b': {claim: c}}", "nas.a/b"),
        ("nas: {a: {}}", "nas.a"),
        ("nas: {a: {server: s}}", "nas.a"),
        ("nas: {a: {path: /p}}", "nas.a"),
        ("nas: {a: {server: s, path: p}}", "path begins with /"),
        ("nas: {a: {server: s, path: /p, claim: c}}", "nas.a"),
        ("run_as_user: 0", "run_as_user"),
        ("fs_group: -1", "fs_group"),
        ("node_selector: {a b: c}", "node_selector.a b"),
        ("node_selector: {-x/a: c}", "node_selector.-x/a"),
        ("node_selector: {a: c d}", "node_selector.a"),
        ("tolerations: [{key: a, operator: Exist}]", "tolerations.0.operator"),
        ("tolerations: [{operator: Equal}]", "tolerations.0"),
        ("tolerations: [{key: a, operator: Exists, value: b}]", "tolerations.0"),
        ("tolerations: [{key: a, tolerationSeconds: 5}]", "tolerations.0"),
        ("tolerations: [{key: a, colour: red}]", "tolerations.0.colour"),
        ("priority_class: a_b", "priority_class"),
        ("most_gpus: -1", "most_gpus"),
        ("storage_class: a/b", "storage_class"),
        ("pending_minutes: 0", "pending_minutes"),
        ("pending_minutes: .inf", "pending_minutes"),
        ("finished_seconds: -1", "finished_seconds"),
        ("grace_seconds: 0", "grace_seconds"),
        ("- namespace", "it is not a mapping"),
        ("namespace: [", "it is not valid YAML in line 1"),
        ("namespace: 2026-99-99", "it is not valid YAML"),
        (b"namespace: \xff", "it is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | bytes, field: str) -> None:
    with pytest.raises(BadInputError) as caught:
        _load(tmp_path, text)

    assert caught.value.code == "ClusterInvalid"
    assert str(tmp_path / "cluster.yaml") in caught.value.message
    assert field in caught.value.message
    assert caught.value.hint


def test_an_unknown_field_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        _load(tmp_path, "namespce: x")

    assert "namespace" in caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        clusters.load(Settings(cluster=tmp_path / "none.yaml"))

    assert caught.value.code == "ClusterInvalid"
    assert "none.yaml" in caught.value.message


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="and 3 more"):
        _load(tmp_path, "\n".join(f"field{n}: 1" for n in range(8)))


@pytest.mark.parametrize(
    "text",
    [
        "env: {MY_TOKEN: canary}",
        "env: {AWS_SECRET_ACCESS_KEY: canary}",
        "env: {PASSWORD: canary}",
        "env: {MODELYARD_DATABASE_URL: 'postgresql://user:canary@db/x'}",
        "secret: canary canary",
        "secret_env: {A: {name: canary canary, key: a}}",
        "namespace: ['canary'",
    ],
)
def test_no_secret_is_kept_or_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInputError) as caught:
        _load(tmp_path, text)

    assert "canary" not in str(caught.value).replace(str(tmp_path), "")


def test_a_runs_pod_is_told_what_the_file_says(tmp_path: Path) -> None:
    given = ClusterConfig(
        image="registry.example/i:1", nas={"data": {"claim": "data"}}, most_gpus=8
    )
    told = given.model_dump_json(exclude_defaults=True)

    assert clusters.load(Settings(cluster=tmp_path / "none", cluster_settings=told)) == given


@pytest.mark.parametrize("told", ["no JSON", '{"password": "canary"}', "[]"])
def test_what_a_pod_is_told_wrongly_is_refused(told: str) -> None:
    with pytest.raises(BadInputError, match="MODELYARD_CLUSTER_SETTINGS") as caught:
        clusters.load(Settings(cluster_settings=told))

    assert caught.value.code == "ClusterInvalid"
    assert "canary" not in str(caught.value)


def test_every_field_is_described() -> None:
    assert all(field.description for field in ClusterConfig.model_fields.values())


def test_the_docs_give_a_good_example(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/cluster-settings.md").read_text()

    example = text.split("```yaml\n")[1].split("```")[0]
    assert _load(tmp_path, example).nas["datasets"].claim == "datasets"
