"""Paths that workloads have mounted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def topmost(paths: Iterable[Path]) -> list[Path]:
    """The paths that are below no other one of them, sorted."""
    found: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(top) for top in found):
            found.append(path)
    return found
