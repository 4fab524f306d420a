"""Scalars of one event file, read with TensorBoard's own loader, which takes long to import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
from google.protobuf.message import DecodeError
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

_SCALARS = "scalars"


@dataclass(frozen=True)
class Scalar:
    """A scalar; its time is in seconds since 1970."""

    tag: str
    value: float
    step: int
    at: float


class EventLoader:
    """Reads what is new in an event file, each time that it is asked."""

    def __init__(self, path: Path) -> None:
        """Read the file at ``path``, which may still be written."""
        self._loader = EventFileLoader(str(path))

    def load(self) -> Iterator[Scalar]:
        """Every scalar that was written since the last time.

        Raises:
            ValueError: If it is not an event file.
        """
        try:
            for event in self._loader.Load():
                for summary in event.summary.value:
                    if summary.metadata.plugin_data.plugin_name != _SCALARS:
                        continue
                    array = tensor_util.make_ndarray(summary.tensor)
                    if array.size == 1 and numpy.issubdtype(array.dtype, numpy.number):
                        value = float(array.item())
                        yield Scalar(summary.tag, value, int(event.step), event.wall_time)
        except DecodeError as error:
            raise ValueError(str(error)) from error
