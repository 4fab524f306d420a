"""The keys and types that ``--json`` prints of evaluations, and that Python returns."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from modelyard.api.evaluations import EvaluationVerbs
from modelyard.commands import evaluation as commands
from tasks.evaluation import evaluation_records
from tests.printed_json import shape
from tests.tasks.evaluation.test_comparison import record

METRICS = 5 * 5 + 2  # of two classes
DIFFERENCE = {"difference": "float", "low": "float", "high": "float", "verdict": "str"}
FIGURES = {"undefined": {}, "notes": {}, "confusion_matrix": {"classes": ["str"],
                                                              "counts": [["int"]]}}  # fmt: skip


@pytest.fixture(autouse=True)
def _found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"one": record(tmp_path, "one", 0.5), "two": record(tmp_path, "two", 1.5, 3)}
    monkeypatch.setattr(evaluation_records, "find", made.__getitem__)
    for module in ("modelyard.commands.evaluation", "modelyard.api.verbs"):
        monkeypatch.setattr(f"{module}.connected", lambda **_: contextlib.nullcontext())


def printed(*arguments: str) -> Any:
    answer = CliRunner().invoke(commands.app, [*arguments, "--json"])
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def test_a_comparison() -> None:
    found = printed("compare", "one", "two")

    metrics = found.pop("metrics")
    assert len(metrics) == METRICS
    for metric in metrics.values():
        assert shape(metric) == {"values": ["float"], "differences": [DIFFERENCE]}
    assert shape(found) == {
        "evaluations": [
            {"id": "str", "name": "str", "model": "str", "evaluated": "int", "remarks": []}
        ],
        "remarks": [],
    }
    assert EvaluationVerbs.compare("one", "two").to_json() == {**found, "metrics": metrics}


def test_an_evaluation() -> None:
    found = printed("show", "one")

    metrics, intervals = found.pop("metrics"), found.pop("intervals")
    assert len(metrics) == len(intervals) == METRICS
    assert set(map(len, intervals.values())) == {2}
    assert shape(found) == {
        "model": "str", "flow_run_id": "str", "mlflow_run_id": "str", "batch_inference": "str",
        "data": {"uri": "str", "format": "str", "files": [], "sha256": "str"}, "task": "str",
        "class_names": ["str"], "target_field": "str", "targets_sha256": "str",
        "counts": dict.fromkeys(found["counts"], "int"), "examples": [], "unseen_targets": {},
        "remarks": [], "records": "int", **FIGURES, "slice_field": "NoneType", "slices": {},
    }  # fmt: skip
    assert EvaluationVerbs.show("one").to_json() == found | {
        "metrics": metrics,
        "intervals": {name: tuple(one) for name, one in intervals.items()},
    }


def test_intervals_are_in_a_line_for_people() -> None:
    shown = CliRunner().invoke(commands.app, ["show", "one"]).stdout

    _, intervals = shown.split("intervals\n")
    assert re.search(r"^  accuracy: 0\.\d{1,6}, 0\.\d{1,6}$", intervals, re.MULTILINE)


def test_the_file_has_the_same_keys_in_the_same_order(tmp_path: Path) -> None:
    written = json.loads((tmp_path / "one" / "result.json").read_bytes())

    shown = printed("show", "one")

    assert [name for name in shown if name in written] == list(written)
