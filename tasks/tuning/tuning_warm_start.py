"""Trials of an earlier tuning, for the search to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.errors import BadInputError
from registry import flow_kinds, names
from registry.runs import runs
from tasks.trials import rows
from tasks.tuning.tuning_request import Tuning
from tuning.trials import Trial


def pin(given: Mapping[str, Any]) -> dict[str, Any]:
    """Pin the id of the tuning to learn from, because its name may change.

    Raises:
        BadInputError: With the code ``WarmStartInvalid`` if it is not a valid name.
        NotFoundError: If it does not exist.
        ConflictError: If several runs have the name.
    """
    key = given.get("warm_start")
    if not key:
        return dict(given)
    names.check_plain(str(key), "WarmStartInvalid")
    return {**given, "warm_start": runs.find(str(key))}


def trials_of(key: str, before: float) -> list[Trial]:
    """List the trials of a tuning that ended before a time.

    Args:
        key: Id or unique name of the tuning.
        before: Time in seconds since 1970; it makes the list the same in every attempt.

    Raises:
        NotFoundError: If the tuning does not exist.
    """
    found = rows.of(runs.find(key))
    return [one for one in found if one.ended is not None and one.ended < before]


def check(tuning: Tuning) -> None:
    """Refuse a ``warm_start`` run that is not a tuning, or has other objectives.

    Raises:
        NotFoundError: If the run does not exist.
        BadInputError: With the codes ``WarmStartNoTuning`` and ``WarmStartDiffers``.
    """
    if not tuning.warm_start:
        return
    found = runs.show(tuning.warm_start)
    if found.flow != flow_kinds.TUNE.name:
        raise BadInputError(
            f"warm_start: {tuning.warm_start!r} is a run of {found.flow}, not a tuning.",
            "Name a tuning: modelyard runs list --flow tune.",
            code="WarmStartNoTuning",
        )
    wanted = [(one.metric, one.direction, one.use) for one in tuning.objective]
    given = found.parameters.get("objective", [])
    sought = [
        (one.get("metric"), one.get("direction"), one.get("use", "best"))
        for one in (given if isinstance(given, list) else [given])
        if isinstance(one, Mapping)
    ]
    if sought != wanted:
        raise BadInputError(
            f"warm_start: the objectives differ: {tuning.warm_start!r} has {_describe(sought)}; "
            f"this tuning has {_describe(wanted)}.",
            "Name a tuning with the same objectives, or leave warm_start out.",
            code="WarmStartDiffers",
        )


def _describe(objectives: list[tuple[Any, Any, Any]]) -> str:
    described = (f"{direction} {metric} ({use})" for metric, direction, use in objectives)
    return ", ".join(described) or "none"
