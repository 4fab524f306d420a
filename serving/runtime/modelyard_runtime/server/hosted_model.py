"""A model that is served: loaded in a thread, and asked in batches."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelyard_runtime import records
from modelyard_runtime.frames import Array, Columns
from modelyard_runtime.models.base import INPUT, Model, ModelError, ModelOutputError
from modelyard_runtime.models.loading import load
from modelyard_runtime.server import batching, instances
from modelyard_runtime.server.batching import Batcher, BatchLimits
from modelyard_runtime.server.call_thread import CallThread, CodeExitError, run_aside
from modelyard_runtime.server.code_errors import CodeErrors
from modelyard_runtime.server.observation import ModelObserver
from modelyard_runtime.server.refusals import RequestRefused, bad
from modelyard_runtime.server.tensors import NUMBERS, TensorSpec, as_output, datatype

# Instances of other forms are predicted on their own, and each waits in the queue: those of one
# request leave room for others.
_PARTS_AT_ONCE = 32


class ModelLoadError(Exception):
    """A model could not be loaded; the message says what was raised, and where."""


class HostedModel:
    """A model under its name, from the beginning of its loading to the end of the server."""

    def __init__(
        self, name: str, version: str, loader: Callable[[], Model], limits: BatchLimits,
        observer: ModelObserver | None = None, folder: Path | None = None,
    ) -> None:  # fmt: skip
        """Serve what ``loader`` returns as ``name``.

        Args:
            name: The model's name.
            version: Its version.
            loader: Returns the model.
            limits: Those of its batches.
            observer: Told of it.
            folder: That of its code, if it has some.
        """
        self.name = name
        self.label = f"The model {name}"
        self.version = version
        self._loader = loader
        self._errors = CodeErrors(folder) if folder else None
        self._limits = limits
        self._observer = observer or ModelObserver()
        self._model: Model | None = None
        self._batcher: Batcher | None = None
        self._failure = ""
        self._outputs: Sequence[TensorSpec] = ()

    @classmethod
    def of_folder(
        cls, name: str, version: str, folder: Path, parameters: Mapping[str, str],
        limits: BatchLimits, observer: ModelObserver | None = None,
    ) -> HostedModel:  # fmt: skip
        """The model in a folder; see :func:`modelyard_runtime.models.loading.load`."""
        return cls(name, version, lambda: load(folder, parameters), limits, observer,
                   folder)  # fmt: skip

    async def load(self) -> None:
        """Load the model.

        Raises:
            ModelLoadError: If that fails, which is the reason why it is not ready then.
        """
        began = time.perf_counter()
        thread = CallThread("load")
        loading = thread.submit(self._load)
        thread.end()
        try:
            loaded, self._outputs = await asyncio.wrap_future(loading)
        except ModelLoadError as error:
            self._failure = str(error)
            raise
        self._batcher = Batcher(
            self._infer, self._limits, self._observer, steady=not loaded.is_users_code
        )
        self._model = loaded
        self._observer.on_loaded(time.perf_counter() - began)

    @property
    def seconds(self) -> float:
        """Longest time that a request may take."""
        return self._limits.seconds

    def overdue(self) -> RequestRefused:
        """The refusal of a request that takes longer."""
        return batching.overdue(self._limits)

    def close(self) -> None:
        """Stop predicting."""
        if self._batcher:
            self._batcher.close()

    @property
    def platform(self) -> str:
        """What the model is of."""
        return self._model.platform if self._model else ""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """Tensors that it takes; none where that is not known."""
        return [TensorSpec(*one) for one in self._model.inputs] if self._model else []

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """Tensors that it returns of those that it takes; none where that is not known."""
        return self._outputs

    def _load(self) -> tuple[Model, Sequence[TensorSpec]]:
        try:
            loaded = self._loader()
        except ModelError as error:
            raise ModelLoadError(str(error)) from error
        except BaseException as error:
            if self._errors is None:
                raise ModelLoadError(_told(error)) from error
            self._errors.log(error)
            raise ModelLoadError(self._errors.describe(error)) from error
        return loaded, () if loaded.is_users_code else _outputs_of(loaded)

    def check_ready(self) -> None:
        """Refuse requests until it is loaded, and while it does not answer.

        Raises:
            RequestRefused: 503.
        """
        if self._model is None:
            why = f"failed to load: {self._failure}" if self._failure else "is loading"
            raise RequestRefused(503, f"The model {self.name} {why}.", {"retry-after": "1"})
        assert self._batcher is not None
        self._batcher.check_ready()

    async def infer(self, inputs: Columns) -> Columns:
        """The outputs for tensors by name.

        Raises:
            RequestRefused: If the model does not take them, fails, or has too much to do.
        """
        self.check_ready()
        assert self._batcher is not None
        return await self._asked(self._columns(inputs))

    async def predict(self, found: Sequence[Any], size: int = 0) -> list[Any]:
        """The predictions for instances, in their order.

        Args:
            found: The instances.
            size: Bytes of their JSON: what is large is read in a thread.

        Raises:
            RequestRefused: As :meth:`infer`.
        """
        self.check_ready()
        parts = await run_aside(size, lambda: list(records.alike(found)))
        if len(parts) == 1:
            return await self._answered([found], size)
        try:
            async with asyncio.timeout(self.seconds):
                return await self._answered_in_turn(found, parts, size)
        except TimeoutError:
            raise self.overdue() from None

    async def _answered_in_turn(
        self, found: Sequence[Any], parts: Sequence[range], size: int
    ) -> list[Any]:
        predictions: list[Any] = []
        for at in range(0, len(parts), _PARTS_AT_ONCE):
            some = [found[part.start : part.stop] for part in parts[at : at + _PARTS_AT_ONCE]]
            predictions += await self._answered(some, size)
        return predictions

    async def _answered(self, parts: Sequence[Sequence[Any]], size: int) -> list[Any]:
        """The predictions for instances of several forms."""
        columns = await run_aside(size, lambda: [records.columns(part) for part in parts])
        outputs = await asyncio.gather(
            *(self._asked(one) for one in columns), return_exceptions=True
        )
        predictions: list[Any] = []
        for part, one in zip(parts, outputs, strict=True):
            if isinstance(one, BaseException):
                raise one
            if any(array.shape[:1] != (len(part),) for array in one.values()):
                raise RequestRefused(500, "The model did not answer each instance.")
            predictions += await run_aside(size, instances.predictions, one)
        return predictions

    async def _asked(self, columns: Columns) -> Columns:
        assert self._batcher is not None
        try:
            return await self._batcher.predict(columns)
        except RequestRefused:
            raise
        except ModelOutputError as error:
            raise RequestRefused(500, str(error)) from error
        except ModelError as error:
            raise bad(str(error)) from error
        except Exception as error:
            assert self._model is not None
            if self._model.is_refusal(error):
                raise bad(f"The model refused the values: {error}") from error
            print(traceback.format_exc(), file=sys.stderr, end="", flush=True)
            raise RequestRefused(500, f"The model failed: {_told(error)}") from error

    @property
    def is_users_code(self) -> bool:
        """Whether a user's code predicts, of which nothing is known."""
        return bool(self._model and self._model.is_users_code)

    def _infer(self, columns: Columns) -> Columns:
        assert self._model is not None
        began = time.perf_counter()
        outputs = self._model.infer(columns)
        odd = [name for name, one in outputs.items() if not isinstance(one, np.ndarray)]
        if odd:
            raise ModelOutputError(f"The model returned no array as {odd[0]}.")
        rows = len(found) if np.ndim(found := next(iter(columns.values()), ())) else 1
        self._observer.on_predicted(rows, time.perf_counter() - began, outputs)
        return outputs

    def _columns(self, inputs: Columns) -> Columns:
        """Tensors as the model takes them.

        The only tensor of a model that knows no names is its input, whatever it is called; a
        feature of a table is a tensor of one value for each row.
        """
        return inputs if self.is_users_code else _named(inputs, self.inputs)


