"""Evaluations of files and of the outputs that a batch inference wrote for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from registry import evaluation_results
from registry.evaluation_results import CURVES, RESULT
from tasks.evaluation import evaluating
from tasks.evaluation.evaluating import EvaluationFolders, PredictedFiles
from tasks.evaluation.evaluation_request import Evaluation

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def evaluate(tmp_path: Path) -> Evaluate:
    """Evaluate files; each has the lines of the input, and the results by row."""

    def run(files: dict[str, tuple[str, dict[int, Any]]], **more: Any) -> dict[str, Any]:
        for name, (text, results) in files.items():
            for folder, shown in (("in", text), ("out/predictions", _lines(results))):
                path = tmp_path / folder / name
                if folder != "in":
                    path = path.with_suffix(".jsonl")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(shown)
        suffix = Path(next(iter(files))).suffix
        usual = {
            "input_uri": str(tmp_path / "in"), "output_uri": str(tmp_path / "out"),
            "target_field": "y", "class_names": ["no", "yes"], "input_format": suffix[1:],
        }  # fmt: skip
        request = Evaluation(**usual | more)
        folders = EvaluationFolders(tmp_path / "run")
        chosen = evaluating.select(request)
        evaluating.check_first_file(request, chosen, folders)
        checksums = {
            name: sha256((tmp_path / "out/predictions" / name).with_suffix(".jsonl").read_bytes())
            .hexdigest()
            for name in files
        }  # fmt: skip
        scores, data = evaluating.score(
            request, chosen, folders, PredictedFiles(0, checksums), lambda: None, lambda _: None
        )
        assert not [*folders.sorting.iterdir()]
        described = {"model": "models:/m/1", "data": {"uri": request.input_uri, **data}}
        written = tmp_path / "evaluation"
        found = evaluating.write(scores, described, request, written)
        _check_readable(written)
        return found

    return run


def _check_readable(folder: Path) -> None:
    """Check that pages read what was written."""
    content = (folder / RESULT).read_bytes()
    found, there = evaluation_results.result(content), json.loads(content)
    for shown, written in ((found, there), *((found.slices[one], there["slices"][one])
                                             for one in there["slices"])):  # fmt: skip
        assert (shown.records, shown.metrics) == (written["records"], written["metrics"])
    if found.task == "classification":
        assert found["confusion_matrix"] == there["confusion_matrix"]
    assert [one.to_json() for one in found.examples] == there["examples"]
    assert found.intervals == {name: tuple(one) for name, one in there["intervals"].items()}
    path = folder / CURVES
    if path.exists():
        curves = json.loads(path.read_bytes())
        shown = evaluation_results.curves(path.read_bytes()).to_json()
        assert {name: shown[name] for name in curves} == curves


def _lines(results: dict[int, Any]) -> str:
    found = [{"row": row, **(one if isinstance(one, dict) else {"prediction": one})}
             for row, one in results.items()]  # fmt: skip
    return "".join(json.dumps(one) + "\n" for one in found)
