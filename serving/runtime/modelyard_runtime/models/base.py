"""What every model of the runtime does, and how arrays and records become one another."""

from __future__ import annotations

import reprlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modelyard_runtime.frames import Array, Columns, objects

# The name of the only tensor of records that are no mappings, and of what a model predicts.
INPUT = "input"
PREDICTION, PROBABILITIES = "prediction", "probabilities"

# What libraries raise of values that a model does not take.
_REFUSALS = (ValueError, TypeError, KeyError, IndexError)
_REFUSALS_OF_LIBRARIES = frozenset({
    "InvalidArgument", "InvalidArgumentError",  # ONNX Runtime's, TensorFlow's
    "XGBoostError", "LightGBMError", "CatBoostError", "MlflowException",
})  # fmt: skip

_WIDEST = 8  # bytes of a number; longer floats have no JSON of their own


class ModelError(Exception):
    """A model that cannot be loaded, or rows that it cannot take; the message is for people."""


class ModelOutputError(ModelError):
    """Outputs of a model that are none; its rows are not to blame."""


class Model(ABC):
    """A loaded model.

    Attributes:
        is_users_code: Whether it brings code of its own, which takes any tensors.
    """

    is_users_code = False

    @property
    def platform(self) -> str:
        """What it is of, such as ``sklearn``."""
        return ""

    @property
    def inputs(self) -> Sequence[tuple[str, str, tuple[int, ...]]]:
        """Name, datatype and shape of its tensors, as in the Open Inference Protocol.

        -1 is a dimension of any length; none where they are not known.
        """
        return ()

    def is_refusal(self, error: Exception) -> bool:
        """Whether an error of its :meth:`infer` says that the values are to blame, and not it.

        User code may raise anything for any reason.
        """
        return not self.is_users_code and (
            isinstance(error, _REFUSALS) or type(error).__name__ in _REFUSALS_OF_LIBRARIES
        )

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


def numbers(array: Array) -> Array:
    """An array of numbers, of one that may have texts of them.

    One value that is no number makes a whole column of CSV texts, and no record but its own fails.

    Raises:
        ModelError: If a value is no number.
    """
    try:
        return array.astype(np.float64) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise ModelError(f"The model takes numbers: {error}.") from error


def features(
    inputs: Columns, names: Sequence[str] = (), width: int = 0
) -> Array | Mapping[str, Array]:
    """The features of a model: one array, or columns in the model's order; see :func:`matrix`."""
    if set(inputs) == {INPUT} and (INPUT not in names or inputs[INPUT].ndim > 1):
        array = inputs[INPUT]
        if array.dtype == object:
            raise ModelError(f"The model takes numbers; a row has {reprlib.repr(array[0])}.")
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
        ModelOutputError: If it returned nothing.
    """
    if hasattr(found, "columns") and hasattr(found, "to_numpy"):
        found = {str(name): found[name] for name in found.columns}
    if found is None:
        raise ModelOutputError("The model returned nothing.")
    if not isinstance(found, Mapping):
        found = {PREDICTION: found}
    columns = {str(name): _named_array(str(name), value) for name, value in found.items()}
    if not columns:
        raise ModelOutputError("The model returned nothing.")
    return columns


def _named_array(name: str, value: Any) -> Array:
    try:
        return as_array(value)
    except ModelOutputError as error:
        raise ModelOutputError(
            f"The model returned what cannot be stored: {name}: {error}."
        ) from error


def as_array(value: Any) -> Array:
    """A model's output as an array: of numbers where they have one shape, else of objects.

    What has no rows, such as a number, stays an array without an axis. Times are texts as in ISO
    8601, and what is masked or missing is NaN or None.

    Raises:
        ModelOutputError: If it has values that JSON does not have.
    """
    value = _array_of(value)
    if isinstance(value, np.ma.MaskedArray):
        value = value.filled(np.nan) if value.dtype.kind == "f" else objects(value.tolist())
    kind = value.dtype.kind
    if value.ndim == 0:  # no rows
        return as_array(value.reshape(1)).reshape(())
    if kind in "biuf":
        native = np.float64 if value.dtype.itemsize > _WIDEST else value.dtype.newbyteorder("=")
        return np.asarray(value, dtype=native)
    if kind == "M":
        texts = np.datetime_as_string(value).astype(object)
        texts[np.isnat(value)] = None
        return objects(texts.tolist())
    if kind in "cmV":
        raise ModelOutputError(f"{value.dtype} has no JSON")
    return value if kind == "O" else objects(value.tolist())


def _array_of(value: Any) -> Array:
    """An array of any dtype."""
    if hasattr(value, "detach"):
        return _of_tensor(value)
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    elif hasattr(value, "toarray"):  # a sparse matrix
        value = value.toarray()
    elif hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list | tuple | Iterator):
        return np.asarray(value)
    values = [_of_tensor(one) if hasattr(one, "detach") else one for one in value]
    try:
        found = np.asarray(values)
    except ValueError:  # ragged
        return objects(values)
    is_rounded = found.dtype.kind == "f" and all(type(one) is int for one in values)
    return objects(values) if found.dtype.kind in "OUS" or is_rounded else found


def _of_tensor(tensor: Any) -> Array:
    """The values of a tensor of PyTorch's, wherever it is and whatever its type is."""
    tensor = tensor.detach().cpu()
    if tensor.layout != sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    try:
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except TypeError:  # bfloat16 and smaller ones, which numpy does not have
        return np.asarray(tensor.float().numpy())


def _listed(names: Sequence[str]) -> str:
    most = 8
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
