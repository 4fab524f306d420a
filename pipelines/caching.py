"""Fingerprints of tasks: the same means that running it again would hand on the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf import json_format

from pipelines.artifacts import Artifact, Bundle
from pipelines.pipeline import Pipeline


def fingerprint(
    pipeline: Pipeline, component: str, inputs: Bundle, *, key: str = "", settings: Any = None
) -> str:
    """SHA-256 of what a task runs and is given, hexadecimal.

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
            **as_data(inputs),
        }
    )


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_data(bundle: Bundle) -> dict[str, Any]:
    """A bundle as plain data; :func:`from_data` is the way back."""
    return {
        "parameters": dict(bundle.parameters),
        "artifacts": {
            name: [asdict(one) for one in value] if isinstance(value, list) else asdict(value)
            for name, value in bundle.artifacts.items()
        },
    }


def from_data(data: Mapping[str, Any]) -> Bundle:
    """The bundle that :func:`as_data` was told of."""
    return Bundle(
        data.get("parameters", {}),
        {
            name: [Artifact(**one) for one in value]
            if isinstance(value, list)
            else Artifact(**value)
            for name, value in data.get("artifacts", {}).items()
        },
    )
