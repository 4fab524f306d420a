"""Contexts of runs for tests."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from flows.run_context import RunContext
from infra.home import Home
from infra.settings import Settings
from registry import flow_kinds
from registry.flow_kinds import FlowKind
from registry.runs import run_tags


def run_context_of(home: Home, kind: FlowKind = flow_kinds.TRAIN, **others: Any) -> RunContext:
    """The context of a run that was just created."""
    known: dict[str, Any] = {
        "flow_run_id": str(uuid4()), "name": "n", "user": "me", "attempt": 1, "labels": {},
        "tags": [run_tags.NO_MLFLOW_RUN],
        "settings": Settings(home=home.root),
    }  # fmt: skip
    return RunContext(kind=kind, home=home, **{**known, **others})
