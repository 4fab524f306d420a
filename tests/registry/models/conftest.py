"""What tests of models share."""

from __future__ import annotations

import pytest

from registry.runs import runs


@pytest.fixture(autouse=True)
def _no_active_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run predicts with a model, unless a test says so; deletion would ask Prefect."""
    monkeypatch.setattr(runs, "active", list)
