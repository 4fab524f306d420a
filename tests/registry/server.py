"""The MLflow server that the tests of the registry talk to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class MlflowServer:
    """A running server.

    Attributes:
        uri: Its address.
        artifacts: The folder that it keeps artifacts in.
    """

    uri: str
    artifacts: Path
