"""Objectives and constraints of a tuning, and the trials that are best by them.

A trial's value of an objective is the best of its finite reports, or the last of them where the
objective says so. What is NaN or infinite counts as not reported.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from infra.errors import BadInputError
from tuning.forms import LARGEST_NUMBER, FieldGroup, OptionalNumber, is_finite, is_number
from tuning.trials import OBSERVED, Trial

Direction = Literal["minimize", "maximize"]


class _MetricField(FieldGroup):
    metric: str = Field(description="The metric's name.")


class Objective(_MetricField):
    """Metric to minimize or maximize."""

    direction: Direction = Field(description="Whether smaller or larger values are better.")
    goal: OptionalNumber = Field(
        default=None,
        description="Complete the tuning as soon as a trial has reached this value.",
    )
    use: Literal["best", "last"] = Field(
        default="best",
        description="Value of a trial that counts: its best report or its last one.",
    )

    @field_validator("goal", mode="before")
    @classmethod
    def _goal(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not is_number(value):
            raise _goal_invalid(info.data.get("metric"))
        return value

    def better(self, value: float, than: float) -> bool:
        """Whether ``value`` is strictly the better one."""
        return value < than if self.direction == "minimize" else value > than


class Constraint(_MetricField):
    """Metric that must be within bounds at the end of a trial."""

    min: OptionalNumber = Field(default=None, description="Smallest allowed last value.")
    max: OptionalNumber = Field(default=None, description="Largest allowed last value.")

    @field_validator("min", "max", mode="before")
    @classmethod
    def _bound(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not is_number(value):
            raise _bound_invalid(info.data.get("metric"), info.field_name)
        return value

    def violation(self, value: float) -> float:
        """Distance of ``value`` beyond the bounds; at most 0 within them."""
        over = -math.inf if self.max is None else value - self.max
        under = -math.inf if self.min is None else self.min - value
        return max(over, under)


def check(
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    metric_names: Collection[str],
) -> None:
    """Refuse objectives and constraints that cannot be judged.

    Args:
        objectives: The objectives.
        constraints: The constraints.
        metric_names: The names of the metrics that are collected.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if not objectives:
        raise BadInputError(
            "There is no objective.", "Give a metric and its direction.", code="ObjectiveMissing"
        )
    seen: set[str] = set()
    for objective in objectives:
        _check_known(objective.metric, metric_names, "objective", "ObjectiveUnknown")
        if objective.metric in seen:
            raise BadInputError(
                f"The objective {objective.metric!r} is given twice.", "Give each metric once.",
                code="ObjectiveTwice",
            )  # fmt: skip
        seen.add(objective.metric)
        if objective.goal is not None:
            _check_goal(objective.metric, objective.goal)
            if len(objectives) > 1:
                raise BadInputError(
                    f"The objective {objective.metric!r} has a goal beside other objectives.",
                    "Leave the goal out, or give one objective.",
                    code="GoalWithSeveral",
                )
    for constraint in constraints:
        _check_known(constraint.metric, metric_names, "constraint", "ConstraintUnknown")
        _check_bounds(constraint)


def _check_known(metric: str, known: Collection[str], what: str, code: str) -> None:
    if metric not in known:
        there = f"There are: {', '.join(sorted(known))}." if known else "Add it to metrics."
        raise BadInputError(
            f"The metric {metric!r} of the {what} is not among the metrics.", there, code=code
        )


def _check_goal(metric: str, goal: float) -> None:
    if not is_finite(goal):
        raise _goal_invalid(metric)
    if abs(goal) > LARGEST_NUMBER:
        raise BadInputError(
            f"The goal of the objective {metric!r} is too large to be kept.",
            "Give a number of less than 63 bits.",
            code="NumberTooLarge",
        )


