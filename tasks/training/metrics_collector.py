"""Collection of metrics from a script's output and event files, while it runs."""

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
    """Collect a script's metrics; yields the callback for a line of a numbered process.

    Only the first process's lines are searched: the others print the same metrics again. A metric
    that appears in lines and in event files is taken from the source that had it first.

    Args:
        metrics: Patterns that are searched for in lines.
        event_files: Folder whose TensorBoard scalars are all collected.
        names: Name of each process, the prefix of its lines; "" for none.
        show: Called with every line.
        record: Called with every observation, from two threads.
        warn: Called with a message for each source that is given up.
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
