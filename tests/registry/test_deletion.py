from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.errors import ConflictError
from registry import deletion, history
from registry.deletion import Guard, Rule

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

            def reasons(*found: Any) -> list[str]:
                events.append((f"guard {number}", *found))
                return next(left)

            return Guard(f"Code{number}", reasons, "Mend {key}.")

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
        "Code1", "It is used. Twice.", "Mend k.",
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
        def __bool__(self) -> bool:
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


@pytest.mark.parametrize(
    ("noun", "codes"),
    [
        ("run", ["RunGoesOn", "HasModel"]),
        ("experiment", ["DefaultExperiment", "ExperimentInUse"]),
        ("template", []),
        ("model", ["ModelInUse"]),
    ],
)
def test_every_noun_has_its_guards(noun: str, codes: list[str]) -> None:
    rule = deletion._RULES[noun]

    assert [guard.code for guard in rule.guards] == codes
    assert all(guard.hint.format(key="k") for guard in rule.guards)
