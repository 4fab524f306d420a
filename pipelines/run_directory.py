"""Directory of a pipeline run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class PipelineRunDirectory:
    """Paths in the directory of a pipeline run.

    Attributes:
        root: The run's folder.
    """

    root: Path

    @property
    def artifacts(self) -> Path:
        """Folder of the tasks' artifacts."""
        return self.root / "artifacts"

    @property
    def log(self) -> Path:
        """Log of the tasks' output."""
        return self.root / "pipeline.log"

    @property
    def fetched(self) -> Path:
        """Folder of fetched remote artifacts."""
        return self.root / "brought"

    @property
    def workspace(self) -> Path:
        """Folder that the tasks share."""
        return self.root / "workspace"

    @property
    def compiled(self) -> Path:
        """The compiled pipeline of the first attempt."""
        return self.root / "pipeline.yaml"

    @property
    def tasks(self) -> Path:
        """Folder of the tasks' folders."""
        return self.root / "tasks"

    def task(self, path: str) -> Path:
        """Folder of a task."""
        named = quote(path, safe=" @+=,-_")
        if len(named) > 150:  # most file systems take 255 bytes
            named = f"{named[:100]}-{hashlib.sha256(path.encode()).hexdigest()[:32]}"
        return self.tasks / named
