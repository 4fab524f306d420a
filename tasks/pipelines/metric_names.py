"""Names and steps of a pipeline's metrics in MLflow.

A metric is called ``TASK/KEY``. The task's name stands alone where no other task of the pipeline
is called so; otherwise the names of the nested pipelines and loops around it come first. The
iterations of a loop are steps of one metric; of loops within loops the inner one's are, and the
outer ones' numbers are in the name, behind the task's. The output's name comes between where the
task has several outputs with metrics.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.node_positions import NodePosition, NodePositions

MOST = 1000  # of one artifact
_LONGEST = 140  # with a key, and a slash between them, it is what MLflow takes
_LONGEST_KEY = 100
_DEEPEST = 5
_METRICS = "system.Metrics"
_OTHER = re.compile(r"[^\w\-. :/]")
_CLIMBING = frozenset({"", ".", ".."})  # parts of a path that MLflow takes no name with


def allowed(name: str, longest: int = _LONGEST) -> str:
    """A name as MLflow takes it, of a metric, a tag or a file; another is spelt alike."""
    parts = (part.strip() for part in _OTHER.sub("_", name).split("/"))
    plain = "/".join(part for part in parts if part not in _CLIMBING)
    if len(plain) <= longest:
        return plain
    digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
    return f"{plain[: longest - 9].rstrip('/ ')}-{digest}"


def prefix(
    places: NodePositions, spot: NodePosition | None, path: str, output: str
) -> tuple[str, int]:
    """What the names of an output's metrics begin with, and their step.

    Args:
        places: The pipeline's.
        spot: Where the task is; None if it is not in the pipeline.
        path: Its path.
        output: The output's name.
    """
    if spot is None:
        return allowed(f"{path}/{output}"), 0
    alone = places.times(spot.names[-1]) == 1
    parts = [spot.names[-1]] if alone else list(spot.names)
    parts += [str(number) for number in spot.iterations[:-1]]
    if len(places.outputs(spot.component, _METRICS)) > 1:
        parts.append(output)
    return allowed("/".join(parts)) or "task", spot.iterations[-1] if spot.iterations else 0


def numbers(metadata: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The finite numbers of an artifact's metadata, by names that MLflow takes.

    Those of mappings within are there with the names around theirs. Truth values, texts and
    lists are none. Of keys that are spelt alike each but the first gets a number.
    """
    found: dict[str, float] = {}
    for key, value in _flat(metadata, "", _DEEPEST):
        name, number = allowed(key, _LONGEST_KEY) or "metric", 1
        while (unique := name if number == 1 else f"{name}_{number}") in found:
            number += 1
        found[unique] = value
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