def _named(inputs: Columns, specs: Sequence[TensorSpec]) -> Columns:
    for spec in specs:
        if spec.name in inputs:
            _check(spec.name, inputs[spec.name], spec.shape)
    if len(inputs) == 1:
        ((name, array),) = inputs.items()
        known = {spec.name for spec in specs}
        if name not in known:
            if len(specs) == 1:
                _check(name, array, specs[0].shape)
            return {INPUT: _rows(name, array)}
    return {name: _column(_rows(name, array)) for name, array in inputs.items()}


def _outputs_of(model: Model) -> Sequence[TensorSpec]:
    """What a model returns of one row of zeros; none if it does not take that.

    The row is also what makes libraries ready: their first prediction is the slowest.
    """
    specs = [TensorSpec(*one) for one in model.inputs]
    if not specs or any(spec.datatype not in NUMBERS for spec in specs):
        return ()
    try:
        found = model.infer(_named({spec.name: _zeros(spec) for spec in specs}, specs))
        found = {name: as_output(array) for name, array in found.items()}
    except Exception:  # noqa: BLE001 (its values are not those that it takes)
        return ()
    if any(array.shape[:1] != (1,) for array in found.values()):
        return ()
    is_fixed = all(-1 not in spec.shape[1:] for spec in specs)
    return [
        TensorSpec(
            name, datatype(array), (-1, *(size if is_fixed else -1 for size in array.shape[1:]))
        )
        for name, array in found.items()
    ]


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if size == -1 else size for size in spec.shape]
    return np.zeros(shape, NUMBERS[spec.datatype])


def _check(name: str, array: Array, shape: Sequence[int]) -> None:
    """Refuse a tensor of another shape than the model's.

    Raises:
        RequestRefused: If it is.
    """
    fits = array.ndim == len(shape) and all(
        wanted in {-1, there} for wanted, there in zip(shape, array.shape, strict=True)
    )
    # One value for each row may have an axis of its own.
    if not fits and not (tuple(shape) == (-1,) and array.ndim == 2 and array.shape[1] == 1):
        raise bad(f"The model takes {name} of the shape {list(shape)}, not {list(array.shape)}.")


def _rows(name: str, array: Array) -> Array:
    if not array.shape[:1] or not len(array):
        raise bad(f"The tensor {name} has no rows.")
    return array


def _column(array: Array) -> Array:
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _told(error: BaseException) -> str:
    if isinstance(error, CodeExitError):
        return str(error)
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 (user code: the words of its exception)
        text = ""
    return f"{name}: {text}"[:2000] if text else name
