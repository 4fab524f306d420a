"""Folders of one run, which its attempts share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra import storage

# Content of the file `finished` once the script's output is published.
_PUBLISHED = "published"


@dataclass(frozen=True)
class RunDirectory:
    """Folders of one run, below Modelyard's home.

    Attributes:
        root: The folder that holds the others.
    """

    root: Path

    @property
    def source(self) -> Path:
        """Copy of the algorithm's directory."""
        return self.root / "source"

    @property
    def datasets(self) -> Path:
        """Folder of the data sets that cannot be read in place."""
        return self.root / "datasets"

    @property
    def model(self) -> Path:
        """EM_MODEL_DIR: the script's files in it are the model."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of output checkpoints without a ``checkpoint_uri``."""
        return self.root / "checkpoints"

    @property
    def checkpoint_input(self) -> Path:
        """Copy of input checkpoints that cannot be read in place."""
        return self.root / "checkpoint-input"

    @property
    def tensorboard(self) -> Path:
        """EM_TENSORBOARD_LOG_DIR."""
        return self.root / "tensorboard"

    @property
    def interpreter(self) -> Path:
        """File with the path of the Python that runs the script."""
        return self.root / "interpreter"

    @property
    def log(self) -> Path:
        """Log of the script's output, over all attempts."""
        return self.root / "train.log"

    @property
    def recording(self) -> Path:
        """File that exists while the script's metrics are recorded."""
        return self.root / "recording.json"

    @property
    def finished_marker(self) -> Path:
        """File that exists once the script has succeeded, so that it does not run again."""
        return self.root / "finished"

    @property
    def is_published(self) -> bool:
        """Whether the script has succeeded and its model is published."""
        return self.finished_marker.exists() and self.finished_marker.read_text() == _PUBLISHED

    def mark_published(self) -> None:
        """Mark the model as published, and remove the local copy."""
        self.finished_marker.write_text(_PUBLISHED)
        shutil.rmtree(self.model, ignore_errors=True)

    @property
    def has_unpublished_model(self) -> bool:
        """Whether the script has succeeded and its model is not published yet."""
        return self.finished_marker.exists() and not self.is_published

    def clear(self) -> None:
        """Remove an attempt's inputs, and its model unless that is still to be published."""
        for folder in (self.source, self.datasets, self.checkpoint_input):
            shutil.rmtree(folder, ignore_errors=True)
        if not self.has_unpublished_model:
            shutil.rmtree(self.model, ignore_errors=True)

    def clear_for_retry(self) -> None:
        """Remove leftovers of an earlier attempt, except partial transfers, which resume."""
        for folder in (self.source, self.model):
            shutil.rmtree(folder, ignore_errors=True)
        fetched = [path for path in _entries(self.datasets) if path.is_dir()]
        for folder in (self.checkpoint_input, *fetched):
            _remove(path for path in _entries(folder) if not storage.is_partial(path))
        _remove(path for path in _entries(self.datasets) if not _entries(path))


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
