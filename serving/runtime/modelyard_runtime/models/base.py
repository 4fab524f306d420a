"""What every model of the runtime does, and how arrays and records become one another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns, objects

# The name of the only tensor of records that are no mappings, and of what a model predicts.
INPUT = "input"
PREDICTION, PROBABILITIES = "prediction", "probabilities"


class ModelError(Exception):
    """A model that cannot be loaded, or rows that it cannot take; the message is for people."""


class Model(ABC):
    """A loaded model."""

    @abstractmethod
    def infer(self, inputs: Columns) -> Columns:
        """Predict a batch of rows.

        Args:
            inputs: Arrays by name, whose first axis is the rows. Records that are mappings have a
                column for each field; others have the one column ``input``.

        Returns:
            Arrays by name, whose first axis is the rows: ``prediction``, with ``probabilities``
            where the model has them; of a model with several outputs, these by their names.

        Raises:
            ModelError: If the model cannot take these columns.
            Exception: What the model raises.
        """


def instances(inputs: Columns) -> list[Any]:
    """Rows as plain values: what each record was."""
    if set(inputs) == {INPUT}:
        return list(inputs[INPUT].tolist())
    names = list(inputs)
    rows = zip(*(inputs[name].tolist() for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def matrix(inputs: Columns, names: Sequence[str] = (), width: int = 0) -> Array:
    """Rows of features as one array of two axes.

    Args:
        inputs: The columns.
        names: The model's features, in its order; none if it knows no names.
        width: How many features it takes; 0 if any number.

    Raises:
        ModelError: If a feature is missing, or their number is another.
    """
    columns = features(inputs, names, width)
    if isinstance(columns, np.ndarray):
        return columns
    return np.column_stack(list(columns.values()))


def features(
    inputs: Columns, names: Sequence[str] = (), width: int = 0
) -> Array | Mapping[str, Array]:
    """The features of a model: one array, or columns in the model's order; see :func:`matrix`."""
    if set(inputs) == {INPUT} and (INPUT not in names or inputs[INPUT].ndim > 1):
        array = inputs[INPUT]
        if array.dtype == object:
            raise ModelError(f"The model takes numbers; a row has {_shown(array[0])}.")
        array = array.reshape(len(array), -1) if array.ndim != 2 and width else array
        wanted = len(names) or width
        if wanted and array.shape[-1] != wanted:
            raise ModelError(
                f"The model takes {wanted} features, and the rows have {array.shape[-1]}."
            )
        return array
    if names:
        if missing := [name for name in names if name not in inputs]:
            raise ModelError(
                f"The model takes the features {_listed(names)}; the rows have no "
                f"{_listed(missing)}, but {_listed(list(inputs))}."
            )
        return {name: inputs[name] for name in names}
    if width and len(inputs) != width:
        raise ModelError(
            f"The model takes {width} features and knows no names; the rows have "
            f"{len(inputs)} fields: {_listed(list(inputs))}."
        )
    return dict(inputs)


def outputs(found: Any) -> Columns:
    """What a model returned as columns: an array, a list, a data frame, or a mapping of these.

    Raises:
        ModelError: If it returned nothing.
    """
    if hasattr(found, "columns") and hasattr(found, "to_numpy"):
        found = {str(name): found[name] for name in found.columns}
    if not isinstance(found, Mapping):
        found = {PREDICTION: found}
    columns = {str(name): as_array(value) for name, value in found.items()}
    if not columns:
        raise ModelError("The model returned nothing.")
    return columns if len(columns) > 1 else {PREDICTION: next(iter(columns.values()))}


def as_array(value: Any) -> Array:
    """A model's output as an array: of numbers where they have one shape, else of objects."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    elif hasattr(value, "numpy"):
        value = value.numpy()
    if not isinstance(value, np.ndarray):
        values = list(value) if isinstance(value, list | tuple) else value
        try:
            value = np.asarray(values)
        except ValueError:  # ragged
            return objects(values)
        if value.dtype.kind in "OUS" and isinstance(values, list):
            return objects(values)
    if value.dtype.kind in "biufc":
        return value  # type: ignore[no-any-return]
    return value if value.dtype == object else objects(value.tolist())


def _listed(names: Sequence[str]) -> str:
    most = 8
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
