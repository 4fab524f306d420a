"""Names and steps of a pipeline's metrics in MLflow.

A metric is named ``TASK/KEY``. If several tasks of the pipeline share a name, it is prefixed with
the names of the enclosing pipelines and loops. The iterations of a loop are the steps of a metric;
in nested loops those of the innermost one, and the numbers of the outer iterations follow the
task's name. If a task has several outputs with metrics, the output's name precedes the key.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.node_positions import NodePosition, NodePositions
from registry import metric_names

MOST = 1000  # metrics of one artifact
_LONGEST = 140  # with a slash and a key within MLflow's limit
_LONGEST_KEY = 100
_DEEPEST = 5
METRICS = "system.Metrics"
_OTHER = re.compile(r"[^\w\-. :/]")
_CLIMBING = frozenset({"", ".", ".."})  # parts of a path that MLflow does not accept in a name


def sanitize(name: str, longest: int = _LONGEST) -> str:
    """Sanitize the name of a metric, a tag or a file for MLflow.

    Names that differ only in replaced characters become equal; long names get a digest.
    """
    parts = (part.strip() for part in _OTHER.sub("_", name).split("/"))
    plain = "/".join(part for part in parts if part not in _CLIMBING)
    if len(plain) <= longest:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{plain[: longest - 9].rstrip('/ ')}-{digest}"


def prefix(
    places: NodePositions, spot: NodePosition | None, path: str, output: str
) -> tuple[str, int]:
    """Prefix of the names of an output's metrics, and their step.

    Args:
        places: Places of the pipeline.
        spot: Place of the task; None if it is not in the pipeline.
        path: Path of the task.
        output: Name of the output.
    """
    if spot is None:
        return sanitize(f"{path}/{output}"), 0
    alone = places.times(spot.names[-1]) == 1
    parts = [spot.names[-1]] if alone else list(spot.names)
    parts += [str(number) for number in spot.iterations[:-1]]
    if len(places.outputs(spot.component, METRICS)) > 1:
        parts.append(output)
    return sanitize("/".join(parts)) or "task", spot.iterations[-1] if spot.iterations else 0


def finite_numbers(metadata: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Extract the finite numbers of an artifact's metadata, under names that MLflow accepts.

    Nested mappings are flattened. Booleans, strings and lists are left out. If sanitized names
    are equal, all but the first get a number.
    """
    found: dict[str, float] = {}
    for key, value in _flat(metadata, "", _DEEPEST):
        name = sanitize(key, _LONGEST_KEY) or "metric"
        found[metric_names.unique(name, found, "_")] = value
        if len(found) == MOST:
            break
    return list(found.items())


def _flat(metadata: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, float]]:
    for key, value in metadata.items():
        if isinstance(value, Mapping) and depth:
            yield from _flat(value, f"{before}{key}/", depth - 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                continue
            if math.isfinite(number):
                yield f"{before}{key}", number
