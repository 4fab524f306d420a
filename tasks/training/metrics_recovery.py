"""Metrics that a script printed and nobody recorded, because its run's process was killed.

While a script's metrics are recorded, a file of its run's folder says since where in the log and
with which patterns. It is left behind by a process that was killed. Whoever ends the run or
retries it reads the log and the event files again, and records what MLflow's history lacks: doing
so twice changes nothing.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from infra.mlflow import MlflowException
from infra.workloads.process_group import LineSplitter
from registry import tracking
from registry.mlflow_writer import MetricValue, MlflowWriter
from tasks.run_directory import RunDirectory
from tuning.event_files import EventFileReader
from tuning.metrics import MetricCollector, MetricPattern, Observation

_CLOSE_SECONDS = 30.0
_MOST_BYTES = 64 * 2**20  # of a log; a longer one would keep those waiting who end other runs


@dataclass(frozen=True)
class _Recording:
    """A recording that has begun.

    Attributes:
        offset: Bytes that the log had before it.
        steps: Next step of each metric.
        metrics: Patterns that are searched for in lines.
        prefix: Begins the lines that are searched.
    """

    offset: int
    steps: Mapping[str, int]
    metrics: Sequence[MetricPattern]
    prefix: str


def begin(
    run_dir: RunDirectory,
    metrics: Sequence[MetricPattern],
    names: Sequence[str],
    steps: Mapping[str, int],
) -> None:
    """Note that the script's metrics are recorded from now on.

    Args:
        run_dir: The run's folders.
        metrics: Patterns that are searched for in the lines of the first process.
        names: Name of each process, the prefix of its lines; "" for none.
        steps: Next step of each metric that MLflow has.
    """
    content = {
        "offset": run_dir.log.stat().st_size if run_dir.log.exists() else 0,
        "steps": dict(steps),
        "metrics": [metric.model_dump() for metric in metrics],
        "prefix": f"[{names[0]}] " if names[0] else "",
    }
    run_dir.recording.write_text(json.dumps(content))


def end(run_dir: RunDirectory) -> None:
    """Note that MLflow has received all of them."""
    run_dir.recording.unlink(missing_ok=True)


def recover(
    run_dir: RunDirectory, run_id: str, warn: Callable[[str], object]
) -> Mapping[str, int]:
    """Record what a process that was killed has not recorded.

    Args:
        run_dir: The run's folders; without a recording that has not ended, nothing is done.
        run_id: The MLflow run.
        warn: Called with what cannot be recorded; nothing is raised.

    Returns:
        Next step of each metric that got values.
    """
    try:
        recording = _read(run_dir)
        values = list(_missing(run_dir, run_id, recording, warn)) if recording else []
    except (MlflowException, OSError, ValueError) as error:
        warn(f"What the script printed last may be missing from its metrics: {error}")
        return {}
    if values:
        writer = MlflowWriter(warn)
        writer.submit("what the script printed last", lambda: writer.write_metrics(run_id, values))
        writer.close(_CLOSE_SECONDS)
    steps: dict[str, int] = {}
    for value in values:
        steps[value.name] = max(value.step + 1, steps.get(value.name, 0))
    return steps


def _read(run_dir: RunDirectory) -> _Recording | None:
    """Read the recording that was left behind; None without one, or if it is truncated."""
    try:
        content = json.loads(run_dir.recording.read_text())
    except FileNotFoundError:
        return None
    except ValueError:  # the process was killed while it wrote it, before its script began
        return None
    metrics = [MetricPattern.model_validate(metric) for metric in content["metrics"]]
    return _Recording(content["offset"], content["steps"], metrics, content["prefix"])


def _missing(
    run_dir: RunDirectory, run_id: str, recording: _Recording, warn: Callable[[str], object]
) -> Iterator[MetricValue]:
    """Yield the values that MLflow's history lacks, each with a time that does not change."""
    if not run_dir.log.exists():
        return
    printed = list(_printed(run_dir, recording, warn))
    events = list(EventFileReader(run_dir.tensorboard, warn).poll())
    # Which source the recording had taken a metric of both from is not known.
    both = {one.name for one in printed} & {one.name for one in events}
    known: dict[str, Counter[tuple[int, str]]] = {}
    written_at = run_dir.log.stat().st_mtime
    for one in (one for one in (*printed, *events) if one.name not in both):
        if one.name not in known:
            found = tracking.client().get_metric_history(run_id, one.name)
            known[one.name] = Counter(_key(each.step, each.value) for each in found)
        key = _key(one.step or 0, one.value)
        if known[one.name][key]:
            known[one.name][key] -= 1
        else:
            at = written_at if one.at is None else one.at
            yield MetricValue(one.name, one.value, one.step or 0, at)


def _key(step: int, value: float) -> tuple[int, str]:
    """Step and value as MLflow keeps them, comparable also where the value is not a number."""
    largest = math.copysign(sys.float_info.max, value)
    return step, repr(largest if math.isinf(value) else value)


def _printed(
    run_dir: RunDirectory, recording: _Recording, warn: Callable[[str], object]
) -> Iterator[Observation]:
    """Yield the observations in the recording's lines, all with their steps."""
    collector = MetricCollector(recording.metrics, warn)
    steps = dict(recording.steps)
    for line in _lines(run_dir, recording.offset):
        if not line.startswith(recording.prefix):
            continue
        for one in collector.collect(line.removeprefix(recording.prefix)):
            step = steps.get(one.name, 0) if one.step is None else one.step
            steps[one.name] = max(step + 1, steps.get(one.name, 0))
            yield replace(one, step=step)


def _lines(run_dir: RunDirectory, offset: int) -> Iterator[str]:
    if run_dir.log.stat().st_size - offset > _MOST_BYTES:
        raise ValueError(f"{run_dir.log} has more than {_MOST_BYTES // 2**20} MiB")
    lines = LineSplitter()
    with run_dir.log.open("rb") as log:
        log.seek(offset)
        while piece := log.read(2**16):
            yield from lines.feed(piece)
    yield from lines.close()
