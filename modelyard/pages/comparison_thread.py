"""Comparisons of evaluations: computed one after another in a thread, and kept.

A comparison takes seconds, and its evaluations do not change.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.errors import BadInputError, ModelyardError, StackError

_logger = logging.getLogger(__name__)
_MOST_KEPT = 32
_MOST_WAITING = 8
_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class EvaluationFiles:
    """An evaluation to compare.

    Attributes:
        run_id: Its flow run.
        name: Its name.
        result: The content of ``result.json``, which has been checked.
        sample: The content of ``sample.npz``.
    """

    run_id: str
    name: str
    result: bytes
    sample: bytes


@dataclass(frozen=True)
class Comparison:
    """What a comparison has found.

    Attributes:
        metrics: Those of an ``EvaluationComparisonView``, in JSON.
        remarks: What to know of it.
        names: Of each evaluation, how it calls the classes of the first one.
    """

    metrics: Mapping[str, Any]
    remarks: Sequence[str]
    names: Sequence[Mapping[str, str]]


Read = Callable[[], Sequence[EvaluationFiles]]
Compare = Callable[[Sequence[EvaluationFiles]], Comparison]


@dataclass
class _Job:
    read: Read
    done: threading.Event = field(default_factory=threading.Event)
    found: Comparison | ModelyardError | None = None


def _compare(evaluations: Sequence[EvaluationFiles]) -> Comparison:
    from modelyard.pages import comparing  # noqa: PLC0415 (NumPy, which no other page needs)

    return comparing.compare(evaluations)


class ComparisonThread:
    """Compares evaluations. Thread-safe."""

    def __init__(self, compare: Compare = _compare, wait_seconds: float = _WAIT_SECONDS) -> None:
        """Compare with ``compare``, for which a page waits at most ``wait_seconds``."""
        self._compare = compare
        self._wait_seconds = wait_seconds
        self._jobs: OrderedDict[object, _Job] = OrderedDict()
        self._queue: queue.Queue[tuple[object, _Job]] = queue.Queue(_MOST_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def find(self, key: object, read: Read) -> Comparison | None:
        """Return a comparison; None while it is computed, or others are.

        Args:
            key: What is compared.
            read: Reads its evaluations, in the thread.

        Raises:
            ModelyardError: If they cannot be compared.
        """
        job = self._job(key, read)
        if job is None or not job.done.wait(self._wait_seconds):
            return None
        if isinstance(job.found, ModelyardError):
            raise job.found
        return job.found

    def _job(self, key: object, read: Read) -> _Job | None:
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = _Job(read)
                try:
                    self._queue.put_nowait((key, job))
                except queue.Full:
                    return None
                self._jobs[key] = job
                self._start()
            self._jobs.move_to_end(key)
            while len(self._jobs) > _MOST_KEPT:
                self._jobs.popitem(last=False)
            return job

    def _start(self) -> None:
        if self._thread is None:
            # Nothing is lost with a comparison, so it does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="comparisons", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            key, job = self._queue.get()
            job.found = self._outcome(job)
            if isinstance(job.found, StackError):
                with self._lock:
                    self._jobs.pop(key, None)  # the next request asks again
            job.done.set()

    def _outcome(self, job: _Job) -> Comparison | ModelyardError:
        try:
            return self._compare(job.read())
        except ModelyardError as error:
            return error
        except Exception as error:  # of files that may be anything
            _logger.warning("A comparison failed", exc_info=error)
            return BadInputError(
                "The evaluations cannot be compared: MLflow has other files there.",
                "Evaluate the models again.",
                code="EvaluationsNotComparable",
            )
