"""Options for the output of a run's scripts, and the copy of its log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ConfigDict, Field

from infra import storage
from infra.errors import ModelyardError
from infra.parameter_models import ParameterModel
from tasks.parameters import Text


class Logs(ParameterModel):
    """Destinations of a run's output, beside the log among its artifacts."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    stream: bool = Field(default=True, description="Show the lines in the run's log in Prefect.")
    uri: Text = Field(
        default="",
        description="URI of a folder for a copy of the whole log at the end of the run.",
    )

    def absolute(self) -> Logs:
        """Resolve a relative ``uri`` against the caller's working directory."""
        return self.model_copy(update={"uri": storage.absolute(self.uri)})


def publish(file: Path, logs: Logs, name: str, warn: Callable[..., None]) -> None:
    """Copy a log to ``logs.uri``, if that is set, as ``NAME.log``.

    Args:
        file: The log; nothing is copied if it does not exist.
        logs: The options of the run.
        name: Name of the copy, without its suffix.
        warn: Called if the copy fails; the run does not fail because of it.
    """
    if not logs.uri or not file.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            os.link(file, Path(folder, f"{name}.log"))
            storage.store(logs.uri).publish(Path(folder))
    except (ModelyardError, OSError) as error:
        warn("The log was not copied to %s: %s", logs.uri, error)
