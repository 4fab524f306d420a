"""What becomes of what a run's scripts print."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from infra import storage
from infra.errors import ModelyardError
from tasks.parameters import Text


class Logs(BaseModel):
    """What becomes of what is printed, beside the file among the run's artifacts."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    stream: bool = Field(True, description="Show the lines in the run's log in Prefect.")
    uri: Text = Field("", description="A folder that gets a copy of the whole log at the end.")

    def absolute(self) -> Logs:
        """The same with a relative path made absolute against the caller's working directory."""
        return self.model_copy(update={"uri": storage.absolute(self.uri)})


def publish(file: Path, logs: Logs, name: str, warn: Callable[..., None]) -> None:
    """Copy a log to ``logs.uri``, if one was given, as ``NAME.log``.

    Args:
        file: The log; there may be none.
        logs: What becomes of it.
        name: What the copy is called.
        warn: Told if it cannot be copied: it is among the run's artifacts all the same.
    """
    if not logs.uri or not file.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            os.link(file, Path(folder, f"{name}.log"))
            storage.store(logs.uri).publish(Path(folder))
    except (ModelyardError, OSError) as error:
        warn("The log was not copied to %s: %s", logs.uri, error)