def _check_bounds(constraint: Constraint) -> None:
    metric = constraint.metric
    for word, bound in (("min", constraint.min), ("max", constraint.max)):
        if bound is not None and not is_finite(bound):
            raise _bound_invalid(metric, word)
        if bound is not None and abs(bound) > LARGEST_NUMBER:
            raise BadInputError(
                f"The {word} of the constraint on {metric!r} is too large to be kept.",
                "Give a number of less than 63 bits.",
                code="NumberTooLarge",
            )
    if constraint.min is None and constraint.max is None:
        raise BadInputError(
            f"The constraint on {metric!r} has no bounds.", "Give its min or its max.",
            code="ConstraintWithoutBounds",
        )  # fmt: skip
    low, high = constraint.min, constraint.max
    if low is not None and high is not None and low > high:
        raise BadInputError(
            f"The constraint on {metric!r} has a min of {low}, which is above its max of {high}.",
            "Swap them.",
            code="ConstraintEmpty",
        )


def _goal_invalid(metric: object) -> BadInputError:
    return BadInputError(
        f"The goal of the objective {metric!r} is not a finite number.",
        "Give a number, without quotes, or leave it out.",
        code="GoalInvalid",
    )


def _bound_invalid(metric: object, word: object) -> BadInputError:
    return BadInputError(
        f"The {word} of the constraint on {metric!r} is not a finite number.",
        "Give a number, without quotes, or leave it out.",
        code="ConstraintBoundInvalid",
    )


def value(reports: Iterable[float], objective: Objective) -> float | None:
    """Compute a trial's value of an objective; None without a finite report."""
    finite = [report for report in reports if math.isfinite(report)]
    if not finite:
        return None
    if objective.use == "last":
        return finite[-1]
    return min(finite) if objective.direction == "minimize" else max(finite)


def values(
    observed: Mapping[str, Sequence[float]], objectives: Sequence[Objective]
) -> tuple[float, ...] | None:
    """Compute a trial's value of each objective; None unless each has a finite one.

    Args:
        observed: What was reported of each metric, in order.
        objectives: The objectives.
    """
    found = [value(observed.get(each.metric, ()), each) for each in objectives]
    known = tuple(one for one in found if one is not None)
    return known if len(known) == len(found) else None


def violations(
    observed: Mapping[str, Sequence[float]], constraints: Sequence[Constraint]
) -> tuple[float, ...] | None:
    """Compute each constraint's violation by the last finite report of its metric.

    Args:
        observed: What was reported of each metric, in order.
        constraints: The constraints.

    Returns:
        A number for each, at most 0 if it holds. None if one of the metrics was never finite:
        whether the trial is feasible is not known then, and it must not pass for it.
    """
    found = []
    for constraint in constraints:
        finite = [one for one in observed.get(constraint.metric, ()) if math.isfinite(one)]
        if not finite:
            return None
        found.append(constraint.violation(finite[-1]))
    return tuple(found)


def _counts(trial: Trial) -> bool:
    """Whether a trial can reach a goal and be the best."""
    return trial.state in OBSERVED and trial.values is not None and trial.feasible


def reached(trial: Trial, objectives: Sequence[Objective]) -> bool:
    """Whether a trial has reached the goal, if there is one."""
    return _counts(trial) and any(
        objective.goal is not None and not objective.better(objective.goal, than=found)
        for objective, found in zip(objectives, trial.values or (), strict=True)
    )


def best(trials: Iterable[Trial], objectives: Sequence[Objective]) -> Trial | None:
    """Find the best trial by a single objective, of equally good ones the first.

    None if no trial counts, and where there are several objectives: then there is a front.
    """
    candidates = sorted(filter(_counts, trials), key=lambda trial: trial.number)
    if len(objectives) != 1:
        return None
    return min(candidates, key=lambda trial: _losses(trial, objectives), default=None)


def front(trials: Iterable[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Find the Pareto front: the trials that no other one dominates.

    They come in the order of their numbers. Equally good ones are all among them.
    """
    kept: list[tuple[tuple[float, ...], Trial]] = []
    # What is better in one objective and as good in the others comes before, in this order.
    by_loss = sorted(
        ((_losses(trial, objectives), trial) for trial in trials if _counts(trial)),
        key=lambda pair: pair[0],
    )
    for losses, trial in by_loss:
        if not any(_dominates(other, losses) for other, _ in kept):
            kept.append((losses, trial))
    return sorted((trial for _, trial in kept), key=lambda trial: trial.number)


def _losses(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Values of the trial, negated where larger is better."""
    return tuple(
        found if objective.direction == "minimize" else -found
        for objective, found in zip(objectives, trial.values or (), strict=True)
    )


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
