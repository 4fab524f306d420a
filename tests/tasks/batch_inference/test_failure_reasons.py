"""Reasons of failed records, counted."""

from __future__ import annotations

from dataclasses import asdict

from tasks.batch_inference import failure_reasons
from tasks.batch_inference.failure_reasons import FailureReason, FailureReasons


def test_reasons_that_differ_in_a_value_count_together() -> None:
    counted = FailureReasons()
    for row in (3, 0, 4, 1, 2):  # records of one form are predicted together
        counted.add(2, row, f"could not convert string to float: 'a{row}'")
    counted.add(3, 9, "It has 3 cells, and the header names 12 columns: 1,2,3")
    counted.add(3, 10, "It has 4 cells, and the header names 12 columns: 1,2,3,4")

    assert counted.found == [
        FailureReason("could not convert string to float: 'a0'", 5, 2, 0),
        FailureReason("It has 3 cells, and the header names 12 columns: 1,2,3", 2, 3, 9),
    ]


def test_a_reason_has_no_characters_that_control_a_terminal() -> None:
    reasons = FailureReasons()
    reasons.add(0, 1, "bad \x1b[31mcolour\0")

    assert reasons.found[0].reason == "bad \ufffd[31mcolour\ufffd"


def test_counts_of_parts_are_added() -> None:
    first, second = FailureReasons(), FailureReasons()
    first.add(0, 1, "late")
    for row in range(3):
        second.add(1, row, "wrong")
    second.add(1, 8, "late")

    together = failure_reasons.combined([first.found, second.found])
    assert together == [FailureReason("wrong", 3, 1, 0), FailureReason("late", 2, 0, 1)]
    assert failure_reasons.parse(map(asdict, together)) == together


def test_any_number_of_kinds_is_counted_and_a_few_are_shown() -> None:
    counted = FailureReasons()
    kinds = ["".join(chr(97 + int(digit)) for digit in str(at)) for at in range(1000)]
    for row, kind in enumerate(kinds):
        counted.add(0, row, f"{kind}-" * 150)

    assert sum(one.count for one in counted.found) == 1000
    assert len(counted.found) == 100
    assert max(len(one.reason) for one in counted.found) == 300
    shown = failure_reasons.shown(counted.found, lambda part: f"part-{part}.jsonl")
    assert len(shown) == 10
    assert shown[1] == {"reason": "a-" * 150, "count": 1, "file": "part-0.jsonl", "row": 0}
