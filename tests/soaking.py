"""What runs for a part of its cases, and in a soak (``MODELYARD_SOAK=1``) for all."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("MODELYARD_SOAK"))


def examples(most: int) -> int:
    """The number of random examples of a property that takes long: a third of those of a soak."""
    return most if SOAK else most // 3
