"""Cache keys of tasks: equal fingerprints mean equal outputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf import json_format

from pipelines import values
from pipelines.artifacts import Artifact, Bundle
from pipelines.pipeline import Pipeline


def fingerprint(
    pipeline: Pipeline, component: str, inputs: Bundle, *, key: str = "", settings: Any = None
) -> str:
    """Compute the SHA-256 of a task's executor and inputs, hexadecimal.

    That is its executor with its image, its inputs, the outputs that it declares, and where
    it runs on a cluster its settings there. Which pipeline it is in makes no difference.

    Args:
        pipeline: The pipeline.
        component: The component that it runs.
        inputs: What it is given.
        key: The pipeline's own ``cache_key`` of the task; then nothing but that counts.
        settings: Settings of the platform.
    """
    if key:
        return _digest({"key": key})
    declared = pipeline.component(component)
    executor = pipeline.executor(declared.executor_label)
    return _digest(
        {
            "executor": json_format.MessageToDict(executor),
            "outputs": json_format.MessageToDict(declared.output_definitions),
            "settings": settings,
            # As the task is given them: 1.0 is 1 there, in lists and mappings as well.
            **values.protojson(as_data(inputs)),
        }
    )


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_data(bundle: Bundle) -> dict[str, Any]:
    """Convert a bundle to plain data; the inverse of :func:`from_data`."""
    return {
        "parameters": dict(bundle.parameters),
        "artifacts": {
            name: [asdict(one) for one in value] if isinstance(value, list) else asdict(value)
            for name, value in bundle.artifacts.items()
        },
    }


def from_data(data: Mapping[str, Any]) -> Bundle:
    """Convert plain data of :func:`as_data` to a bundle."""
    return Bundle(
        data.get("parameters", {}),
        {
            name: [Artifact(**one) for one in value]
            if isinstance(value, list)
            else Artifact(**value)
            for name, value in data.get("artifacts", {}).items()
        },
    )
