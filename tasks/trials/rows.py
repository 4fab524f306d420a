"""Conversion of trials to and from rows of the catalogue."""

from __future__ import annotations

import dataclasses
from typing import Any

from registry.tunings import trials
from registry.tunings.trials import TrialRow
from tuning.trials import Trial, TrialState


def of(tuning: str) -> list[Trial]:
    """List the trials of the tuning with this flow run, by number."""
    return [_trial(row) for row in trials.of(tuning)]


def save(tuning: str, *changed: Trial) -> None:
    """Write trials durably, in one transaction.

    Raises:
        DiskFullError: If the disk of the database is full.
        sqlalchemy.exc.OperationalError: If the database stays unavailable.
    """
    trials.save(tuning, *map(dataclasses.asdict, changed))


def _trial(row: TrialRow) -> Trial:
    fields: dict[str, Any] = {**row, "state": TrialState(row["state"])}
    return Trial(**fields)
