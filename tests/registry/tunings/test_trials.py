from __future__ import annotations

import math
import struct
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from registry import catalogue
from registry.tunings import trials


class State(StrEnum):
    RUNNING = "RUNNING"


@pytest.fixture(autouse=True)
def _migrated(database: str) -> None:
    catalogue.migrate()


def trial(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "number": number, "parameters": {}, "state": "CREATED", "values": None, "reports": (),
        "violations": (), "reason": "", "mlflow_run_id": None, "flow_run_id": None,
        "attempts": 1, "losses": 0, "created": 1.5, "started": None, "ended": None, **fields,
    }  # fmt: skip


def bits(numbers: tuple[float, ...]) -> list[bytes]:
    return [struct.pack("d", number) for number in numbers]


def test_what_was_saved_is_given_back() -> None:
    saved = trial(
        3, parameters={"b": 1}, values=(0.1, 0.2), reports=(1.0,), violations=(-1.0,),
        reason="why", mlflow_run_id="m", flow_run_id="f", attempts=2, losses=1, created=1.25,
        started=2.25, ended=3.25,
    )  # fmt: skip
    trials.save("t", saved)

    assert trials.of("t") == [saved]
    long = {"reports", "violations"}
    assert trials.outline("t") == [{k: v for k, v in saved.items() if k not in long}]


def test_parameters_keep_their_order_and_their_types() -> None:
    parameters = {"z": 1, "a": 1.0, "k": True, "b": "1", "c": 1e22, "d": 2**60, "e": "é"}
    trials.save("t", trial(0, parameters=parameters))

    [found] = trials.of("t")
    assert list(found["parameters"].items()) == list(parameters.items())
    assert [type(value) for value in found["parameters"].values()] == [
        type(value) for value in parameters.values()
    ]


def test_numbers_are_kept_to_the_bit() -> None:
    numbers = (math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3)
    trials.save("t", trial(0, values=numbers, reports=numbers, violations=numbers))

    [found] = trials.of("t")
    for name in ("values", "reports", "violations"):
        assert bits(found[name]) == bits(numbers)


def test_no_values_are_not_an_empty_list_of_them() -> None:
    trials.save("t", trial(0, values=None), trial(1, values=()))

    assert [found["values"] for found in trials.of("t")] == [None, ()]


def test_times_are_kept_to_the_microsecond() -> None:
    trials.save("t", trial(0, created=1790000000.123456))

    assert trials.of("t")[0]["created"] == 1790000000.123456


def test_saved_again_it_is_changed() -> None:
    trials.save("t", trial(0), trial(1))
    changed = trial(0, state="SUCCEEDED", values=(2.0,), parameters={"a": 1}, ended=9.0)

    trials.save("t", changed)

    assert trials.of("t") == [changed, trial(1)]


def test_a_state_may_be_a_member_of_an_enum() -> None:
    trials.save("t", trial(0, state=State.RUNNING))

    state = trials.of("t")[0]["state"]
    assert (state, type(state)) == ("RUNNING", str)


def test_they_are_ordered_by_number() -> None:
    trials.save("t", *(trial(number) for number in (10, 2, 0)))

    assert [found["number"] for found in trials.of("t")] == [0, 2, 10]


def test_all_are_saved_or_none() -> None:
    trials.save("t", trial(0))

    with pytest.raises(DBAPIError):
        trials.save("t", trial(0, state="FAILED"), trial(1, attempts=None))

    assert trials.of("t") == [trial(0)]


def test_nothing_to_save_is_nothing_done() -> None:
    trials.save("t")

    assert trials.of("t") == []


def test_saving_is_one_statement() -> None:
    statements: list[str] = []
    engine = catalogue.engine()
    trials.save("t", trial(0))

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(engine, "before_cursor_execute", count)
    try:
        trials.save("t", trial(0, state="RUNNING"))
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", count)

    assert len(statements) == 1
    assert "ON CONFLICT" in statements[0]


def test_tunings_are_told_apart() -> None:
    trials.save("t", trial(0), trial(1, state="SUCCEEDED"), trial(2))
    trials.save("u", trial(0, state="FAILED"))

    assert trials.counts(["t", "u", "none"]) == {
        "t": {"CREATED": 2, "SUCCEEDED": 1}, "u": {"FAILED": 1},
    }  # fmt: skip
    assert trials.counts(["u"]) == {"u": {"FAILED": 1}}
    assert trials.counts([]) == {}
    trials.remove("t")
    assert (trials.of("t"), len(trials.of("u"))) == ([], 1)
    trials.remove("t")


def test_values_are_found_by_tuning_and_number() -> None:
    trials.save("t", trial(0, values=(1.0,)), trial(1, values=(2.0,)), trial(2))
    trials.save("u", trial(1, values=(3.0, 4.0)))

    assert trials.values([("t", 1), ("u", 1), ("t", 2), ("u", 0)]) == {
        ("t", 1): (2.0,), ("u", 1): (3.0, 4.0), ("t", 2): None,
    }  # fmt: skip


def test_a_flow_run_is_a_trial_of_one_tuning() -> None:
    trials.save("t", trial(0), trial(7, flow_run_id="f"))
    trials.save("u", trial(1, flow_run_id="g"))

    assert trials.owner("f") == ("t", 7)
    assert trials.owner("t") is None
    assert trials.owners(["f", "g", "h"]) == {"f": ("t", 7), "g": ("u", 1)}
    assert trials.owners([]) == {}
