"""Where a run of a pipeline has its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class Place:
    """Where a run has its files.

    Attributes:
        root: The run's folder.
    """

    root: Path

    @property
    def artifacts(self) -> Path:
        """What its tasks hand on."""
        return self.root / "artifacts"

    @property
    def log(self) -> Path:
        """What its tasks print."""
        return self.root / "pipeline.log"

    @property
    def brought(self) -> Path:
        """What its tasks read, and lies elsewhere."""
        return self.root / "brought"

    @property
    def workspace(self) -> Path:
        """What its tasks share."""
        return self.root / "workspace"

    @property
    def compiled(self) -> Path:
        """The pipeline that it began with."""
        return self.root / "pipeline.yaml"

    @property
    def tasks(self) -> Path:
        """The folders of its tasks."""
        return self.root / "tasks"

    def task(self, path: str) -> Path:
        """The folder of a task."""
        named = quote(path, safe=" @+=,-_")
        if len(named) > 150:  # most file systems take 255 bytes
            named = f"{named[:100]}-{hashlib.sha256(path.encode()).hexdigest()[:32]}"
        return self.tasks / named
