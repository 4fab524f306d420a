"""Metrics from TensorBoard's event files, as they grow.

A scalar is called by its tag, with the folder of its file before it where that is not the log
folder itself: Keras' ``validation`` writer gives ``validation/epoch_loss``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.metrics import Observation

if TYPE_CHECKING:
    from tuning.event_loader import EventLoader

FILES = "events.out.tfevents.*"
_FORBIDDEN = re.compile(r"[^\w.:/ -]")  # in a metric's name, for MLflow


class EventFileReader:
    """Incremental reader of the event files below a folder."""

    def __init__(self, folder: Path, warn: Callable[[str], object] = lambda _: None) -> None:
        """Read below ``folder``; ``warn`` is called for a file that is given up."""
        self._folder = folder
        self._warn = warn
        self._loaders: dict[Path, EventLoader] = {}
        self._given_up: set[Path] = set()

    def poll(self) -> Iterator[Observation]:
        """Read every scalar written since the last call, file by file."""
        for path in sorted(self._folder.rglob(FILES)):
            if path not in self._given_up:
                yield from self._new(path)

    def _new(self, path: Path) -> Iterator[Observation]:
        folder = path.parent.relative_to(self._folder)
        try:
            if path not in self._loaders:
                self._loaders[path] = _loader(path)
            for scalar in self._loaders[path].load():
                name = metric_name(str(folder / scalar.tag))
                yield Observation(name, scalar.value, scalar.step, scalar.at)
        except (OSError, ValueError) as error:
            self._given_up.add(path)
            self._warn(
                f"{path.name} is not an event file of TensorBoard's ({error}); it is given up."
            )


def _loader(path: Path) -> EventLoader:
    from tuning.event_loader import EventLoader  # noqa: PLC0415 (few runs have event files)

    return EventLoader(path)


def metric_name(tag: str) -> str:
    """Convert ``tag`` to a valid metric name of MLflow."""
    parts = [part for part in _FORBIDDEN.sub("_", tag).split("/") if part not in {"", ".", ".."}]
    return "/".join(parts)[:250] or "metric"
