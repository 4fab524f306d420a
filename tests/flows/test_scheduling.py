"""Schedules from Python, and what of them is checked when they are written."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from flows import scheduling
from infra.errors import BadInputError, ModelyardError, NotFoundError
from registry import deployments
from schedules import views
from tests.schedules.asking import at
from tests.schedules.conftest import world  # noqa: F401 (a fixture)
from tests.schedules.world import World

SCHEMA = {
    "type": "object",
    "properties": {
        "day": {"type": "string"},
        "level": {"type": "integer", "maximum": 9},
        "secret": {"type": "string", "maxLength": 3},
    },
    "required": ["day"],
    "additionalProperties": False,
}


class Prefect:
    """One that has these deployments."""

    def __init__(self, **found: Any) -> None:
        self.found = found

    def read_deployment_by_name(self, path: str) -> Any:
        if path not in self.found:
            raise ObjectNotFound(Exception())
        return self.found[path]


@pytest.fixture(autouse=True)
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    def deployment(**given: Any) -> SimpleNamespace:
        told = {"parameters": {}, "parameter_openapi_schema": SCHEMA, **given}
        return SimpleNamespace(**{"enforce_parameter_schema": True, **told})

    fake = Prefect(
        **{
            "train/train": deployment(),
            "sync/nightly": deployment(),
            "sync/ready": deployment(parameters={"day": "today"}),
            "sync/loose": deployment(enforce_parameter_schema=False),
        }
    )
    monkeypatch.setattr(deployments, "get_client", lambda **_: contextlib.nullcontext(fake))
    monkeypatch.setattr(scheduling, "connected", contextlib.nullcontext)
    return fake


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the flow ``train`` was asked to check; it needs no stack here."""
    given: list[dict[str, Any]] = []
    flow = scheduling.catalogue.entry("train").flow
    monkeypatch.setattr(flow, "preflight", lambda request, _: given.append(request))
    return given


@pytest.mark.parametrize(
    ("deployment", "given"),
    [
        ("sync/nightly", {"day": "{{ slot }}", "level": 3}),
        ("sync/ready", {}),
        ("sync/loose", {"anything": [1]}),
    ],
)
def test_another_s_deployment(deployment: str, given: dict[str, Any]) -> None:
    assert scheduling.check(deployment, given) == given


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "'day' is a required property"),
        ({"day": "a", "level": "high"}, "level is of another type"),
        ({"day": "a", "level": 10}, "level breaks the rule maximum 9"),
        ({"day": "a", "odd": 1}, "'odd' was unexpected"),
        ({"day": "a", "secret": "hunter2"}, "secret breaks the rule maxLength 3"),
    ],
)
def test_what_it_would_refuse(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError) as raised:
        scheduling.check("sync/nightly", given)

    assert raised.value.code == "ParameterInvalid"
    assert told in raised.value.message
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("deployment", ["trian", "sync/gone", "tune", "tune/tune", "train/x"])
def test_deployments_that_are_not_there(deployment: str) -> None:
    with pytest.raises(NotFoundError) as raised:
        scheduling.check(deployment, {})

    assert raised.value.code == "DeploymentUnknown"
    assert raised.value.hint


@pytest.mark.parametrize("deployment", ["train", "train/train"])
@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"max_minutes": "long"}, "ParameterInvalid"),
        ({"odd": 1}, "ParameterUnknown"),
    ],
)
def test_a_flow_of_ours(
    deployment: str, given: dict[str, Any], code: str, train: list[Any]
) -> None:
    with pytest.raises(ModelyardError) as raised:
        scheduling.check(deployment, given)

    assert raised.value.code == code
    assert train == []


def test_macros_are_tried_and_stay(train: list[Any]) -> None:
    given = {"name": "n {{ slot.strftime('%F') }}", "algorithm": {"provided": "demo"}}
    kept = scheduling.check("train", given)

    assert kept["name"] == given["name"]
    assert "{{" not in train[0].name


def test_from_python(world: World) -> None:  # noqa: F811
    made = scheduling.create(
        "s", "sync/ready", cron="@hourly", timezone="Asia/Seoul", end=at(99),
        policy={"grace": 5}, parameters={"level": 3, "day": "d"}, description="d", enabled=False,
    )  # fmt: skip
    assert made["trigger"]["timezone"] == "Asia/Seoul"
    assert made["policy"]["grace"] == 5

    changed = scheduling.update("s", parameters={"level": None}, trigger={"end": ""})
    assert changed["parameters"] == {"day": "d"}
    assert "end" not in changed["trigger"]
    copied = scheduling.copy("s", "t", parameters={"level": 4})
    assert copied["parameters"] == {"day": "d", "level": 4}
    with pytest.raises(BadInputError):
        scheduling.update("s", parameters={"level": 10})

    entry = {"name": "u", "deployment": "sync/ready", "interval_seconds": 60}
    assert scheduling.apply({"schedules": [entry]}, "f")["created"] == ["u"]
    assert [row["name"] for row in views.list_all()] == ["s", "t", "u"]


def test_groups_of_parameters_are_laid_over_each_other(
    world: World,  # noqa: F811
) -> None:
    scheduling.create(
        "s", "sync/loose", interval_seconds=60, parameters={"group": {"a": 1, "b": 2}}
    )
    changed = scheduling.update("s", parameters={"group": {"b": 3}})

    assert changed["parameters"] == {"group": {"a": 1, "b": 3}}
