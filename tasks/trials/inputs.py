"""What all trials read, fetched once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from infra.storage import store
from tasks.training.training_request import Training


def shared(training: Training, root: Path, say: Callable[[str], object]) -> Training:
    """``training`` with what lies elsewhere fetched to folders below ``root``.

    What was fetched by an earlier attempt is used again.

    Raises:
        ModelyardError: If a store cannot be read, or the disk is full.
    """

    def here(uri: str, folder: Path) -> str:
        if not uri or store(uri).in_place() is not None:
            return uri
        target = folder if store(uri).is_directory() else folder / PurePosixPath(uri).name
        if not target.exists():
            say(f"Fetching {uri} for all trials")
            target.parent.mkdir(parents=True, exist_ok=True)
            store(uri).fetch(target)
        return str(target)

    return training.model_copy(
        update={
            "algorithm": training.algorithm.model_copy(
                update={"uri": here(training.algorithm.uri, root / "algorithm")}
            ),
            "datasets": [
                one.model_copy(update={"uri": here(one.uri, root / "datasets" / one.name)})
                for one in training.datasets
            ],
            "checkpoint_input_uri": here(training.checkpoint_input_uri, root / "checkpoints"),
        }
    )


def clear(root: Path) -> None:
    """Remove what was fetched."""
    shutil.rmtree(root, ignore_errors=True)
