"""What ``modelyard experiment show`` prints."""

from __future__ import annotations

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard import main, times
from modelyard.commands import experiment as command
from registry import experiments
from registry.experiments import ExperimentDetailView
from registry.runs.run_views import RunView

RUNS = [
    RunView(id="a", name="one", flow="train", state="COMPLETE",
            started=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)),
    RunView(id="b", name="two", flow="train", state="CREATE REQUESTED"),
]  # fmt: skip
FOUND = ExperimentDetailView(
    id="1", name="digits", state="ACTIVE", counts={"COMPLETE": 1, "CREATE REQUESTED": 1},
    runs=RUNS, links={}, deletion_blockers=["The run two (b) is CREATE REQUESTED."], history=[],
)  # fmt: skip


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_runs_are_a_table_with_local_times(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiments, "show", lambda *_: FOUND)
    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    monkeypatch.setattr(sys, "argv", ["modelyard", "experiment", "show", "digits", *option])
    with pytest.raises(SystemExit) as raised:
        main.main()
    out = capsys.readouterr().out

    assert raised.value.code == 0
    if option:
        started: Any = json.loads(out)["runs"][0]["started"]
        assert started == "2026-01-02T03:04:05.000678+00:00"
        return
    at = times.local("2026-01-02T03:04:05+00:00")
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "id: 1", "name: digits", "state: ACTIVE", "counts", "COMPLETE: 1", "CREATE REQUESTED: 1",
        "deletion_blockers", "The run two (b) is CREATE REQUESTED.",
        "id name flow state started", f"a one train COMPLETE {at}", "b two train CREATE REQUESTED",
    ]  # fmt: skip
