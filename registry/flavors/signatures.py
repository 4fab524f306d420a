"""The signature of a model: of the example of its input that lies beside it, or as it says.

``input_example.json`` is a data frame as MLflow writes one, with ``columns`` and rows of ``data``.
Nothing else says of a file what it is given, without loading the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from infra.errors import BadInputError
from registry.frameworks.layout import Layout

_EXAMPLE = "input_example.json"
_MLMODEL = "MLmodel"
_PREDICTION = "prediction"  # how the runtime, which imports NumPy, calls a model's only output
# Flavours that the runtime loads without MLflow's functions, which the signature is of.
_NATIVE = frozenset({"sklearn", "xgboost", "lightgbm", "catboost", "pytorch"})
_EXAMPLE_INFO = {"artifact_path": _EXAMPLE, "pandas_orient": "split", "type": "dataframe"}

# MLflow's type of a column, by the types of its values in JSON; the first that has all of them. A
# column of pandas that lacks a value holds no integers.
_MISSING = type(None)
_TYPES: tuple[tuple[str, frozenset[type]], ...] = (
    ("boolean", frozenset({bool})),
    ("long", frozenset({int})),
    ("double", frozenset({int, float, _MISSING})),
    ("string", frozenset({str, _MISSING})),
)


def described(layout: Layout) -> dict[str, Any]:
    """Fields of an MLmodel file: ``saved_input_example_info`` and ``signature``, where known."""
    example = _example(layout)
    if example is None:
        return {}
    columns, rows = example["columns"], example["data"]
    specs = [_column(name, [row[at] for row in rows]) for at, name in enumerate(columns)]
    if not all(specs):
        return {"saved_input_example_info": dict(_EXAMPLE_INFO)}
    signature = {"inputs": json.dumps(specs), "outputs": None, "params": None}
    return {"saved_input_example_info": dict(_EXAMPLE_INFO), "signature": signature}


def outputs(layout: Layout) -> list[str]:
    """The outputs that a model in MLflow's format predicts by its signature.

    None where it does not say, or is loaded as what its library knows, which has outputs of its
    own.
    """
    try:
        described = yaml.safe_load(layout.text(_MLMODEL))
        names = [str(one["name"]) for one in json.loads(described["signature"]["outputs"])]
        is_native = not _NATIVE.isdisjoint(described["flavors"])
    except (ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError, BadInputError):
        return []
    if is_native or not names:
        return []
    return names if len(names) > 1 else [_PREDICTION]


def _example(layout: Layout) -> Mapping[str, Any] | None:
    """The example; None if there is none that MLflow could read."""
    try:
        found = json.loads(layout.text(_EXAMPLE)) if _EXAMPLE in layout.sizes else None
    except (ValueError, RecursionError, BadInputError):
        return None
    columns = found.get("columns") if isinstance(found, dict) else None
    rows = found.get("data") if isinstance(found, dict) else None
    is_table = (
        isinstance(columns, list)
        and all(isinstance(name, str) for name in columns)
        and isinstance(rows, list)
        and bool(columns and rows)
        and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    )
    return found if is_table else None


def _column(name: str, values: Sequence[Any]) -> dict[str, Any] | None:
    """A column as MLflow's schema has it; None if its values have no common type."""
    types = set(map(type, values))
    kind = next((kind for kind, taken in _TYPES if types <= taken), None)
    if kind is None or types == {_MISSING}:
        return None
    return {"type": kind, "name": name, "required": _MISSING not in types}
