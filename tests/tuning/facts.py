"""Facts about neighbours, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """The vectors of that name."""
    return json.loads(Path(__file__).with_name("vectors").joinpath(f"{name}.json").read_text())
