"""Uploads, without Prefect: what is kept, what Prefect is told, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.schema_tools.validation import validate

from flows import pipelines as uploads
from infra.errors import BadInputError, ConflictError, ModelyardError
from pipelines import reading
from registry import catalogue
from registry.pipelines import pipelines
from registry.schedules import schedules
from tests.pipelines import corpus
from tests.registry.conftest import catalogue_url  # noqa: F401 (a fixture)
from tests.registry.scheduled import scheduled


class Prefect:
    """One that takes deployments, or fails to."""

    def __init__(self) -> None:
        self.deployments: dict[str, dict[str, Any]] = {}
        self.error: Exception | None = None

    async def create_flow_from_name(self, name: str) -> str:
        return name

    async def create_deployment(self, *, name: str, **more: Any) -> None:
        if self.error:
            raise self.error
        self.deployments[name] = more


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
    yield fake
    catalogue.engine().dispose()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"uploaded {abs(hash(request.node.nodeid))}"


def _file(folder: Path, pipeline: str, name: str = "pipeline.yaml") -> Path:
    path = folder / name
    path.write_bytes(corpus.compiled(pipeline))
    return path


def test_a_version_is_a_deployment_with_the_pipelines_own_form(
    tmp_path: Path, name: str, prefect: Prefect
) -> None:
    shown = uploads.upload(_file(tmp_path, "adding"), name, "what for", "as it began")

    assert (shown["state"], shown["version"]) == ("ACTIVE", 1)
    assert shown["description"] == "what for"
    told = prefect.deployments[f"{name}:1"]
    assert told["entrypoint"] == "flows.pipeline_run.pipeline_run"
    assert told["parameters"] == {"pipeline": f"{name}:1"}
    assert f"pipeline:{name}" in told["tags"]
    assert told["description"] == "as it began"
    schema = told["parameter_openapi_schema"]
    assert schema["properties"]["pipeline"]["enum"] == [f"{name}:1"]
    group = schema["properties"]["arguments"]
    assert {"a", "b"} <= set(group["properties"])
    assert group["properties"]["a"]["type"] == "integer"
    given = {"pipeline": f"{name}:1", "arguments": {"a": 1}}
    assert not validate(given, schema)
    for wrong in (
        {**given, "arguments": {"a": "x"}},
        {**given, "arguments": {"a": 1, "unknown": 1}},
        {**given, "pipeline": "another"},
        {**given, "unknown": 1},
    ):
        assert validate(wrong, schema), wrong
    assert pipelines.compiled(name)[0] == corpus.compiled("adding")


def test_what_must_be_given_is_asked_for_by_the_form() -> None:
    pipeline = reading.read_bytes(corpus.compiled("adding"), "p.yaml")
    schema = uploads.form("adding:1", pipeline)
    assert "arguments" in schema["required"]
    assert validate({"pipeline": "adding:1"}, schema)
    assert not validate({"pipeline": "adding:1", "arguments": {"a": 1}}, schema)


def test_it_is_called_as_it_was_compiled(tmp_path: Path) -> None:
    path = _file(tmp_path, "adding")
    compiled = reading.read(path).name
    assert uploads.upload(path)["name"] == compiled


def test_the_same_file_again_is_no_version(tmp_path: Path, name: str) -> None:
    uploads.upload(_file(tmp_path, "adding"), name)
    again = uploads.upload(_file(tmp_path, "adding", "renamed.yaml"), name, "described now")
    assert (again["version"], again["description"]) == (1, "described now")
    assert uploads.upload(_file(tmp_path, "loops"), name)["version"] == 2


def test_what_prefect_did_not_take_is_kept_and_registered_later(
    tmp_path: Path, name: str, prefect: Prefect
) -> None:
    prefect.error = ConnectionError("away")
    path = _file(tmp_path, "adding")
    with pytest.raises(ConnectionError):
        uploads.upload(path, name)
    shown = pipelines.show(name)
    assert shown["state"] == "CREATE FAILED"
    assert "away" in shown["error"]

    prefect.error = None
    assert uploads.upload(path, name)["state"] == "ACTIVE"
    assert pipelines.find(name).number == 1


def test_all_are_registered_again(tmp_path: Path, name: str, prefect: Prefect) -> None:
    pipelines.add(name, corpus.compiled("adding"), "p.yaml", "digest")
    assert f"pipeline-run/{name}:1" in asyncio.run(uploads.register_all(prefect))  # type: ignore[arg-type]
    assert pipelines.find(name).state == "ACTIVE"


def test_one_that_can_be_read_no_more_hinders_no_other(
    tmp_path: Path, name: str, prefect: Prefect
) -> None:
    pipelines.add(f"{name} a", b"a: 1", "old.yaml", "digest")
    pipelines.add(f"{name} b", corpus.compiled("adding"), "p.yaml", "digest")
    made = asyncio.run(uploads.register_all(prefect))  # type: ignore[arg-type]
    assert f"pipeline-run/{name} b:1" in made
    shown = pipelines.show(f"{name} a")
    assert shown["state"] == "CREATE FAILED"
    assert "old.yaml" in shown["error"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "PipelineEmpty"),
        (b"a: 1", "PipelineFormatUnknown"),
        (b"PK\x03\x04", "PackageInvalid"),
    ],
)
def test_what_is_no_pipeline_is_not_kept(
    tmp_path: Path, name: str, prefect: Prefect, text: bytes, code: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_bytes(text)
    with pytest.raises(BadInputError) as raised:
        uploads.upload(path, name)
    assert raised.value.code == code
    assert name not in [row["name"] for row in pipelines.list_all()]
    assert not prefect.deployments


@pytest.mark.parametrize(
    ("called", "described", "code"),
    [
        ("a/b", "", "NameInvalid"),
        ("train", "", "NameTaken"),
        ("pipeline-run", "", "NameTaken"),
        ("fine", "x" * 5000, "TextInvalid"),
    ],
)
def test_what_cannot_be_called_or_described_so_is_refused(
    tmp_path: Path, called: str, described: str, code: str
) -> None:
    with pytest.raises(ModelyardError) as raised:
        uploads.upload(_file(tmp_path, "adding"), called, described)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("told", "fits"),
    [
        ({"arguments": {"a": 1}}, False),
        ({}, False),
        ({"arguments": {"words": ["{{ slot }}"]}}, True),
    ],
)
def test_a_version_that_a_schedule_could_not_start_is_refused(
    tmp_path: Path, name: str, told: dict[str, Any], fits: bool
) -> None:
    uploads.upload(_file(tmp_path, "adding"), name)
    schedules.add(scheduled(f"s {name}", told, name))
    schedules.add(scheduled(f"pinned {name}", {"arguments": {"a": 1}}, f"{name}:1"))
    path = _file(tmp_path, "loops")
    if fits:
        assert uploads.upload(path, name)["version"] == 2
        return
    with pytest.raises(ConflictError, match=f"s {name}") as raised:
        uploads.upload(path, name)
    assert raised.value.code == "HasSchedule"
    assert "pinned" not in str(raised.value)
    assert pipelines.find(name).number == 1
