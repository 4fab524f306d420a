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
    """Parameters with the id of the tuning to learn from, whose name may change.

    Raises:
        BadInputError: With the code ``WarmStartInvalid`` if it can be no name.
        NotFoundError: If there is none.
        ConflictError: If several runs have the name.
    """
    key = given.get("warm_start")
    if not key:
        return dict(given)
    names.check_plain(str(key), "WarmStartInvalid")
    return {**given, "warm_start": runs.find(str(key))}


def trials_of(key: str, before: float) -> list[Trial]:
    """The trials of the tuning whose id, or whose only name, is ``key``.

    Args:
        key: The id or the name.
        before: They are those that had ended by then, so that it is the same ones whenever they
            are asked for; in seconds since 1970.

    Raises:
        NotFoundError: If there is none.
    """
    found = rows.of(runs.find(key))
    return [one for one in found if one.ended is not None and one.ended < before]


def check(tuning: Tuning) -> None:
    """Refuse to learn from what is no tuning, or from one that sought something else.

    Raises:
        NotFoundError: If there is no such run.
        BadInputError: With the codes ``WarmStartNoTuning`` and ``WarmStartDiffers``.
    """
    if not tuning.warm_start:
        return
    found = runs.show(tuning.warm_start)
    if found.flow != flow_kinds.TUNE.name:
        raise BadInputError(
            f"warm_start: {tuning.warm_start!r} is a run of {found.flow}.",
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
            f"warm_start: {tuning.warm_start!r} sought {_describe(sought)}, and this one seeks "
            f"{_describe(wanted)}.",
            "Name a tuning with the same objectives, or leave warm_start out.",
            code="WarmStartDiffers",
        )


def _describe(objectives: list[tuple[Any, Any, Any]]) -> str:
    return ", ".join(f"to {direction} the {use} {metric}" for metric, direction, use in objectives)
