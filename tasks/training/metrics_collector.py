"""Take metrics from what a script prints and writes, while it does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tuning.event_files import EventFileReader
from tuning.metrics import MetricCollector, MetricPattern, Observation

_POLL_SECONDS = 2.0
_LAST_POLL_SECONDS = 30.0


@contextlib.contextmanager
def following(
    metrics: Sequence[MetricPattern],
    event_files: Path,
    *,
    names: Sequence[str],
    show: Callable[[str], object],
    record: Callable[[Observation], object],
    warn: Callable[[str], object],
) -> Iterator[Callable[[int, str], None]]:
    """Follow a script for the while; gives what takes its lines, by its process's number.

    Metrics are looked for in the lines of the first process only: the others print the same ones
    again. A metric that comes from lines and from event files is taken from where it was first.

    Args:
        metrics: What to look for in the lines.
        event_files: Below this folder every scalar of TensorBoard's is taken.
        names: What each process is called; it stands before its lines.
        show: Gets every line.
        record: Gets every observation, from two threads.
        warn: Told what is given up.
    """
    collector = MetricCollector(metrics, warn)
    events = EventFileReader(event_files, warn)
    sources: dict[str, object] = {}

    def take(source: object, found: Iterable[Observation]) -> None:
        for one in found:
            if sources.setdefault(one.name, source) is source:
                record(one)

    def on_line(number: int, line: str) -> None:
        show(f"[{names[number]}] {line}" if names[number] else line)
        if number == 0:
            take(collector, collector.collect(line))

    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_SECONDS):
            take(events, events.poll())

    polling = threading.Thread(target=poll, daemon=True, name="event files")
    polling.start()
    try:
        yield on_line
    finally:
        done.set()
        polling.join(_LAST_POLL_SECONDS)
        if not polling.is_alive():
            take(events, events.poll())
