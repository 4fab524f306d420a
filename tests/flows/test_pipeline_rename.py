"""Renaming of pipelines: what refers to them finds them still."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from flows import pipelines as uploads
from infra.errors import ConflictError, ModelyardError, NotFoundError
from registry import catalogue, deletion, deployments
from registry.pipelines import pipelines
from registry.schedules import schedules
from tasks.pipelines import request
from tests.pipelines import corpus
from tests.registry.conftest import catalogue_url  # noqa: F401 (a fixture)
from tests.registry.scheduled import scheduled


class Prefect:
    """One with deployments by name, and active runs of some of them."""

    def __init__(self) -> None:
        self.deployments: dict[str, dict[str, Any]] = {}
        self.active: set[str] = set()
        self.tags: list[tuple[str, str]] = []
        self.error: Exception | None = None

    async def create_flow_from_name(self, name: str) -> str:
        return name

    async def create_deployment(self, *, name: str, **more: Any) -> None:
        if self.error:
            raise self.error
        self.deployments[name] = more

    def read_deployment_by_name(self, path: str) -> Any:
        name = path.partition("/")[2]
        if name not in self.deployments:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(id=name)

    def delete_deployment(self, key: str) -> None:
        del self.deployments[key]

    def read_flow_runs(self, *, deployment_filter: Any, **_: Any) -> list[Any]:
        (name,) = deployment_filter.name.any_
        return [SimpleNamespace(name="waiting")] if name in self.active else []

    def rename_tag(self, old: str, new: str) -> list[str]:
        self.tags.append((old, new))
        return []


@pytest.fixture(autouse=True)
def prefect(
    catalogue_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Prefect]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", catalogue_url)
    catalogue.migrate()
    fake = Prefect()

    @contextlib.asynccontextmanager
    async def connected() -> Any:
        yield fake

    monkeypatch.setattr(uploads, "get_client", connected)
    monkeypatch.setattr(uploads.notifications, "rename_tag", fake.rename_tag)
    monkeypatch.setattr(deployments, "prefect_client", lambda: contextlib.nullcontext(fake))
    yield fake
    catalogue.engine().dispose()


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """A pipeline of two versions."""
    name = f"old {abs(hash(request.node.nodeid))}"
    _upload(tmp_path, name, "adding")
    _upload(tmp_path, name, "loops")
    return name


@pytest.fixture
def new(old: str) -> str:
    return old.replace("old", "new")


def _upload(folder: Any, name: str, pipeline: str) -> Any:
    path = folder / f"{pipeline}.yaml"
    path.write_bytes(corpus.compiled(pipeline))
    return uploads.upload(path, name)


def test_versions_history_and_forms_are_under_the_new_name(
    old: str, new: str, prefect: Prefect
) -> None:
    key = pipelines.find(old).id
    shown = uploads.rename(old, new)

    assert (shown["name"], shown["version"], shown["state"]) == (new, 2, "ACTIVE")
    assert pipelines.find(new).id == key
    assert [one["verb"] for one in shown["history"]] == ["upload", "upload", "rename"]
    assert shown["history"][-1]["detail"] == {"was": old, "name": new}
    assert set(prefect.deployments) == {f"{new}:1", f"{new}:2"}
    assert prefect.deployments[f"{new}:1"]["parameters"] == {"pipeline": f"{new}:1"}
    assert old not in [one.name for one in pipelines.list_all()]
    assert prefect.tags == [(f"pipeline:{old}", f"pipeline:{new}")]


def test_runs_that_name_it_find_it(old: str, new: str) -> None:
    """A retry reads the pipeline, and a copy pins it, by the name that the run has."""
    uploads.rename(old, new)

    assert pipelines.compiled(f"{old}:1")[0] == corpus.compiled("adding")
    assert request.pin({"pipeline": f"{old}:1"}) == {"pipeline": f"{new}:1"}
    assert pipelines.find(old).reference == f"{new}:2"
    assert pipelines.deployment_of(f"{old}:2") == f"pipeline-run/{new}:2"


def test_schedules_that_take_it_go_on_with_it(old: str, new: str) -> None:
    for number, (deployment, given) in enumerate(
        (
            (old, {}), (f"{old}:1", {}), (f"pipeline-run/{old}:2", {}),
            ("pipeline-run", {"pipeline": f"{old}:2"}), ("train", {"template": old}),
        )
    ):  # fmt: skip
        schedules.add(scheduled(f"{number} {old}", given, deployment))
    uploads.rename(old, new)

    with catalogue.session() as session:
        found = sorted(
            (one.name, one.deployment, one.parameters)
            for one in schedules.present(session) if one.name.endswith(old)
        )  # fmt: skip
    assert [one[1:] for one in found] == [
        (new, {}), (f"{new}:1", {}), (f"pipeline-run/{new}:2", {}),
        ("pipeline-run", {"pipeline": f"{new}:2"}), ("train", {"template": old}),
    ]  # fmt: skip
    with pytest.raises(ConflictError, match=f"0 {old}"):
        deletion.delete("pipeline", new)


def test_a_form_with_waiting_runs_stays_until_that_is_repeated(
    old: str, new: str, prefect: Prefect
) -> None:
    prefect.active = {f"{old}:1"}
    uploads.rename(old, new)
    assert set(prefect.deployments) == {f"{old}:1", f"{new}:1", f"{new}:2"}

    prefect.active = set()
    uploads.rename(old, new)
    assert set(prefect.deployments) == {f"{new}:1", f"{new}:2"}


def test_a_run_that_waits_under_the_former_name_blocks_the_deletion(
    old: str, new: str, prefect: Prefect
) -> None:
    prefect.active = {f"{old}:1"}
    uploads.rename(old, new)

    with pytest.raises(ConflictError, match="waiting") as raised:
        deletion.delete("pipeline", new)
    assert raised.value.code == "RunGoesOn"

    prefect.active = set()
    deletion.delete("pipeline", new)
    assert prefect.deployments == {}


def test_a_form_that_stayed_goes_when_all_are_registered_again(
    old: str, new: str, prefect: Prefect
) -> None:
    prefect.active = {f"{old}:1"}
    uploads.rename(old, new)
    prefect.active = set()

    asyncio.run(uploads.register_all(prefect))  # type: ignore[arg-type]

    assert f"{old}:1" not in prefect.deployments
    assert f"{new}:1" in prefect.deployments


def test_one_that_was_interrupted_can_be_repeated(
    old: str, new: str, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedules.add(scheduled(f"s {old}", {}, old))
    prefect.error = ConnectionError("away")
    with pytest.raises(ConnectionError):
        uploads.rename(old, new)
    assert pipelines.find(old).name == old

    prefect.error = None
    with monkeypatch.context() as patched:
        patched.setattr(uploads.pipeline_rename, "rename_in_schedules", _killed)
        with pytest.raises(KeyboardInterrupt):
            uploads.rename(old, new)
    assert uploads.rename(old, new)["name"] == new
    with catalogue.session() as session:
        taken = [one.deployment for one in schedules.present(session) if one.name == f"s {old}"]
    assert taken == [new]
    assert set(prefect.deployments) == {f"{new}:1", f"{new}:2"}


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_another_that_takes_the_name_has_other_numbers(old: str, new: str, tmp_path: Any) -> None:
    uploads.rename(old, new)
    again = _upload(tmp_path, old, "adding")

    assert again["version"] == 3
    assert pipelines.find(old).reference == f"{old}:3"
    assert pipelines.find(f"{old}:2").reference == f"{new}:2"
    with pytest.raises(NotFoundError):
        pipelines.find(f"{old}:4")
    with pytest.raises(ConflictError, match="already"):
        uploads.rename(new, old)


def test_back_and_forth_is_the_same_pipeline(old: str, new: str, tmp_path: Any) -> None:
    uploads.rename(old, new)
    _upload(tmp_path, new, "adding")
    uploads.rename(new, old)

    assert [pipelines.find(f"{one}:3").reference for one in (old, new)] == [f"{old}:3"] * 2
    assert uploads.rename(old, new)["version"] == 3
    assert pipelines.find(f"{old}:3").reference == f"{new}:3"


@pytest.mark.parametrize(
    ("called", "code"),
    [("a/b", "NameInvalid"), ("x.yaml", "NameInvalid"), ("train", "NameTaken")],
)
def test_what_cannot_be_called_so_stays_as_it_is(old: str, called: str, code: str) -> None:
    with pytest.raises(ModelyardError) as raised:
        uploads.rename(old, called)
    assert raised.value.code == code
    assert pipelines.find(old).name == old


def test_names_that_others_have_or_had_are_refused(
    old: str, new: str, tmp_path: Any, prefect: Prefect
) -> None:
    other, gone = f"other {old}", f"gone {old}"
    _upload(tmp_path, other, "adding")
    uploads.rename(other, f"{other} now")
    _upload(tmp_path, gone, "adding")
    deletion.delete("pipeline", gone)

    for name, message in (
        (f"{other} now", "There is a pipeline"), (other, "refer to it"), (gone, "refer to it")
    ):  # fmt: skip
        with pytest.raises(ConflictError, match=message) as raised:
            uploads.rename(old, name)
        assert raised.value.code == "NameTaken"
    assert f"{old}:1" in prefect.deployments


def test_it_is_unknown_by_a_former_name_where_it_is_changed(old: str, new: str) -> None:
    uploads.rename(old, new)

    for change in (
        lambda: uploads.rename(old, "third"), lambda: pipelines.describe(old, "text"),
        lambda: deletion.delete("pipeline", old), lambda: deletion.delete("pipeline", f"{old}:1"),
        lambda: uploads.rename("nothing", "third"),
    ):  # fmt: skip
        with pytest.raises(NotFoundError) as raised:
            change()
        assert raised.value.code == "PipelineUnknown"
    assert len(pipelines.versions(new)) == 2


def test_the_names_of_a_deleted_one_do_not_lead_to_another(
    old: str, new: str, tmp_path: Any
) -> None:
    uploads.rename(old, new)
    deletion.delete("pipeline", new)
    again = _upload(tmp_path, new, "adding")

    assert again["version"] == 3
    assert [one["verb"] for one in pipelines.show(new)["history"]] == ["upload"]
    for gone in (old, f"{old}:1", f"{new}:1"):
        with pytest.raises(NotFoundError):
            pipelines.find(gone)
    assert _upload(tmp_path, old, "loops")["version"] == 3
    assert [one["verb"] for one in pipelines.show(old)["history"]] == ["upload"]
    assert pipelines.find(f"{new}:3").name == new


def test_a_name_leads_to_who_had_it_last(old: str, new: str, tmp_path: Any) -> None:
    uploads.rename(old, new)
    _upload(tmp_path, old, "adding")
    uploads.rename(old, f"third {old}")
    deletion.delete("pipeline", f"third {old}")

    assert pipelines.find(f"{old}:2").name == new
    with pytest.raises(NotFoundError):
        pipelines.find(old)
