"""Gates: rules that a new version must pass to take the place of an old one.

A gate is a function of figures and of how they deviate in the replicates of a paired bootstrap.
It knows nothing of models, runs or aliases, so whatever has an old and a new side can ask it.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from modelyard_runtime.frames import Array

from infra.errors import BadInputError
from tasks.evaluation import bootstrap

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_QUOTED = r'"(?:[^"\\]|\\.)*"'  # as in JSON
_RULE = re.compile(
    rf"\s*(?P<metric>[^<>=/]+/{_QUOTED}|[^<>=]+?)\s*(?P<compare><=|>=|<|>)\s*"
    rf"(?:(?P<old>old)(?:\s*(?P<sign>[-+*])\s*(?P<by>{_NUMBER}))?|(?P<fixed>-?{_NUMBER}))\s*"
)
_LEVEL = 0.95


@dataclass(frozen=True)
class GateRule:
    """A rule such as ``roc_auc >= old + 0.01``.

    Attributes:
        text: As it was written.
        metric: The metric.
        is_at_least: Whether the metric must be large.
        is_strict: Whether equality is not enough.
        factor: The bound is this times the old value,
        offset: plus this.
    """

    text: str
    metric: str
    is_at_least: bool
    is_strict: bool
    factor: float
    offset: float

    @property
    def needs_old(self) -> bool:
        """Whether the bound follows from the old value."""
        return self.factor != 0


@dataclass(frozen=True)
class GateSide:
    """One side of a gate.

    Attributes:
        values: Metrics by name; None where undefined.
        deviations: How each deviates in the replicates, the same ones for both sides: of the
            shape (2, replicates), see :func:`bootstrap.replicates`.
    """

    values: Mapping[str, float | None]
    deviations: Mapping[str, Array]


@dataclass(frozen=True)
class GateVerdict:
    """The verdict of one rule.

    Attributes:
        rule: The rule.
        passed: Whether it is passed.
        new: The metric of the new side.
        old: That of the old side; None where the rule does not need it.
        bound: What the rule asks for.
        margin: How far the new side is on the right side of the bound.
        lower: The lower bound of the margin's 95 % interval, which decides.
        reason: The verdict in words.
    """

    rule: str
    passed: bool
    new: float | None
    old: float | None
    bound: float | None
    margin: float | None
    lower: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return asdict(self)


def parse(text: str) -> GateRule:
    """Read a rule: ``METRIC >= old + 0.01``, ``METRIC <= old * 0.95``, ``METRIC > 0.9``.

    A class may be quoted as in JSON: ``recall/"a >= b" > 0.9``.

    Raises:
        BadInputError: With the code ``GateInvalid``.
    """
    found = _RULE.fullmatch(text)
    metric = None if found is None else _unquoted(found["metric"])
    if found is None or metric is None:
        raise BadInputError(
            f"The gate {text[:80]!r} is not a rule.",
            "Write METRIC, then >=, >, <= or <, then a number, old, or old with + - * and a "
            "number: 'roc_auc >= old + 0.01'. Quote a class that has <, > or = in its name: "
            "'recall/\"<18\" > 0.9'.",
            code="GateInvalid",
        )
    by, sign = float(found["by"] or 0), found["sign"]
    factor, offset = (1.0, {"+": by, "-": -by}.get(sign, 0.0)) if found["old"] else (0.0, 0.0)
    if sign == "*":
        factor = by
    return GateRule(
        text.strip(),
        metric,
        found["compare"][0] == ">",
        "=" not in found["compare"],
        factor,
        float(found["fixed"]) if found["fixed"] else offset,
    )


def _unquoted(metric: str) -> str | None:
    """A metric with its class as it is called; None if the quotes hold no JSON."""
    name, slash, of = metric.partition("/")
    if not of.startswith('"') or not re.fullmatch(_QUOTED, of):
        return metric
    try:
        return f"{name}{slash}{json.loads(of)}"
    except ValueError:
        return None


def judge(rule: GateRule, new: GateSide, old: GateSide | None) -> GateVerdict:
    """Judge a rule by the lower bound of the margin's 95 % interval, of a paired bootstrap.

    Args:
        rule: The rule.
        new: The side that is to take the place.
        old: The side that has it; None if there is none.
    """
    value = new.values.get(rule.metric)
    before = old.values.get(rule.metric) if old is not None and rule.needs_old else None
    if (reason := _missing(rule, new, old)) or value is None:
        return GateVerdict(rule.text, False, value, before, None, None, None, reason)
    bound = rule.factor * (before or 0.0) + rule.offset
    deviations = new.deviations[rule.metric]
    if rule.needs_old and old is not None:
        deviations = deviations - rule.factor * old.deviations[rule.metric][::-1]
    sign = 1 if rule.is_at_least else -1
    margin = sign * (value - bound)
    apart = bootstrap.interval(sign * deviations, _LEVEL)
    if apart is None:
        reason = f"{rule.metric} is undefined for too many draws of the rows: there are too few."
        return GateVerdict(rule.text, False, value, before, bound, margin, None, reason)
    lower = margin + apart[0]
    compare: Callable[[float, float], bool] = operator.gt if rule.is_strict else operator.ge
    passed = bool(compare(lower, 0.0))
    is_certain = "even" if passed else "not surely: by chance"
    side = "above" if rule.is_at_least else "below"
    reason = (
        f"{rule.metric} is {value:.6g}, {margin:+.4g} {side} the {bound:.6g} that is asked for; "
        f"{is_certain} the lower bound of 95 % is {lower:+.4g}."
    )
    return GateVerdict(rule.text, passed, value, before, bound, margin, lower, reason)


def _missing(rule: GateRule, new: GateSide, old: GateSide | None) -> str:
    """Why a rule cannot be judged; "" if it can."""
    if rule.needs_old and old is None:
        return "There is no old side to compare with."
    sides = {"new": new, **({"old": old} if rule.needs_old and old is not None else {})}
    for name, side in sides.items():
        if rule.metric not in side.values:
            known = ", ".join(one for one in side.values if "/" not in one)
            return f"The {name} side has no metric {rule.metric!r}; it has {known}."
        if side.values[rule.metric] is None:
            return f"{rule.metric} is undefined for the {name} side."
        if rule.metric not in side.deviations or not np.size(side.deviations[rule.metric]):
            return f"{rule.metric} has no interval, so it cannot be a gate."
    return ""
