"""Train boosted trees on a table; resume from a checkpoint; leave a pipeline for raw rows."""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boosting
import joblib
import numpy as np
import report
import settings as all_settings
import table as tables
from settings import Settings, TrainingError
from sklearn.compose import ColumnTransformer
from sklearn.inspection import permutation_importance
from sklearn.pipeline import Pipeline
from table import CLASSIFICATION, Table
from tensorboard.summary import Writer

_CHECKPOINT = "checkpoint.joblib"
_MOST_ROWS_FOR_TRAIN_LOSS = 10_000
_MOST_CELLS_FOR_IMPORTANCE = 500_000


@dataclass
class Progress:
    """What has been done.

    Attributes:
        model: The trees so far.
        history: The metrics of every report.
        best: The metrics of the best one.
        best_model: The trees as they were then.
    """

    model: Any
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    best_model: Any = None

    @property
    def iteration(self) -> int:
        """How many iterations are done."""
        return int(self.history[-1]["iteration"]) if self.history else 0

    def add(self, metrics: dict[str, float]) -> None:
        """Take down a report."""
        self.history.append(metrics)
        if not self.best or metrics["validation_loss"] < self.best["validation_loss"]:
            self.best, self.best_model = metrics, copy.deepcopy(self.model)

    def ended(self, settings: Settings) -> bool:
        """Whether enough was done, or nothing became better for long enough."""
        idle = self.iteration - self.best.get("iteration", 0)
        return self.iteration >= settings.iterations or 0 < settings.patience <= idle


def train(settings: Settings) -> None:
    """The whole training.

    Raises:
        TrainingError: If it cannot be done, in a sentence.
    """
    validation_folder = os.environ.get("EM_DATASET_VALIDATION")
    training, validation = tables.load(
        _dataset("EM_DATASET_TRAIN"),
        Path(validation_folder) if validation_folder else None,
        settings,
    )
    print(
        f"{training.task} of {settings.target}: {len(training)} training and {len(validation)} "
        f"validation rows, {len(training.features.columns)} columns, of which "
        f"{len(training.categories)} are categories",
        flush=True,
    )
    encoder = boosting.encoder(training)
    encoded = encoder.fit_transform(training.features)
    fixed = {
        "target": settings.target,
        "task": training.task,
        "columns": list(training.features.columns),
        "data": joblib.hash((encoded, training.target)),
    }
    progress = resume(fixed) or Progress(boosting.estimator(settings, training))
    grow(progress, encoder, encoded, training, validation, fixed, settings)
    print(
        f"best_iteration={progress.best['iteration']} "
        f"best_validation_loss={progress.best['validation_loss']:.6g}",
        flush=True,
    )
    pipeline = Pipeline([("columns", encoder), ("model", progress.best_model)])
    importances = importance(pipeline, validation, settings)
    leave_model(pipeline, training, progress, importances, settings)
    report.log(plots(pipeline, validation, importances))


def grow(
    progress: Progress,
    encoder: ColumnTransformer,
    encoded: Any,
    training: Table,
    validation: Table,
    fixed: dict[str, Any],
    settings: Settings,
) -> None:
    """Grow trees, some at a time; print, draw and keep each time."""
    measured = training.sample(_MOST_ROWS_FOR_TRAIN_LOSS, settings.seed)
    train_rows = encoder.transform(measured.features)
    validation_rows = encoder.transform(validation.features)
    loss = functools.partial(boosting.loss, settings=settings)
    board = Writer(os.environ["EM_TENSORBOARD_LOG_DIR"])
    while not progress.ended(settings):
        iteration = min(settings.iterations, progress.iteration + settings.report_every)
        progress.model.set_params(max_iter=iteration)
        progress.model.fit(encoded, training.target)
        metrics = {
            "train_loss": loss(progress.model, train_rows, measured.target),
            "validation_loss": loss(progress.model, validation_rows, validation.target),
            **boosting.scores(progress.model, validation_rows, validation.target),
        }
        if not np.isfinite(metrics["validation_loss"]):
            raise TrainingError(
                f"The validation loss became {metrics['validation_loss']} by iteration "
                f"{iteration}. Lower the learning rate."
            )
        progress.add({"iteration": iteration, **metrics})
        shown = " ".join(f"{name}={value:.6g}" for name, value in metrics.items())
        print(f"iteration={iteration} {shown}", flush=True)
        for name, value in metrics.items():
            board.add_scalar(name, value, iteration)
        board.flush()
        kept = {"fixed": fixed, "progress": vars(progress)}
        write(kept, Path(os.environ["EM_CHECKPOINT_DIR"], _CHECKPOINT))
    board.close()


