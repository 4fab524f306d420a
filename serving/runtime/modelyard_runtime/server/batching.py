"""Batches of what arrives while the model is busy.

A request that finds the model idle is predicted at once; what arrives meanwhile waits, and is
predicted together. Nothing waits for company. A batch that fails is predicted request by request,
so that one that the model cannot take fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard_runtime.frames import Columns
from modelyard_runtime.server import observation
from modelyard_runtime.server.call_thread import CallThread, as_exception
from modelyard_runtime.server.observation import BatchTimes, ModelObserver
from modelyard_runtime.server.refusals import RequestRefused

Predict = Callable[[Columns], Columns]

# Below this a batch is predicted on the event loop: handing it to a thread costs more, most of all
# in the slowest hundredth of the answers. A batch much larger than those that were so quick is
# not, so that the server stays live whatever it is asked.
_QUICK_SECONDS = 0.001
_MUCH_LARGER = 2
_WEIGHT = 0.1  # of the newest in the moving average
_OVERLOADED = "The model is asked for more than it predicts: try again later."


@dataclass(frozen=True)
class BatchLimits:
    """Limits of a model's queue.

    Attributes:
        rows: Most rows that are predicted together.
        waiting: Most requests that wait.
        seconds: Longest time that a request waits and is predicted.
    """

    rows: int = 64
    waiting: int = 256
    seconds: float = 60.0


def overdue(limits: BatchLimits) -> RequestRefused:
    """The refusal of a request that takes too long."""
    return RequestRefused(504, f"The model did not answer within {limits.seconds:g} s.")


@dataclass(eq=False)
class _Waiting:
    """A request that waits for its outputs.

    Attributes:
        inputs: Its tensors.
        form: What requests of one batch have in common; None of one that is predicted alone.
        rows: Its rows.
        values: How many values its arrays have; None where they may be texts of any length.
        outputs: Future of the outputs.
        arrived: Time of its arrival, by the clock of ``time.perf_counter``.
        batches: List to which its batch is appended; None where no record is kept.
    """

    inputs: Columns
    form: object
    rows: int
    values: int | None
    outputs: asyncio.Future[Columns]
    arrived: float
    batches: list[BatchTimes] | None


class Batcher:
    """Predicts requests of one model, one batch after another. For one event loop."""

    def __init__(
        self, predict: Predict, limits: BatchLimits, observer: ModelObserver | None = None,
        *, joins: bool = True, steady: bool = True,
    ) -> None:  # fmt: skip
        """Predict with ``predict``.

        Args:
            predict: The model.
            limits: Its limits.
            observer: Observer of batches; None for none.
            joins: Whether its outputs are row by row.
            steady: Whether its time depends on the size of the arrays alone. What user code does,
                nobody knows: it is never run on the event loop.
        """
        self._predict = predict
        self._observer = observer or ModelObserver()
        self._limits = limits
        self._joins = joins
        self._is_steady = steady
        self._quick_values = 0  # most of a batch that was quick
        self._began: float | None = None  # the batch that is predicted now
        self._waiting: deque[_Waiting] = deque()
        self._is_busy = False
        self._seconds = _QUICK_SECONDS  # of a batch, on average; in a thread until it is known
        self._thread = CallThread("predict")

    def close(self) -> None:
        """End the thread; what is predicted now goes on."""
        self._thread.end()

    def check_ready(self) -> None:
        """Refuse requests while a batch takes longer than any may.

        Raises:
            RequestRefused: 503.
        """
        passed = 0.0 if self._began is None else time.perf_counter() - self._began
        if passed > self._limits.seconds:
            raise RequestRefused(
                503, f"The model has been predicting one batch for {passed:.0f} s, longer than "
                f"the {self._limits.seconds:g} s that it may.", {"retry-after": "1"},
            )  # fmt: skip

    async def predict(self, inputs: Columns) -> Columns:
        """The outputs for a request's tensors.

        Raises:
            RequestRefused: 429 if too many requests wait, 504 if it takes too long.
            Exception: What the model raises.
        """
        if len(self._waiting) >= self._limits.waiting:
            self._observer.on_refused()
            raise RequestRefused(429, _OVERLOADED, {"retry-after": "1"})
        loop = asyncio.get_running_loop()
        form, rows = self._form(inputs)
        has_objects = any(array.dtype == object for array in inputs.values())
        values = None if has_objects else sum(array.size for array in inputs.values())
        record = observation.current()
        one = _Waiting(
            inputs, form, rows, values, loop.create_future(), time.perf_counter(),
            record.batches if record else None,
        )  # fmt: skip
        self._waiting.append(one)
        if self._is_busy:
            self._observer.on_waiting(len(self._waiting))
        else:
            self._is_busy = True
            loop.call_soon(self._next, loop)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await one.outputs
        except TimeoutError:
            self._observer.on_overdue()
            raise overdue(self._limits) from None
        finally:
            if one.outputs.cancelled():  # it leaves its place in the queue to others
                with contextlib.suppress(ValueError):
                    self._waiting.remove(one)

    def _form(self, inputs: Columns) -> tuple[object, int]:
        lengths = {array.shape[:1] for array in inputs.values()}
        if not self._joins or len(lengths) != 1 or lengths & {(), (0,)}:
            return None, 1
        ((rows,),) = lengths
        return tuple((name, one.dtype, one.shape[1:]) for name, one in inputs.items()), rows

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Predict the next batch; for the event loop."""
        batch = self._take()
        if not batch:
            self._is_busy = False
            return
        if self._is_quick(batch):
            self._work(batch, lambda deliver: deliver())
            loop.call_soon(self._next, loop)
            return

        def done(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self._next, loop)

        work = self._thread.submit(lambda: self._work(batch, loop.call_soon_threadsafe))
        work.add_done_callback(done)

    def _is_quick(self, batch: Sequence[_Waiting]) -> bool:
        """Whether the event loop has the time to predict it."""
        return (
            self._is_steady
            and self._seconds < _QUICK_SECONDS
            and all(one.values is not None for one in batch)
            and _values(batch) <= _MUCH_LARGER * self._quick_values
        )

    def _take(self) -> list[_Waiting]:
        """What is predicted together next: requests of one form, in the order of arrival."""
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            if first.outputs.done():  # nobody waits for it any more
                self._waiting.popleft()
                continue
            if batch and (
                first.form is None
                or first.form != batch[0].form
                or rows + first.rows > self._limits.rows
            ):
                break
            batch.append(self._waiting.popleft())
            rows += first.rows
        self._observer.on_waiting(len(self._waiting))
        return batch

    def _work(
        self, batch: Sequence[_Waiting], hand_over: Callable[[Callable[[], None]], object]
    ) -> None:
        """Predict a batch, and hand its outputs over to the event loop."""
        began = self._began = time.perf_counter()
        self._observer.on_batch([began - one.arrived for one in batch])
        found = self._joint(batch) if len(batch) > 1 else None
        if found is None:
            found = [self._alone(one) for one in batch]
        ended = time.perf_counter()
        passed = ended - began
        self._began = None
        for one in batch:
            if one.batches is not None:
                rows = sum(each.rows for each in batch)
                one.batches.append(BatchTimes(one.arrived, began, ended, rows, len(batch)))
        self._seconds += _WEIGHT * (passed - self._seconds)
        if passed < _QUICK_SECONDS:
            self._quick_values = max(self._quick_values, _values(batch))

        def deliver() -> None:
            for one, outputs in zip(batch, found, strict=True):
                if one.outputs.done():
                    continue
                if isinstance(outputs, BaseException):
                    one.outputs.set_exception(outputs)
                else:
                    one.outputs.set_result(outputs)

        hand_over(deliver)

    def _joint(self, batch: Sequence[_Waiting]) -> list[Columns | BaseException] | None:
        """The outputs of a batch; None if it cannot be predicted together."""
        try:
            joined = {
                name: np.concatenate([one.inputs[name] for one in batch])
                for name in batch[0].inputs
            }
            outputs = self._predict(joined)
        except BaseException:  # noqa: BLE001 (each is asked alone, and fails with its own)
            return None
        rows = sum(one.rows for one in batch)
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            self._joins = False  # its outputs are not row by row
            return None
        found: list[Columns | BaseException] = []
        at = 0
        for one in batch:
            found.append({name: array[at : at + one.rows] for name, array in outputs.items()})
            at += one.rows
        return found

    def _alone(self, one: _Waiting) -> Columns | BaseException:
        try:
            return self._predict(one.inputs)
        except BaseException as error:  # noqa: BLE001 (user code; told to who asked)
            return as_exception(error)


def _values(batch: Sequence[_Waiting]) -> int:
    """How many values the arrays of a batch have."""
    return sum(one.values or 0 for one in batch)
