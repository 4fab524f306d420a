"""Runs that have left a model in MLflow, as a training does."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from registry import tracking
from registry.models import models
from registry.models.models import SourceRun
from registry.tracking import MODEL_TAG, Opening
from tests.registry.model_files import Maker
from tests.registry.server import MlflowServer


class Run:
    """A run of a training that has left a model."""

    def __init__(self, name: str, make: Maker, scratch: Path) -> None:
        self.name = name
        self.created = datetime.now(UTC)
        self.flow_run_id = str(uuid.uuid4())
        opening = Opening(self.flow_run_id, "train", name, "Default", "", "somebody", {})
        self.id = tracking.open_run(opening, retried=False).run_id
        make(scratch / self.id, name)
        self.source = tracking.log_files(self.id, scratch / self.id, "model")
        shutil.rmtree(scratch / self.id)

    @property
    def origin(self) -> SourceRun:
        return SourceRun(self.id, self.flow_run_id, self.source)

    def registered(self, name: str) -> str:
        """Register the model as the training does that left it; its URI."""
        return models.register(name, self.created, self.origin)

    @property
    def tag(self) -> str | None:
        return tracking.client().get_run(self.id).data.tags.get(MODEL_TAG)

    def files(self, server: MlflowServer) -> set[str]:
        """What the server's folder holds of the model."""
        folder = server.artifacts / self.source.split("mlflow-artifacts:/")[1]
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


MakeRun = Callable[..., Run]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed(*_: Any, **__: Any) -> NoReturn:
    """What a step does when the process is killed in it; no handler of errors sees it."""
    raise KeyboardInterrupt
