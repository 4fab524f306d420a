"""The one format of times for people."""

from __future__ import annotations

from datetime import datetime


def local(at: datetime) -> str:
    """Return a time in the local zone with the zone's name: ``2026-01-31 21:00:00 KST``."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
