"""Changes of the files that a server runs, found by their times and sizes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.5
_MOST_FILES = 5000
_IGNORED = {"__pycache__", "node_modules", "site-packages", "venv"}

_Snapshot = Mapping[Path, tuple[int, int]]


class SourceWatch:
    """Python files below some folders."""

    def __init__(self, folders: Sequence[Path], poll_seconds: float = _POLL_SECONDS) -> None:
        """Watch from now on.

        Args:
            folders: The folders; hidden ones below them, and those of environments, are left out.
            poll_seconds: How often files are looked at, at most.
        """
        self._folders = folders
        self._poll_seconds = poll_seconds
        self._due = 0.0
        self._known = self._newest = self._snapshot()
        self._changed: list[Path] = []

    def has_changed(self) -> bool:
        """Whether files have changed since it last said so, and have stopped changing."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._poll_seconds
        before, self._newest = self._newest, self._snapshot()
        if self._newest == self._known or self._newest != before:
            return False
        pairs = self._newest.items() - self._known.items()
        self._changed = sorted(path for path, _ in pairs)
        self._known = self._newest
        return True

    def syntax_error(self) -> str:
        """What is wrong with the files that changed last, with its place; "" if they parse."""
        for path in self._changed:
            try:
                compile(path.read_bytes(), str(path), "exec")
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                return f"{path.name}:{line}: {type(error).__name__}: {error}"
            except OSError:  # removed since
                continue
        return ""

    def _snapshot(self) -> _Snapshot:
        found: dict[Path, tuple[int, int]] = {}
        for folder in self._folders:
            for root, folders, names in os.walk(folder):
                folders[:] = [
                    one for one in folders if one not in _IGNORED and not one.startswith(".")
                ]
                for name in names:
                    if name.endswith(".py") and len(found) < _MOST_FILES:
                        path = Path(root, name)
                        try:
                            about = path.stat()
                        except OSError:  # removed since
                            continue
                        found[path] = (about.st_mtime_ns, about.st_size)
        return found
