"""Folders of images: found, checked, divided, read."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cluster import Cluster
from model import pixels
from PIL import Image
from settings import Settings, TrainingError
from torch import Tensor
from torch.utils.data import Dataset

Sample = tuple[Path, int]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_MOST_UNREADABLE = 0.1
_CACHE_BYTES = 2**30

# What Pillow raises for files that are no image, or half of one.
_UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError
)  # fmt: skip


def classes_of(folder: Path) -> list[str]:
    """The classes of a data set: the names of the folders in it."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__MACOSX"))
    )


def samples_of(folder: Path, classes: Sequence[str]) -> list[Sample]:
    """The image files below the class folders, each with its class's number, in a fixed order."""
    return [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]


def readable(
    samples: list[Sample], config: dict[str, Any], cluster: Cluster, workers: int
) -> list[Sample]:
    """``samples`` without those that cannot be decoded. Each process tries its share of them.

    Raises:
        TrainingError: If they are too many.
    """
    mine = samples[cluster.rank :: cluster.world]
    with ThreadPoolExecutor(workers) as pool:
        tried = pool.map(lambda sample: _is_readable(sample[0], config), mine)
        broken = [sample for sample, good in zip(mine, tried, strict=True) if not good]
    refused = {sample for found in cluster.gather(broken) for sample in found}
    if not refused:
        return samples
    example = min(refused)[0]
    count = f"{len(refused)} of {len(samples)} images cannot be read, such as {example}"
    if len(refused) > _MOST_UNREADABLE * len(samples):
        raise TrainingError(f"{count}. Remove or repair them.")
    cluster.say(f"{count}; they are skipped")
    return [sample for sample in samples if sample not in refused]


def check_counts(samples: list[Sample], classes: Sequence[str], fewest: int) -> None:
    """Refuse a class with fewer than ``fewest`` images.

    Raises:
        TrainingError: Naming the class.
    """
    counts = Counter(label for _, label in samples)
    for label, name in enumerate(classes):
        if counts[label] < fewest:
            raise TrainingError(
                f"The class {name!r} has {counts[label]} readable images, and needs {fewest}."
            )


def divide(samples: list[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples: of every class a fraction, one at least, is held back."""
    generator = np.random.default_rng(seed)
    held_back: set[Sample] = set()
    for label in sorted({label for _, label in samples}):
        of_class = [sample for sample in samples if sample[1] == label]
        count = max(1, round(fraction * len(of_class)))
        held_back.update(of_class[i] for i in generator.permutation(len(of_class))[:count])
    return [one for one in samples if one not in held_back], sorted(held_back)


def load(
    train: Path, validation: Path | None, settings: Settings, cluster: Cluster
) -> tuple[dict[str, Any], list[Sample], list[Sample]]:
    """The network's configuration, the training samples and the validation samples.

    Raises:
        TrainingError: If the data cannot be trained on.
    """
    classes = classes_of(train)
    if len(classes) < 2:
        raise TrainingError(
            f"The data set 'train' has {len(classes)} class folders, and needs two at least. Put "
            "the images of each class into a folder named as the class."
        )
    config = {
        "architecture": settings.architecture,
        "image_size": settings.image_size,
        "channels": settings.channels,
        "classes": classes,
    }
    samples = readable(samples_of(train, classes), config, cluster, settings.workers)
    if validation is None:
        check_counts(samples, classes, fewest=2)
        return config, *divide(samples, settings.validation_fraction, settings.seed)
    check_counts(samples, classes, fewest=1)
    held = load_held("validation", validation, config, cluster, settings.workers)
    return config, samples, held


def load_held(
    name: str, folder: Path, config: dict[str, Any], cluster: Cluster, workers: int
) -> list[Sample]:
    """The samples of a data set that is not trained on, of the training's classes or some of them.

    Raises:
        TrainingError: If it has another class, or no readable image.
    """
    classes = config["classes"]
    unknown = set(classes_of(folder)) - set(classes)
    if unknown:
        raise TrainingError(
            f"The data set {name!r} has a class that 'train' has not: {min(unknown)!r}."
        )
    held = readable(samples_of(folder, classes), config, cluster, workers)
    if not held:
        raise TrainingError(f"The data set {name!r} has no readable image.")
    return held


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Samples, decoded by threads when they are asked for, and kept where they fit."""

    def __init__(self, samples: list[Sample], config: dict[str, Any], workers: int) -> None:
        self._paths = [path for path, _ in samples]
        self._labels = torch.tensor([label for _, label in samples])
        self._config = config
        self._pool = ThreadPoolExecutor(workers)
        size = config["channels"] * config["image_size"] ** 2 * len(samples)
        self._kept: dict[int, np.ndarray] | None = {} if size <= _CACHE_BYTES else None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch: uint8 (n, channels, size, size), and the labels."""
        images = np.stack(list(self._pool.map(self._pixels, indices)))
        return torch.from_numpy(images), self._labels[indices]

    def _pixels(self, index: int) -> np.ndarray:
        if self._kept is None:
            return _decoded(self._paths[index], self._config)
        if index not in self._kept:
            self._kept[index] = _decoded(self._paths[index], self._config)
        return self._kept[index]


def _decoded(path: Path, config: dict[str, Any]) -> np.ndarray:
    with Image.open(path) as image:
        return pixels(image, config)


def _is_readable(path: Path, config: dict[str, Any]) -> bool:
    try:
        _decoded(path, config)
    except _UNREADABLE:
        return False
    return True
