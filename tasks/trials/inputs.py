"""Inputs that inline trials share, fetched once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from infra.storage import store
from tasks.training.training_request import Training


def shared(training: Training, root: Path, log: Callable[[str], object]) -> Training:
    """Fetch inputs that cannot be read in place to ``root``; the training with their paths.

    Inputs that an earlier attempt has fetched are reused.

    Raises:
        ModelyardError: If a store cannot be read, or the disk is full.
    """

    def local(uri: str, folder: Path) -> str:
        if not uri or store(uri).in_place() is not None:
            return uri
        target = folder if store(uri).is_directory() else folder / PurePosixPath(uri).name
        if not target.exists():
            log(f"Fetching {uri} for all trials")
            target.parent.mkdir(parents=True, exist_ok=True)
            store(uri).fetch(target)
        return str(target)

    return training.model_copy(
        update={
            "algorithm": training.algorithm.model_copy(
                update={"uri": local(training.algorithm.uri, root / "algorithm")}
            ),
            "datasets": [
                one.model_copy(update={"uri": local(one.uri, root / "datasets" / one.name)})
                for one in training.datasets
            ],
            "checkpoint_input_uri": local(training.checkpoint_input_uri, root / "checkpoints"),
        }
    )


def clear(root: Path) -> None:
    """Remove the fetched inputs."""
    shutil.rmtree(root, ignore_errors=True)
