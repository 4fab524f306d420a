"""Artifacts, and bundles of parameters and artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Artifacts that consist of metadata alone and need no file.
METADATA_ONLY = frozenset(
    {"system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics"}
)


@dataclass(frozen=True)
class Artifact:
    """An artifact: its URI, type and metadata.

    Attributes:
        name: Which one it is, unique in its run: ``TASK-PATH/OUTPUT``.
        uri: Where it is: a local path, or any address that a component has set.
        schema: Its type's title, such as ``system.Dataset``.
        version: Its type's version.
        metadata: What was written of it; plain JSON values.
        custom_path: A local path that holds it, where the URI is none.
    """

    name: str
    uri: str
    schema: str = "system.Artifact"
    version: str = "0.0.1"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    custom_path: str | None = None

    @property
    def called(self) -> str:
        """The name that components see: its output's, as a valid file name."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Bundle:
    """Parameters and artifacts by name: a task's inputs or outputs.

    Attributes:
        parameters: Plain JSON values.
        artifacts: One artifact, or a list of them, each.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact | list[Artifact]] = field(default_factory=dict)
