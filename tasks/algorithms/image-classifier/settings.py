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

    architecture: str
    image_size: int
    channels: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    warmup_epochs: float
    weight_decay: float
    label_smoothing: float
    augmentation: bool
    mixed_precision: bool
    validation_fraction: float
    patience: int
    workers: int
    seed: int


def read() -> Settings:
    """The hyperparameters of ``EM_HPS``, which has them typed, over the declared defaults."""
    declared = yaml.safe_load(Path(__file__).with_name("algorithm.yaml").read_text())
    given = json.loads(os.environ.get("EM_HPS", "{}"))
    return Settings(
        **{
            one["name"]: given.get(one["name"], one["default"])
            for one in declared["hyperparameters"]
        }
    )
