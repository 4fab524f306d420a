"""Rows of uploaded pipelines in a real database, and what may be deleted of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import catalogue, deletion, deployments
from registry.pipelines import pipelines
from registry.schedules import schedules
from tests.registry.scheduled import scheduled


class Prefect:
    """One that has deployments, and runs of some of them."""

    def __init__(self) -> None:
        self.deployments: set[str] = set()
        self.runs: dict[str, list[str]] = {}

    def read_deployment_by_name(self, path: str) -> Any:
        if path not in self.deployments:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(id=path, name=path)

    def delete_deployment(self, key: str) -> None:
        self.deployments.remove(key)

    def read_flow_runs(self, *, deployment_filter: Any, **_: Any) -> list[Any]:
        (name,) = deployment_filter.name.any_
        return [SimpleNamespace(name=run) for run in self.runs.get(f"pipeline-run/{name}", [])]


@pytest.fixture(autouse=True)
def prefect(catalogue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prefect]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", catalogue_url)
    catalogue.migrate()
    fake = Prefect()
    monkeypatch.setattr(deployments, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    yield fake
    catalogue.engine().dispose()


def _add(name: str, text: str = "one", **more: str) -> pipelines.Version:
    return pipelines.add(name, text.encode(), "p.yaml", f"digest of {text}", **more)


def _registered(prefect: Prefect, version: pipelines.Version) -> None:
    prefect.deployments.add(version.deployment)
    pipelines.note(version, registered=True)


def test_versions_are_numbered_and_the_newest_is_what_the_name_means(name: str) -> None:
    first = _add(name, description="what for", about="as it began")
    second = _add(name, "two")

    assert (first.number, second.number) == (1, 2)
    assert first.reference == f"{name}:1"
    assert second.deployment == f"pipeline-run/{name}:2"
    assert pipelines.find(name) == second
    assert pipelines.find(f"{name}:1") == first
    assert pipelines.compiled(f"{name}:1") == (b"one", "p.yaml")
    assert pipelines.deployment_of(name) == second.deployment
    assert pipelines.deployment_of(f"/tmp/{name}.yaml") == "pipeline-run"
    assert [one["version"] for one in pipelines.versions(name)] == [2, 1]
    assert (first.description, second.description) == ("as it began", "what for")
    shown = pipelines.show(name)
    assert shown["version"] == 2
    assert [deed["verb"] for deed in shown["history"]] == ["upload", "upload"]
    assert pipelines.show(f"{name}:1")["version"] == 1
    (row,) = (row for row in pipelines.list_all() if row["name"] == name)
    assert (row["version"], row["versions"], row["description"]) == (2, 2, "what for")
    assert pipelines.list_newest(1) == [row]


def test_those_that_were_changed_last_are_listed_first(name: str) -> None:
    for one in ("a", "b", "c"):
        _add(f"{name}-{one}")
    _add(f"{name}-a", "two")

    newest = [(row.name, row.version) for row in pipelines.list_newest(2)]
    assert newest == [(f"{name}-a", 2), (f"{name}-c", 1)]


def test_what_is_the_newest_already_makes_no_version(name: str) -> None:
    _add(name)
    assert _add(name).number == 1
    _add(name, "two")
    assert _add(name).number == 3  # an earlier one again is a step back, and a version


def test_no_number_is_given_twice(name: str) -> None:
    _add(name)
    _add(name, "two")
    deletion.delete("pipeline", f"{name}:2")
    assert _add(name, "three").number == 3


def test_no_number_is_given_twice_when_all_versions_were_deleted(name: str) -> None:
    _add(name, description="what for")
    _add(name, "two")
    deletion.delete("pipeline", name)
    with pytest.raises(NotFoundError):
        pipelines.describe(name, "x")
    with pytest.raises(NotFoundError) as raised:
        pipelines.find(f"{name}x")
    assert name not in raised.value.hint.replace(f"{name}x", "")

    again = _add(name, "two", description="what else for")

    assert again.number == 3
    assert pipelines.show(name)["description"] == "what else for"
    assert [one["version"] for one in pipelines.versions(name)] == [3]
    deletion.delete("pipeline", f"{name}:3")
    assert _add(name, "two").number == 4
    assert pipelines.show(name)["description"] == ""


def test_its_word_follows_what_was_done(name: str, prefect: Prefect) -> None:
    version = _add(name)
    assert version.state == "CREATE REQUESTED"
    pipelines.note(version)
    assert pipelines.find(name).state == "CREATE IN PROGRESS"
    pipelines.note(version, error="Prefect was away.")
    assert pipelines.find(name).state == "CREATE FAILED"
    assert pipelines.show(name)["error"] == "Prefect was away."
    _registered(prefect, version)
    assert pipelines.find(name).state == "ACTIVE"
    assert pipelines.show(name)["error"] == ""


@pytest.mark.parametrize(
    "reference", ["", "no such", "{}:2", "{}:x", "{}:-1", "{}:9999999999", "a\0"]
)
def test_one_that_is_not_there_is_named(name: str, reference: str) -> None:
    _add(name)
    with pytest.raises(NotFoundError) as raised:
        pipelines.find(reference.format(name))
    assert raised.value.code == "PipelineUnknown"


def test_one_that_is_nearly_called_so_is_named(name: str) -> None:
    _add(name)
    with pytest.raises(NotFoundError, match="There is no pipeline") as raised:
        pipelines.find(f"{name}x")
    assert name in (raised.value.hint or "")


@pytest.mark.parametrize(
    "wrong",
    ["", " a", "a/b", "a:b", "a%b", "a?b", "a#b", "a&b", "a<b", 'a"b', "a\\b", "x" * 101, "a.yaml",
     "a.ZIP", "a\nb", "..", "-a"],
)  # fmt: skip
def test_what_it_cannot_be_called(wrong: str) -> None:
    with pytest.raises(BadInputError) as raised:
        pipelines.check_name(wrong)
    assert raised.value.code == "NameInvalid"


def test_a_name_that_is_too_long_is_told_how_long_it_may_be() -> None:
    with pytest.raises(BadInputError, match="1 to 100 characters"):
        pipelines.check_name("x" * 300)


@pytest.mark.parametrize("right", ["a", "two words", "hello-world", "학습", "a.b", "x" * 100])
def test_what_it_can_be_called(right: str) -> None:
    pipelines.check_name(right)


def test_it_is_described_otherwise(name: str) -> None:
    _add(name, description="before")
    assert pipelines.describe(name, "after")["description"] == "after"
    assert pipelines.show(name)["history"][-1]["verb"] == "update"
    with pytest.raises(BadInputError):
        pipelines.describe(name, "x" * 5000)
    with pytest.raises(NotFoundError):
        pipelines.describe("no such", "x")


def test_it_is_deleted_with_its_deployments(name: str, prefect: Prefect) -> None:
    for text in ("one", "two"):
        _registered(prefect, _add(name, text))
    assert deletion.delete("pipeline", f"{name}:1") == {
        "name": name, "version": 1, "deleted": True,
    }  # fmt: skip
    assert prefect.deployments == {f"pipeline-run/{name}:2"}
    assert deletion.delete("pipeline", name) == {"name": name, "deleted": True}
    assert not prefect.deployments
    with pytest.raises(NotFoundError):
        pipelines.find(name)


def test_what_prefect_has_forgotten_is_deleted_all_the_same(name: str) -> None:
    _add(name)
    deletion.delete("pipeline", name)
    assert name not in [row["name"] for row in pipelines.list_all()]


@pytest.mark.parametrize(
    ("deployment", "told", "keeps"),
    [
        ("{}", {}, {"{}", "{}:2"}),
        ("pipeline-run/{}", {}, {"{}", "{}:2"}),
        ("{}:1", {}, {"{}", "{}:1"}),
        ("pipeline-run/{}:1", {}, {"{}", "{}:1"}),
        ("pipeline-run", {"pipeline": "{}"}, {"{}", "{}:2"}),
        ("pipeline-run/pipeline-run", {"pipeline": "{}:1"}, {"{}", "{}:1"}),
        ("pipeline-run", {"pipeline": "{}:{{{{ slot.strftime('%d') }}}}"}, {"{}", "{}:1", "{}:2"}),
        ("train", {"pipeline": "{}"}, set()),
    ],
)
def test_a_schedule_keeps_what_it_takes(
    name: str, deployment: str, told: dict[str, str], keeps: set[str]
) -> None:
    for text in ("one", "two"):
        _add(name, text)
    parameters = {key: value.format(name) for key, value in told.items()}
    schedules.add(scheduled(f"s {name}", parameters, deployment.format(name)))
    refused = set()
    for reference in ("{}", "{}:1", "{}:2"):
        found = deletion._RULES["pipeline"].find(reference.format(name))
        reasons = deletion._RULES["pipeline"].guards[0].blockers(*found)
        if reasons:
            assert f"s {name}" in reasons[0].sentence
            refused.add(reference)
    assert refused == keeps


def test_a_schedule_refuses_the_deletion(name: str) -> None:
    _add(name)
    schedules.add(scheduled(f"s {name}", {}, name))
    with pytest.raises(ConflictError) as raised:
        deletion.delete("pipeline", name)
    assert raised.value.code == "HasSchedule"
    assert pipelines.find(name).number == 1


def test_a_run_that_goes_on_refuses_the_deletion(name: str, prefect: Prefect) -> None:
    _registered(prefect, _add(name))
    prefect.runs[f"pipeline-run/{name}:1"] = ["early bird"]
    for reference in (name, f"{name}:1"):
        with pytest.raises(ConflictError, match="early bird") as raised:
            deletion.delete("pipeline", reference)
        assert raised.value.code == "RunGoesOn"
    assert prefect.deployments


def test_an_uploaded_pipeline_is_a_deployment_by_its_name(name: str, prefect: Prefect) -> None:
    _registered(prefect, _add(name))
    for called in (name, f"{name}:1", f"pipeline-run/{name}:1"):
        assert deployments.read(prefect, called).name == f"pipeline-run/{name}:1"  # type: ignore[arg-type]
    for unknown, hint in (
        ("no such", "Flows are: batch-inference, "),
        ("trian", "Did you mean train? Flows are: batch-inference, "),
    ):
        with pytest.raises(NotFoundError, match="no flow and no pipeline") as raised:
            deployments.read(prefect, unknown)  # type: ignore[arg-type]
        assert raised.value.hint.startswith(hint)
    with pytest.raises(NotFoundError, match="The flow train is not registered"):
        deployments.read(prefect, "train")  # type: ignore[arg-type]
