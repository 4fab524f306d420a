"""Runs as Prefect would list them, and experiments as runs open them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from registry import experiment_names, runs, tracking
from registry.runs import Listed
from registry.tracking import Opening

CREATED: dict[str, datetime] = {}


def new_id() -> str:
    """The id of a flow run that is created now."""
    run_id = str(uuid4())
    CREATED[run_id] = datetime.now(UTC)
    return run_id


class Prefect:
    """The runs that Prefect has."""

    def __init__(self) -> None:
        self.runs: dict[str, Listed] = {}

    @classmethod
    def installed(cls, monkeypatch: pytest.MonkeyPatch) -> Prefect:
        """One that the registry asks instead of the real one."""
        fake = cls()
        monkeypatch.setattr(runs, "not_complete", fake.not_complete)
        monkeypatch.setattr(runs, "with_ids", fake.with_ids)
        monkeypatch.setattr(experiment_names, "_created", CREATED.get)
        return fake

    def add(self, state: str = "RUNNING", opened: bool = False, **parameters: Any) -> str:
        run_id = new_id()
        self.put(run_id, state, opened, **parameters)
        return run_id

    def put(self, run_id: str, state: str, opened: bool = False, **parameters: Any) -> None:
        created = CREATED[run_id]
        row = {
            "id": run_id,
            "name": f"run {len(self.runs)}",
            "state": state,
            "created": str(created),
        }
        final = state in {"COMPLETE", "STOPPED", "FAIL TRAIN", "CREATE FAILED"}
        self.runs[run_id] = Listed(run_id, row, created, parameters, final, opened)

    def not_complete(self, *, final: bool = True) -> list[Listed]:
        return [
            run
            for run in self.runs.values()
            if run.row["state"] != "COMPLETE" and (final or not run.final)
        ]

    def with_ids(self, ids: set[str]) -> list[Listed]:
        return [self.runs[run_id] for run_id in ids if run_id in self.runs]


def opening(flow_run_id: str, experiment: str) -> Opening:
    return Opening(flow_run_id, "train", f"run {flow_run_id}", experiment, "", "me", {})


def experiment_of(flow_run_id: str, experiment: str, *, retried: bool = False) -> str:
    """The id of the experiment that a run opens which names ``experiment``."""
    run_id = tracking.open_run(opening(flow_run_id, experiment), retried=retried).run_id
    return str(tracking.client().get_run(run_id).info.experiment_id)


def exists(name: str) -> bool:
    return tracking.client().get_experiment_by_name(name) is not None


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt
