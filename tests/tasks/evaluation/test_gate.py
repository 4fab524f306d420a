"""Rules of gates, and their verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from infra.errors import BadInputError
from tasks.evaluation import bootstrap
from tasks.evaluation.gate import GateSide, judge, parse

SPREAD = np.linspace(-0.02, 0.02, 1001)  # 95 % of it are within 0.019


def side(value: float | None, spread: np.ndarray = SPREAD, name: str = "roc_auc") -> GateSide:
    return GateSide({name: value}, {name: np.stack([spread, spread])})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("roc_auc >= old + 0.01", ("roc_auc", True, False, 1, 0.01)),
        ("log_loss<=old*0.95", ("log_loss", False, False, 0.95, 0)),
        ("recall/a b > old - 1e-3", ("recall/a b", True, True, 1, -1e-3)),
        ("mae < 2.5", ("mae", False, True, 0, 2.5)),
        ("r2 >= -0.5", ("r2", True, False, 0, -0.5)),
        ("f1 > old", ("f1", True, True, 1, 0)),
        ('recall/"a >= b"> 0.9', ("recall/a >= b", True, True, 0, 0.9)),
        ('f1/"<18" <= old + 1', ("f1/<18", False, False, 1, 1)),
        ('f1/" \\"x\\" / \\u00e9" > old', ('f1/ "x" / é', True, True, 1, 0)),
        ('f1/"" > 1', ("f1/", True, True, 0, 1)),
        ('f1/x "y" > 1', ('f1/x "y"', True, True, 0, 1)),
        ("f1/it's > 1", ("f1/it's", True, True, 0, 1)),
        ('f1/"a" or "b" > 1', ('f1/"a" or "b"', True, True, 0, 1)),
    ],
)
def test_rules(text: str, wanted: tuple[object, ...]) -> None:
    rule = parse(text)

    found = (rule.metric, rule.is_at_least, rule.is_strict, rule.factor, rule.offset)
    assert found == pytest.approx(wanted)
    assert rule.needs_old == ("old" in text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "roc_auc",
        "roc_auc == old",
        "roc_auc >= new",
        ">= 0.5",
        "f1 >= old + x",
        "a > 1 2",
        'f1/"a > b > 1',
        'f1/"\\x" > 1',
        "f1/a >= b > 1",
    ],
)
def test_what_is_not_a_rule_is_refused(text: str) -> None:
    with pytest.raises(BadInputError) as raised:
        parse(text)

    assert raised.value.code == "GateInvalid"
    assert "roc_auc >= old + 0.01" in raised.value.hint


@pytest.mark.parametrize(
    ("rule", "new", "passed"),
    [
        ("roc_auc >= old", 0.93, True),
        ("roc_auc >= old", 0.91, False),  # better, by chance
        ("roc_auc >= old + 0.02", 0.93, False),
        ("roc_auc >= old * 0.9", 0.84, True),
        ("roc_auc <= old", 0.87, True),
        ("roc_auc <= old", 0.89, False),
        ("roc_auc > 0.9", 0.93, True),
        ("roc_auc > 0.92", 0.93, False),
    ],
)
def test_the_lower_bound_decides(rule: str, new: float, passed: bool) -> None:
    found = judge(parse(rule), side(new), side(0.9, np.zeros(1001)))

    assert found.passed == passed
    assert found.lower is not None
    assert found.margin is not None
    assert found.lower == pytest.approx(found.margin - 0.019)
    assert (found.new, found.old) == (new, 0.9 if "old" in rule else None)
    assert f"{found.lower:+.4g}" in found.reason


def test_what_both_sides_share_by_chance_does_not_count() -> None:
    found = judge(parse("roc_auc >= old"), side(0.901), side(0.9))

    assert found.passed
    assert found.lower == pytest.approx(0.001)


def test_thirty_rows_that_are_all_right_are_not_surely_99_of_100() -> None:
    targets = np.zeros(30, int)
    sample = bootstrap.PairedSample(targets, [targets], [None], 30)
    new = GateSide({"accuracy": 1.0}, bootstrap.replicates(sample, ["a", "b"])[0])

    assert not judge(parse("accuracy > 0.9"), new, None).passed
    assert judge(parse("accuracy > 0.87"), new, None).passed


def test_the_same_figures_are_at_least_the_old_ones_but_not_above() -> None:
    assert judge(parse("roc_auc >= old"), side(0.9), side(0.9)).passed
    assert not judge(parse("roc_auc > old"), side(0.9), side(0.9)).passed


@pytest.mark.parametrize(
    ("rule", "new", "old", "reason"),
    [
        ("roc_auc >= old", side(0.9), None, "There is no old side"),
        ("f1 >= 0.5", side(0.9), None, "no metric 'f1'; it has roc_auc"),
        ("roc_auc >= 0.5", side(None), None, "undefined for the new side"),
        ("roc_auc >= old", side(0.9), side(None), "undefined for the old side"),
        ("roc_auc >= 0.5", GateSide({"roc_auc": 1.0}, {}), None, "has no interval"),
        ("roc_auc >= 0.5", side(0.9, np.full(100, np.nan)), None, "there are too few"),
    ],
)
def test_what_cannot_be_judged_is_not_passed(
    rule: str, new: GateSide, old: GateSide | None, reason: str
) -> None:
    found = judge(parse(rule), new, old)

    assert not found.passed
    assert reason in found.reason
    assert found.to_json()["lower"] is None
