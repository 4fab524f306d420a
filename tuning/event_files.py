"""Metrics from TensorBoard's event files, as they grow.

A scalar is called by its tag, with the folder of its file before it where that is not the log
folder itself: Keras' ``validation`` writer gives ``validation/epoch_loss``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.util import tensor_util

from tuning.metrics import Observation

FILES = "events.out.tfevents.*"
_SCALARS = "scalars"
_FORBIDDEN = re.compile(r"[^\w.:/ -]")  # in a metric's name, for MLflow


class EventFiles:
    """Reads what is new in the event files below a folder, each time that it is asked."""

    def __init__(self, folder: Path, warn: Callable[[str], object] = lambda _: None) -> None:
        """Read below ``folder``; ``warn`` is told of a file that is given up."""
        self._folder = folder
        self._warn = warn
        self._loaders: dict[Path, EventFileLoader] = {}
        self._given_up: set[Path] = set()

    def poll(self) -> Iterator[Observation]:
        """Every scalar that was written since the last time, file by file."""
        for path in sorted(self._folder.rglob(FILES)):
            if path not in self._given_up:
                yield from self._new(path)

    def _new(self, path: Path) -> Iterator[Observation]:
        folder = path.parent.relative_to(self._folder)
        try:
            if path not in self._loaders:
                self._loaders[path] = EventFileLoader(str(path))
            for event in self._loaders[path].Load():
                yield from _scalars(event, folder)
        except (OSError, DecodeError, ValueError) as error:
            self._given_up.add(path)
            self._warn(f"{path.name} is no event file of TensorBoard's ({error}); it is given up.")


def _scalars(event: Event, folder: Path) -> Iterator[Observation]:
    for summary in event.summary.value:
        if summary.metadata.plugin_data.plugin_name != _SCALARS:
            continue
        array = tensor_util.make_ndarray(summary.tensor)
        if array.size == 1 and numpy.issubdtype(array.dtype, numpy.number):
            name = metric_name(str(folder / summary.tag))
            yield Observation(name, float(array.item()), int(event.step), event.wall_time)


def metric_name(tag: str) -> str:
    """``tag`` as MLflow takes it for a metric's name."""
    parts = [part for part in _FORBIDDEN.sub("_", tag).split("/") if part not in {"", ".", ".."}]
    return "/".join(parts)[:250] or "metric"
