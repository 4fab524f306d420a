"""Katib's cases of metric collection: where we find the same, and where not, and why."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.tuning import facts
from tuning.metrics import MetricCollector, MetricPattern

_CASES = facts.load("metric_collection")["cases"]

# case: what is found here instead.
_OURS: dict[str, list[tuple[str, float]]] = {
    # A metric without values is told of by finding nothing: the trial is METRICS_UNAVAILABLE then.
    # Katib has a text for it in the place of a value, and drops what the others were.
    "unclosed brace TEXT": [("loss", 0.3634)],
    # NaN is a value that was reported, and never wins; Katib's pattern makes an empty text of it,
    # and the trial the best one.
    "nan gives an empty value (Katib bug: parses to nothing, Succeeded with latest '')": [
        ("loss", math.nan)
    ],
    # A name is a whole name: val/accuracy is another metric than accuracy.
    "slash name: the tail matches another metric": [],
    # NAME: VALUE is what most scripts print.
    "colon is not matched by default": [("loss", 0.5)],
}


def _collect(case: dict[str, Any]) -> list[tuple[str, float]]:
    (pattern,) = case["filters"] or [None]
    collector = MetricCollector(
        [MetricPattern(name=name, pattern=pattern) for name in case["metrics"]]
    )
    lines = case["log"].splitlines()
    return [(one.name, one.value) for line in lines for one in collector.collect(line)]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: str(case["name"]))
def test_katibs_cases(case: dict[str, Any]) -> None:
    """Ours yields values in the order of the log, line by line, and metric by metric in a line."""
    katibs = [tuple(observation) for observation in case["observations"]]
    ours = _OURS.get(case["name"])

    found = _collect(case)

    if ours is None:
        assert found == [(name, float(value)) for name, value in katibs]
    else:
        assert repr(found) == repr(ours)  # NaN is not equal to itself
        assert [(name, str(value)) for name, value in found] != katibs


def test_every_difference_is_one_of_the_cases() -> None:
    assert _OURS.keys() <= {case["name"] for case in _CASES}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("val/accuracy", "val/accuracy=0.9"),
        ("val/accuracy", "val/accuracy: 0.9"),
        ("val.accuracy", "val.accuracy = 0.9"),
        ("val.accuracy", "accuracy=0.1 val.accuracy=0.9"),
    ],
)
def test_names_that_katib_cannot_collect(name: str, line: str) -> None:
    case = {"filters": None, "metrics": [name], "log": line}

    assert _collect(case) == [(name, 0.9)]
