"""Trials as the catalogue keeps them."""

from __future__ import annotations

import dataclasses
from typing import Any

from registry.tunings import trials
from registry.tunings.trials import TrialRow
from tuning.trials import Trial, TrialState


def of(tuning: str) -> list[Trial]:
    """Every trial of the tuning with this flow run, by number."""
    return [_trial(row) for row in trials.of(tuning)]


def save(tuning: str, *changed: Trial) -> None:
    """Keep trials for good, before it returns: all of them, or none.

    Raises:
        DiskFullError: If the database has no room.
        sqlalchemy.exc.OperationalError: If it cannot be reached for longer.
    """
    trials.save(tuning, *map(dataclasses.asdict, changed))


def _trial(row: TrialRow) -> Trial:
    fields: dict[str, Any] = {**row, "state": TrialState(row["state"])}
    return Trial(**fields)
