"""Schedules from Python, and what of them is checked when they are written."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from flows import scheduling
from infra import site, work_pools
from infra.errors import BadInputError, ModelyardError, NotFoundError
from registry import deployments
from registry.pipelines import pipelines
from registry.schedules import scheduled_runs
from schedules import verbs, views
from schedules.files import FileInvalidError
from tasks.pipelines import request as requests
from tests.pipelines import corpus
from tests.schedules.asking import HOUR, at, pass_hours
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
    monkeypatch.setattr(deployments, "prefect_client", lambda **_: contextlib.nullcontext(fake))
    monkeypatch.setattr(scheduling, "connected", contextlib.nullcontext)
    monkeypatch.setattr(work_pools, "is_remote", lambda _: False)
    return fake


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the flow ``train`` was asked to check; it needs no stack here."""
    given: list[dict[str, Any]] = []
    flow = scheduling.catalogue.find("train")
    monkeypatch.setattr(flow, "preflight", lambda request, _: given.append(request))
    return given


@pytest.mark.parametrize(
    ("deployment", "flow"),
    [
        ("train", "train"), ("train/train", "train"), ("train/mine", ""), ("sync/nightly", ""),
        ("daily", "pipeline-run"), ("daily:3", "pipeline-run"),
        ("pipeline-run/daily", "pipeline-run"),
    ],
)  # fmt: skip
def test_the_flow_of_a_deployment(deployment: str, flow: str) -> None:
    assert scheduling.flow_of(deployment) == flow


def test_a_training_on_a_cluster_is_checked_for_that(
    train: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = scheduling.catalogue.find("train")
    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(work_pools, "is_remote", lambda pool: pool == "gpu")
    monkeypatch.setattr(
        flow, "preflight", lambda *_: asked.append(("run", site.is_validating_for_remote()))
    )
    monkeypatch.setattr(scheduling.placing, "check", lambda name, *_: asked.append((name, True)))
    scheduling.check("train", {})

    assert asked == [("run", True), ("train", True)]
    assert not site.is_validating_for_remote()


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
        ({"day": "a", "level": "high"}, "`level`: expected a whole number, got a string"),
        ({"day": ["a"]}, "`day`: expected a string, got a list"),
        ({"day": "a", "level": 10}, "`level`: 10 breaks the rule maximum 9"),
        ({"day": "a", "odd": 1}, "'odd' was unexpected"),
        ({"day": "a", "secret": "hunter2"}, "`secret`: a string breaks the rule maxLength 3"),
    ],
)
def test_what_it_would_refuse(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInputError) as raised:
        scheduling.check("sync/nightly", given)

    assert raised.value.code == "ParameterInvalid"
    assert told in raised.value.message
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("deployment", ["trian", "sync/gone", "tune", "tune/tune", "train/x"])
def test_deployments_that_are_not_there(deployment: str, world: World) -> None:  # noqa: F811
    with pytest.raises(NotFoundError) as raised:
        scheduling.check(deployment, {})

    assert raised.value.code == "DeploymentUnknown"
    assert raised.value.hint


