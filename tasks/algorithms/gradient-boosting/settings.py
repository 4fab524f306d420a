"""What the training is told: its hyperparameters."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml


class TrainingError(Exception):
    """What keeps the training from going on, in a sentence for people."""


@dataclass(frozen=True)
class Settings:
    """The hyperparameters; ``algorithm.yaml`` says what each means."""

    target: str
    task: str
    iterations: int
    learning_rate: float
    max_leaf_nodes: int
    max_depth: int
    min_samples_leaf: int
    l2_regularization: float
    max_features: float
    loss: str
    class_weight: str
    validation_fraction: float
    patience: int
    report_every: int
    categorical_columns: str
    ignored_columns: str
    delimiter: str
    seed: int


def read() -> Settings:
    """The hyperparameters of ``EM_HPS``, which has them typed, over the declared defaults.

    Raises:
        TrainingError: If one is missing that has no default.
    """
    declared = yaml.safe_load(Path(__file__).with_name("algorithm.yaml").read_text())
    given = json.loads(os.environ.get("EM_HPS", "{}"))
    values = {
        one["name"]: given.get(one["name"], one.get("default"))
        for one in declared["hyperparameters"]
    }
    if not values["target"]:
        raise TrainingError("The hyperparameter 'target' must name the column to predict.")
    return Settings(**values)


def names(text: str) -> list[str]:
    """The column names of a list that is separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
