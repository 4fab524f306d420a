"""Files of evaluations, as a test wants them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from tests.modelyard.pages.conftest import World, tracked

OF_CLASS = ("precision", "recall", "f1", "roc_auc", "pr_auc")
CURVE = {
    "positives": 4, "negatives": 2, "thresholds": [0.9, 0.5, 0.1], "true_positives": [1, 3, 4],
    "false_positives": [0, 1, 2],
}  # fmt: skip


def figures(classes: list[str], value: float = 0.75) -> dict[str, Any]:
    """Metrics of a classification."""
    metrics: dict[str, float | None] = {"accuracy": value, "log_loss": 0.5}
    for name in OF_CLASS:
        metrics |= {name: value, f"{name}_weighted": value, f"{name}_micro": value}
        metrics |= {f"{name}/{one}": value for one in classes}
    return metrics


def classified(classes: list[str], **more: Any) -> dict[str, Any]:
    """The result of a classification: each class has three records right, and one is the next."""
    size = len(classes)
    counts = [[0] * (size + 1) for _ in classes]
    for at, row in enumerate(counts):
        row[at], row[(at + 1) % size] = 3, 1
    usual = {
        "model": "models:/churn/3", "task": "classification", "class_names": classes,
        "target_field": "churned", "records": 4 * size, "metrics": figures(classes),
        "undefined": {}, "notes": {}, "slice_field": None, "slices": {},
        "counts": {"records": 4 * size + 1, "evaluated": 4 * size}, "remarks": [],
        "data": {"uri": "s3://data/in", "sha256": "ab" * 32,
                 "files": [{"name": "a.csv", "bytes": 2048, "sha256": "cd" * 32}]},
        "confusion_matrix": {"classes": classes, "counts": counts},
    }  # fmt: skip
    return usual | more


def regressed(**more: Any) -> dict[str, Any]:
    """The result of a regression."""
    found = classified([], task="regression", metrics={"mae": 48.781927, "rmsle": None},
                       undefined={"rmsle": "A value is below 0."}, records=9)  # fmt: skip
    del found["confusion_matrix"]
    return found | more


def curves(classes: list[str]) -> dict[str, Any]:
    """The curves of a classification."""
    return {"classes": dict.fromkeys(classes, CURVE), "micro": CURVE}


ERRORS = {
    "errors": {"quantiles": [0, 1, 4], "edges": [-1, 0, 4], "counts": [1, 2],
               "targets": [1, 2.5], "predictions": [2, 2]},
}  # fmt: skip


def sampled(
    world: World, mlflow_run: str, hits: float, rows: int = 60, *, classes: int = 2
) -> None:
    """Have a sample of rows, of which a share is predicted right; 0 classes for a regression."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {"id": np.arange(rows, dtype=np.uint64)}
    if classes:
        targets = np.arange(rows) % classes
        right = random.random(rows) < hits
        predictions = np.where(right, targets, (targets + 1) % classes)
        scores = np.full((rows, classes), 0.2 / (classes - 1))
        scores[np.arange(rows), predictions] = 0.8
        columns |= {"target": targets, "prediction": predictions, "probabilities": scores}
    else:
        targets = np.arange(1.0, rows + 1)
        columns |= {
            "target": targets,
            "prediction": targets + (1 - hits) * random.normal(size=rows),
        }
    written = io.BytesIO()
    np.savez_compressed(written, allow_pickle=False, **columns)
    world.artifacts[mlflow_run, "evaluation/sample.npz"] = written.getvalue()


def keep(
    world: World, result: dict[str, Any] | bytes, curves: Any = None, mlflow_run: str = "m"
) -> None:
    """Have an evaluation's files among the artifacts of an MLflow run."""
    world.tracked_as[mlflow_run] = tracked(tags={"modelyard.evaluated_model": "models:/churn/3"})
    content = result if isinstance(result, bytes) else json.dumps(result).encode()
    world.artifacts[mlflow_run, "evaluation/result.json"] = content
    if curves is not None:
        world.artifacts[mlflow_run, "evaluation/curves.json"] = json.dumps(curves).encode()