def write(value: Any, path: Path) -> None:
    """Write ``value`` whole, or leave what was there.

    Raises:
        OSError: If it does not fit.
    """
    buffer = io.BytesIO()
    joblib.dump(value, buffer)
    partial = path.with_name(f".{path.name}.partial")  # hidden: not copied anywhere
    try:
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def resume(fixed: dict[str, Any]) -> Progress | None:
    """The progress of the checkpoint that was given, if any.

    Raises:
        TrainingError: If it is none, or one of other data: the trees know its values by rank.
    """
    folder = os.environ.get("EM_CHECKPOINT_INPUT_DIR")
    if not folder:
        return None
    path = Path(folder, _CHECKPOINT)
    if not path.exists():
        print(f"there is no {_CHECKPOINT} in {folder}; beginning anew", flush=True)
        return None
    try:
        found = joblib.load(path)
        other = [name for name, value in fixed.items() if found["fixed"][name] != value]
        progress = Progress(**found["progress"])
    except Exception as error:  # whatever unpickling a strange file raises
        raise TrainingError(f"{path} is not a checkpoint of this algorithm.") from error
    if other:
        raise TrainingError(
            f"The checkpoint {path} was made with another {other[0]}. Begin without it, or train "
            "as it was made."
        )
    print(f"resumed after iteration {progress.iteration}", flush=True)
    return progress


def importance(pipeline: Pipeline, validation: Table, settings: Settings) -> dict[str, float]:
    """How much the validation loss rises when a column's values are shuffled among the rows."""
    columns = validation.features.columns
    sample = validation.sample(max(200, _MOST_CELLS_FOR_IMPORTANCE // len(columns)), settings.seed)

    def quality(model: Any, features: Any, target: np.ndarray) -> float:
        return -boosting.loss(model, features, target, settings=settings)

    found = permutation_importance(
        pipeline, sample.features, sample.target, scoring=quality, random_state=settings.seed
    )
    return dict(zip(columns, map(float, found.importances_mean), strict=True))


def leave_model(
    pipeline: Pipeline,
    training: Table,
    progress: Progress,
    importances: dict[str, float],
    settings: Settings,
) -> None:
    """Write the pipeline, and what it takes and gives."""
    folder = Path(os.environ["EM_MODEL_DIR"])
    write(pipeline, folder / "model.joblib")
    described = {
        "task": training.task,
        "target": settings.target,
        "columns": [
            {"name": name, "kind": "category" if name in training.categories else "number"}
            for name in training.features.columns
        ],
        "classes": np.unique(training.target).tolist() if _classifies(training) else None,
        "metrics": progress.best,
        "importances": importances,
    }
    (folder / "config.json").write_text(json.dumps(described, indent=2, ensure_ascii=False))


def plots(pipeline: Pipeline, validation: Table, importances: dict[str, float]) -> dict[str, Any]:
    """What people look at."""
    predicted = pipeline.predict(validation.features)
    found = {"feature_importance": report.importance(importances)}
    if _classifies(validation):
        true, classes = validation.target, pipeline.classes_
        found["confusion_matrix"] = report.confusion(true, predicted, classes)
    else:
        found["residuals"] = report.residuals(validation.target, predicted)
    return found


def _classifies(table: Table) -> bool:
    return table.task == CLASSIFICATION


def _dataset(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        raise TrainingError("There is no data set 'train'.")
    return Path(folder)


def main() -> None:
    """Train; what goes wrong is one sentence on standard error, and exit status 1."""
    try:
        train(all_settings.read())
    except TrainingError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"A file could not be read or written: {error}.")
    except ValueError as error:  # scikit-learn's, of values that it cannot compute with
        why = " ".join(str(error).split()).rstrip(".")
        sys.exit(f"The data cannot be learned from: {why}.")


if __name__ == "__main__":
    main()