@pytest.mark.parametrize("deployment", ["adding", "adding:1", "pipeline-run/adding:1"])
def test_an_uploaded_pipeline(
    deployment: str,
    world: World,  # noqa: F811
    prefect: Prefect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipelines.add("adding", corpus.compiled("adding"), "p.yaml", "digest")
    prefect.found["pipeline-run/adding:1"] = SimpleNamespace()
    flow = scheduling.catalogue.find("pipeline-run")
    monkeypatch.setattr(flow, "preflight", lambda request, _: requests.load(request.pipeline))
    given = {"arguments": {"a": 1, "b": 2}, "name": "{{ slot }}{{$.currentTime}}"}
    assert scheduling.check(deployment, given) == given
    for wrong, code in (
        ({**given, "pipeline": "another"}, "ParameterInvalid"),
        ({**given, "odd": 1}, "ParameterUnknown"),
    ):
        with pytest.raises(ModelyardError) as raised:
            scheduling.check(deployment, wrong)
        assert raised.value.code == code


def test_macros_of_pipelines_are_not_for_other_flows(train: list[Any]) -> None:
    with pytest.raises(BadInputError) as raised:
        scheduling.check("train", {"name": "{{$.currentTime.strftime('%Y')}}"})
    assert raised.value.code == "MacroUnknown"


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


def test_the_state_of_a_run_that_goes_on_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    scheduling.create("s", "sync/loose", interval_seconds=HOUR)
    pass_hours(world, 1)
    (run,) = world.runs
    monkeypatch.setattr(scheduled_runs, "states", lambda ids: dict.fromkeys(ids, "RUNNING"))

    assert views.slots_of("s")[0].state is None
    assert [(one.run, one.state) for one in scheduling.slots_of("s")] == [(run, "RUNNING")]
    assert scheduling.show("s").slots == scheduling.slots_of("s")


def test_groups_of_parameters_are_laid_over_each_other(
    world: World,  # noqa: F811
) -> None:
    scheduling.create(
        "s", "sync/loose", interval_seconds=60, parameters={"group": {"a": 1, "b": 2}}
    )
    changed = scheduling.update("s", parameters={"group": {"b": 3}})

    assert changed["parameters"] == {"group": {"a": 1, "b": 3}}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


DEEP = deep(2000)
WRONG: dict[str, list[Any]] = {
    "name": [5, None, "a\0"],
    "deployment": [5, None, "tra\0in", "a/b/c", "a/", "/", "", "a?b/c", "train/train#1"],
    "description": [5, "a\ud800"],
    "enabled": ["maybe", 1],
    "policy": ["x", [1], {1: 2}, {"grace": DEEP}, {"overlap": DEEP}],
    "parameters": ["x", [1], {1: 2}, {"a": DEEP}, {"a": "\0"}, {"a": [{1: 2}]}, {"a\0": 1}],
    "cron": [5, DEEP, "\0"],
    "timezone": [5, DEEP, "\0"],
    "start": [5, DEEP, "\0"],
    "interval_seconds": ["60", 1.5, DEEP],
}
TRIGGER = ("cron", "timezone", "start", "interval_seconds")


def told(raised: pytest.ExceptionInfo[ModelyardError], name: str) -> bool:
    words = {"cron": "cron expression", "timezone": "time zone", "interval_seconds": "interval"}
    return any(word in str(raised.value) for word in (name, words.get(name, name)))


class TestWrongTypes:
    """Each is one plain error that names what is wrong, and nothing is kept."""

    @pytest.mark.parametrize("name", WRONG)
    def test_create(self, world: World, name: str) -> None:  # noqa: F811
        given = {"name": "s", "deployment": "sync/loose", "interval_seconds": 60}
        if name == "cron":
            del given["interval_seconds"]
        for value in WRONG[name]:
            with pytest.raises(ModelyardError) as raised:
                scheduling.create(**{**given, name: value})
            assert told(raised, name)

        assert views.list_all() == []

    @pytest.mark.parametrize("copied", [False, True])
    def test_update_and_copy(self, world: World, *, copied: bool) -> None:  # noqa: F811
        made = scheduling.create("s", "sync/loose", interval_seconds=60)
        cases = [("trigger", "x", "trigger"), ("trigger", {1: 2}, "trigger")]
        cases += [("new_name", 5, "new_name"), ("new_name", "a\0", "new_name")]
        for name, values in WRONG.items():
            if name in TRIGGER:
                cases += [("trigger", {name: value}, name) for value in values]
            elif name != "name" and (copied or name != "enabled"):
                cases += [(name, value, name) for value in values if value is not None]
        for argument, value, name in cases:
            given = {"new_name": "t", argument: value} if copied else {argument: value}
            with pytest.raises(ModelyardError) as raised:
                (scheduling.copy if copied else scheduling.update)("s", **given)
            assert told(raised, name), (argument, value)

        assert [views.show(row["id"]) for row in views.list_all()] == [made]

    @pytest.mark.parametrize("key", [5, None, "a\0", "a\ud800"])
    def test_keys(self, world: World, key: Any) -> None:  # noqa: F811
        for verb, *more in (
            (verbs.start,), (verbs.stop,), (verbs.delete,), (verbs.trigger_now,), (views.show,),
            (views.slots_of,), (verbs.backfill, at(0), at(1)), (scheduling.update,),
            (scheduling.copy, "t"),
        ):  # fmt: skip
            with pytest.raises(BadInputError, match="name or id"):
                verb(key, *more)  # type: ignore[operator]

    @pytest.mark.parametrize("value", [5, None, DEEP, "\0"])
    def test_times_of_a_backfill(self, world: World, value: Any) -> None:  # noqa: F811
        scheduling.create("s", "sync/loose", interval_seconds=60)
        with pytest.raises(BadInputError, match="end"):
            verbs.backfill("s", at(0), value)

    @pytest.mark.parametrize(
        ("document", "place"),
        [
            (None, "document"), ("x", "document"), ([1], "document"),
            ({"schedules": [], "set": "a\0"}, "set"), ({"schedules": [DEEP]}, "schedules[0]"),
        ],
    )  # fmt: skip
    def test_documents(self, world: World, document: Any, place: str) -> None:  # noqa: F811
        with pytest.raises(BadInputError) as raised:
            scheduling.apply(document, "f")

        assert place in raised.value.message

    def test_the_rest_of_a_file_is_still_checked(self, world: World) -> None:  # noqa: F811
        def entry(**given: Any) -> dict[str, Any]:
            return {"name": "s", "deployment": "sync/loose", "interval_seconds": 60, **given}

        wrong = [
            entry(deployment="a/b/c"), entry(deployment="a\0"), entry(parameters={"a": DEEP}),
            entry(parameters={"a": "\0"}), entry(name="a\0"), entry(policy={"grace": DEEP}),
            entry(enabled="maybe"), entry(timezone="\0"),
        ]  # fmt: skip
        with pytest.raises(FileInvalidError) as raised:
            scheduling.apply({"schedules": wrong}, "f")

        places = [fault.place for fault in raised.value.faults]
        assert places == [
            "schedules[0].deployment", "schedules[1].deployment", "schedules[2]",
            "schedules[3].parameters", "schedules[4].name", "schedules[5]",
            "schedules[6].enabled", "schedules[7].timezone",
        ]  # fmt: skip
        assert raised.value.faults[0].error.code == "DeploymentUnknown"
