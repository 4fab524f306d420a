from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from infra.errors import ConflictError, ModelyardError
from registry import deletion, evaluations, history, tracking
from registry.blockers import Blocker
from registry.deletion import Guard, Rule
from registry.models import models
from registry.models.models import ServingSpec, SourceRun
from registry.runs import run_lookup, runs
from tests.registry.trained import MakeRun

Events = list[Any]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """What is done, in order."""
    done: Events = []

    def record(noun: str, subject: str, verb: str, **detail: Any) -> None:
        done.append((verb, noun, subject, detail))

    monkeypatch.setattr(history, "record", record)
    return done


@pytest.fixture
def rule(events: Events, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a rule for the noun ``thing``; what each guard answers is given, look by look."""

    def make(*answers: list[list[str]], claims: bool = False) -> None:
        def guard(number: int, looks: list[list[str]]) -> Guard:
            left = iter(looks)

            def reasons(*found: Any) -> list[Blocker]:
                events.append((f"guard {number}", *found))
                return [Blocker(one, ("thing", "mend", one)) for one in next(left)]

            return Guard(f"Code{number}", reasons, "Mend it: {command}.")

        def step(name: str, told: Any = None) -> Callable[..., Any]:
            return lambda *found: events.append((name, *found)) or told

        monkeypatch.setitem(
            deletion._RULES,
            "thing",
            Rule(
                lambda key, part=None: (f"id of {key}", part),
                tuple(guard(number, looks) for number, looks in enumerate(answers)),
                step("remove", {"name": "its name"}),
                step("claim") if claims else None,
                step("release") if claims else None,
            ),
        )

    return make


def test_guards_are_asked_then_it_is_removed_and_recorded(
    rule: Callable[..., None], events: Events
) -> None:
    rule([[]], [[]])

    assert deletion.delete("thing", "k", part=2) == {"name": "its name", "deleted": True}

    assert events == [
        ("guard 0", "id of k", 2),
        ("guard 1", "id of k", 2),
        ("remove", "id of k", 2),
        ("delete", "thing", "id of k", {"part": 2, "name": "its name"}),
    ]


def test_a_reason_against_it_stops_it(rule: Callable[..., None], events: Events) -> None:
    rule([[]], [["It is used.", "Twice."]], claims=True)

    with pytest.raises(ConflictError) as raised:
        deletion.delete("thing", "k")

    assert (raised.value.code, raised.value.message, raised.value.hint) == (
        "Code1", "It is used. Twice.", "Mend it: modelyard thing mend 'It is used.'.",
    )  # fmt: skip
    assert [event[0] for event in events] == ["guard 0", "guard 1"]


def test_once_claimed_it_is_asked_again(rule: Callable[..., None], events: Events) -> None:
    rule([[], []], claims=True)

    deletion.delete("thing", "k")

    assert [event[0] for event in events] == ["guard 0", "claim", "guard 0", "remove", "delete"]


@pytest.mark.parametrize("error", [ConnectionResetError, KeyboardInterrupt])
def test_a_guard_that_fails_leaves_nothing_claimed(
    rule: Callable[..., None], events: Events, error: type[BaseException]
) -> None:
    class Fails(list[str]):
        def __iter__(self) -> Iterator[str]:
            raise error

    rule([[], Fails()], claims=True)

    with pytest.raises(error):
        deletion.delete("thing", "k")

    assert [event[0] for event in events] == ["guard 0", "claim", "guard 0", "release"]


def test_a_reason_that_came_meanwhile_stops_it(rule: Callable[..., None], events: Events) -> None:
    rule([[], ["It is used."]], claims=True)

    with pytest.raises(ConflictError, match=r"It is used\."):
        deletion.delete("thing", "k")

    assert [event[0] for event in events] == ["guard 0", "claim", "guard 0", "release"]


def test_a_noun_is_kept_alone_from_the_first_guard_to_its_end(
    rule: Callable[..., None], events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def alone(*found: Any) -> Iterator[None]:
        events.append(("alone", *found))
        yield
        events.append(("not alone",))

    rule([[]])
    made = dataclasses.replace(deletion._RULES["thing"], lock=alone)
    monkeypatch.setitem(deletion._RULES, "thing", made)

    deletion.delete("thing", "k")

    assert [event[0] for event in events] == ["alone", "guard 0", "remove", "not alone", "delete"]


@pytest.mark.usefixtures("mlflow")
def test_a_run_waits_for_who_makes_a_model_of_it(
    run: MakeRun, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = run()
    flow_run = FlowRun(
        flow_id=uuid4(), name=name, labels={tracking.MLFLOW_RUN_LABEL: left.id},
        state=Completed(),
    )  # fmt: skip
    monkeypatch.setattr(runs, "_prefect", lambda: contextlib.nullcontext(None))
    monkeypatch.setattr(run_lookup, "find", lambda *_: flow_run)
    monkeypatch.setattr(evaluations, "_inferences", lambda _: [])
    really, told = models._check_not_removed, list[str]()

    def while_it_deletes(origin: SourceRun) -> None:
        really(origin)
        thread.start()
        thread.join(1)  # longer than a deletion takes that does not wait

    def delete() -> None:
        try:
            deletion.delete("run", str(flow_run.id))
        except ModelyardError as error:
            told.append(error.code)

    thread = threading.Thread(target=delete)
    monkeypatch.setattr(models, "_check_not_removed", while_it_deletes)
    models.create(name, ServingSpec("scikit-learn"), origin=left.origin)
    thread.join(30)

    assert told == ["HasModel"]
    assert tracking.client().get_run(left.id).info.lifecycle_stage == "active"


def test_every_noun_has_its_guards() -> None:
    rules = deletion._RULES

    assert {noun: [guard.code for guard in rule.guards] for noun, rule in rules.items()} == {
        "run": [
            "TrialOfTuning",
            "PartOfEvaluation",
            "RunGoesOn",
            "RunGoesOn",
            "TrialGoesOn",
            "HasModel",
            "HasModel",
        ],
        "experiment": ["DefaultExperiment", "ExperimentInUse", "HasSchedule"],
        "schedule": ["RunGoesOn"],
        "template": ["HasSchedule"],
        "model": ["ModelInUse", "HasSchedule", "HasSchedule", "RunGoesOn"],
        "pipeline": ["HasSchedule", "RunGoesOn"],
        "storage": ["AccessInUse"],
        "notification": [],
    }
    guards = [guard for rule in rules.values() for guard in rule.guards]
    assert all("{command}" in guard.hint for guard in guards)
