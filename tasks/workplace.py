"""Folders of one run, and what an attempt leaves in them for the next."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra import storage

# Content of the file `finished` once the script's output is published.
_PUBLISHED = "published"


@dataclass(frozen=True)
class Workplace:
    """The folders of one run, below the home."""

    root: Path

    @property
    def source(self) -> Path:
        """A copy of the algorithm's directory."""
        return self.root / "source"

    @property
    def datasets(self) -> Path:
        """Folders for data sets that cannot be read where they are."""
        return self.root / "datasets"

    @property
    def model(self) -> Path:
        """EM_MODEL_DIR: what the script leaves here is the model."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Output checkpoints, where no ``checkpoint_uri`` was given."""
        return self.root / "checkpoints"

    @property
    def checkpoint_input(self) -> Path:
        """A copy of input checkpoints that cannot be read where they are."""
        return self.root / "checkpoint-input"

    @property
    def tensorboard(self) -> Path:
        """EM_TENSORBOARD_LOG_DIR."""
        return self.root / "tensorboard"

    @property
    def log(self) -> Path:
        """Everything that the script printed, attempt after attempt."""
        return self.root / "train.log"

    @property
    def finished(self) -> Path:
        """There once the script has ended well, so that it is not run again."""
        return self.root / "finished"

    @property
    def published(self) -> bool:
        """Whether what the script left is published."""
        return self.finished.exists() and self.finished.read_text() == _PUBLISHED

    def mark_published(self) -> None:
        """Mark the model as published, and remove the local copy."""
        self.finished.write_text(_PUBLISHED)
        shutil.rmtree(self.model, ignore_errors=True)

    @property
    def waits(self) -> bool:
        """Whether there is a model that is not published."""
        return self.finished.exists() and not self.published

    def clear(self) -> None:
        """Remove what an attempt needs only while it runs, but for a model that waits."""
        for folder in (self.source, self.datasets, self.checkpoint_input):
            shutil.rmtree(folder, ignore_errors=True)
        if not self.waits:
            shutil.rmtree(self.model, ignore_errors=True)

    def clear_for_retry(self) -> None:
        """Remove what an earlier attempt left, but for transfers that can be gone on from."""
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
