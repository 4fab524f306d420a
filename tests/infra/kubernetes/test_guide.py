"""What docs/kubernetes.md tells is what the chart and the images do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from infra import instance_types
from infra.settings import Settings
from tests.infra.images import dockerfiles
from tests.infra.kubernetes import charts

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
YAML = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]
VALUES = [one for one in YAML if "kind" not in one]
MANIFESTS = [one for one in YAML if "kind" in one]
COMMANDS = [
    shlex.split(line[2:])
    for language, text in BLOCKS
    if language == "console"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("$ ")
]


def secrets(namespace: str) -> dict[str, set[str]]:
    """The keys of the Secrets that the page makes in a namespace."""
    made = {}
    for words in COMMANDS:
        if words[:1] == ["kubectl"] and "secret" in words and namespace in words:
            kind, name = words[words.index("secret") + 1 :][:2]
            flag = "--from-literal="
            literals = [word.removeprefix(flag) for word in words if word.startswith(flag)]
            keys = {word.partition("=")[0] for word in literals}
            made[name] = {".dockerconfigjson"} if kind == "docker-registry" else keys
    return made


@pytest.mark.parametrize("values", VALUES, ids=",".join)
def test_values_are_taken(values: dict[str, object]) -> None:
    for one in charts.objects(values):
        kubernetes_validate.validate(one, "1.36", strict=True)


def test_manifests_are_those_of_kubernetes() -> None:
    assert MANIFESTS
    for one in MANIFESTS:
        kubernetes_validate.validate(one, "1.36", strict=True)


def test_the_first_values_name_secrets_that_the_page_makes() -> None:
    made, named = secrets("modelyard"), 0
    for one in charts.objects(VALUES[0]):
        for reference in re.findall(r"'secretKeyRef': (\{.*?\})", str(one)):
            found = yaml.safe_load(reference)
            if found["name"] == "modelyard-door":  # which the chart makes
                continue
            assert found["key"] in made[found["name"]], found
            named += 1
        for pulled in re.findall(r"'imagePullSecrets': \[\{'name': '(.*?)'", str(one)):
            assert made[pulled] == {".dockerconfigjson"}
            named += 1
    assert named > 10


def test_runs_in_a_namespace_of_their_own_find_their_secrets() -> None:
    values = {**VALUES[0], "runs": {"namespace": "trainings"}}
    (text,) = (one["data"]["cluster.yaml"] for one in charts.objects(values)
               if "cluster.yaml" in one.get("data", {}))  # fmt: skip
    cluster = yaml.safe_load(text)
    read = {(one["name"], one["key"]) for one in cluster["secret_env"].values()}
    read |= {(name, ".dockerconfigjson") for name in cluster["image_pull_secrets"]}

    assert cluster["namespace"] == "trainings"
    assert read - {("modelyard-door", "credential")} == {
        (name, key) for name, keys in secrets("trainings").items() for key in keys
    }


def test_commands_name_what_the_chart_makes() -> None:
    made = {
        f"{one['kind'].lower()}/{one['metadata']['name']}" for one in charts.objects(VALUES[0])
    }
    named = {
        word.replace("deploy/", "deployment/")
        for words in COMMANDS
        for word in words
        if re.match(r"(deploy|service)/", word)
    }

    assert len(named) == 4
    assert named <= made


def test_images_of_users_end_as_an_ordinary_user(tmp_path: Path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "dockerfile"]
    (tmp_path / "Dockerfile").write_text(text)
    made = dockerfiles.read(tmp_path / "Dockerfile")

    assert made.last.base.startswith("registry.example/modelyard")
    assert made.last.all("USER")[-1] == "1000:1000"


def test_instance_types_are_known() -> None:
    types = instance_types.load_all(Settings())
    named = re.findall(r"resources\.instance_type=(\S+)", PAGE)

    assert len(named) == 2
    assert set(named) <= set(types)


def test_rights_are_told_as_they_are() -> None:
    told = dict(
        re.findall(r"^\| (the worker|runs of pipelines).*? \| (.*) \|$", PAGE, re.MULTILINE)
    )
    roles = {one["metadata"]["name"].rpartition("-")[2]: one
             for one in charts.objects(VALUES[0]) if one["kind"] == "Role"}  # fmt: skip
    words = {"jobs": "Jobs", "services": "Services", "pods": "Pods"}

    for who, role in (("the worker", "worker"), ("runs of pipelines", "pipelines")):
        for rule in roles[role]["rules"]:
            if word := words.get(rule["resources"][0]):
                (verbs,) = re.findall(
                    rf"{word}[^.]*?: ([a-z, ]+?)(?:, and their logs)?\.", told[who]
                )
                assert verbs.split(", ") == rule["verbs"]


def test_links_inside_the_page_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= anchors
