"""A shard: predicts parts one after another, in a process of its own.

    python -m tasks.batch_inference.shard SPEC

What is done is told on the standard output, one JSON object in each line. Parts that have a
summary are done already, and are skipped.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from modelyard_runtime.frames import Columns
from pydantic import TypeAdapter

from tasks.batch_inference import reading
from tasks.batch_inference.part_results import PartFiles, PartSummary, PartWriter
from tasks.batch_inference.planning import PlannedPart
from tasks.batch_inference.predictor_client import (
    PredictionError,
    PredictorClient,
    PredictorCommand,
    PredictorStartError,
)
from tasks.batch_inference.reading import BadRecord, Batch
from tasks.batch_inference.result_statistics import ResultStatistics

# Rows that run into the time limit, one after another, until the model counts as hanging.
_MOST_LATE = 10
_AHEAD = 4

T = TypeVar("T")


class ShardFailedError(Exception):
    """The shard cannot go on; the message is for people."""


@dataclass(frozen=True)
class ShardSpec:
    """What a shard does.

    Attributes:
        parts: The parts.
        folder: The folder of their results.
        input_format: The format of their files.
        predictor: How its predictor is started.
        batch_size: Most records of one request.
        seconds: How long one request may take.
        most_failed: So many records of the shard may fail.
        key: The field that is a record's key; "" if none.
    """

    parts: list[PlannedPart]
    folder: Path
    input_format: str
    predictor: PredictorCommand
    batch_size: int
    seconds: float
    most_failed: int
    key: str = ""


class Shard:
    """A shard at work."""

    def __init__(
        self,
        spec: ShardSpec,
        client: PredictorClient,
        tell: Callable[[Mapping[str, Any]], object],
    ) -> None:
        """Predict with ``client``; ``tell`` receives what is done."""
        self._spec = spec
        self._client = client
        self._tell = tell
        self._failed = 0
        self._late = 0  # one after another

    def run(self) -> None:
        """Predict all parts that are not done.

        Raises:
            ShardFailedError: If too many records fail, or the model hangs.
            PredictorStartError: If the model does not load.
            OSError: If a file cannot be read or written.
        """
        for planned in self._spec.parts:
            files = PartFiles(self._spec.folder, planned.number)
            done = files.read_summary()
            if done is None:
                with PartWriter(files) as writer:
                    done = self._predict(planned, writer)
            else:
                self._count_failed(done.failed, "")
            self._tell({"part": planned.number, "rows": done.rows, "failed": done.failed})

    def _predict(self, planned: PlannedPart, writer: PartWriter) -> PartSummary:
        spec, statistics = self._spec, ResultStatistics()
        read = reading.read(planned.path, spec.input_format, planned.part, spec.batch_size)
        with prefetched(read, _AHEAD) as ahead:
            for one in ahead:
                if isinstance(one, BadRecord):
                    writer.fail(one.row, None, one.reason)
                    self._count_failed(1, one.reason)
                else:
                    self._predict_batch(one, writer, statistics)
        return writer.commit(statistics.summary())

    def _predict_batch(
        self, batch: Batch, writer: PartWriter, statistics: ResultStatistics
    ) -> None:
        """Write what a batch predicts, or where it fails what its records predict alone."""
        keys, columns = self._keyed(batch)
        begun = time.monotonic()
        try:
            outputs = self._client.infer(columns, self._spec.seconds)
        except PredictionError as error:
            if len(batch.rows) > 1:
                for at in range(len(batch.rows)):
                    self._predict_batch(batch.row(at), writer, statistics)
                return
            writer.fail(batch.rows[0], keys[0] if keys else None, str(error))
            self._count_late(error)
            self._count_failed(1, str(error))
            return
        self._late = 0
        writer.write(batch.rows, keys, outputs)
        statistics.add(outputs, time.monotonic() - begun)

    def _keyed(self, batch: Batch) -> tuple[list[Any] | None, Columns]:
        """The keys of records, which the model does not see, and their other fields."""
        if not self._spec.key or self._spec.key not in batch.columns:
            return None, batch.columns
        columns = dict(batch.columns)
        return columns.pop(self._spec.key).tolist(), columns

    def _count_late(self, error: PredictionError) -> None:
        self._late = self._late + 1 if error.is_late else 0
        if self._late >= _MOST_LATE:
            raise ShardFailedError(
                f"{_MOST_LATE} records one after another had no prediction within "
                f"{self._spec.seconds:g} seconds each: the model hangs."
            )

    def _count_failed(self, count: int, reason: str) -> None:
        self._failed += count
        if self._failed > self._spec.most_failed:
            raise ShardFailedError(
                f"More than {self._spec.most_failed} records failed, the last one with: {reason}"
            )


@contextlib.contextmanager
def prefetched(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """Have a thread fetch up to ``most`` items ahead; what it raises is raised here."""
    fetched: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(most)
    is_over = threading.Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                fetched.put((item, error), timeout=0.2)
                return

    def fetch() -> None:
        try:
            for item in items:
                put(item, None)
                if is_over.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 (the edge of a thread: raised below)
            put(None, error)
        else:
            put(None, StopIteration())

    def received() -> Iterator[T]:
        while True:
            item, error = fetched.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield cast("T", item)

    thread = threading.Thread(target=fetch, name="reader", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        is_over.set()
        thread.join()


def main() -> None:
    """Run the shard that a file specifies."""
    spec = read_spec(Path(sys.argv[1]))

    def tell(done: Mapping[str, Any]) -> None:
        sys.stdout.buffer.write(orjson.dumps(done) + b"\n")
        sys.stdout.flush()

    try:
        with PredictorClient(spec.predictor) as client:
            Shard(spec, client, tell).run()
    except (ShardFailedError, PredictorStartError, OSError) as error:
        tell({"failure": str(error)})
        sys.exit(1)


def read_spec(path: Path) -> ShardSpec:
    """The specification in a file."""
    return TypeAdapter(ShardSpec).validate_json(path.read_bytes())


def write_spec(spec: ShardSpec, path: Path) -> None:
    """Write a specification for a shard's process."""
    path.write_bytes(TypeAdapter(ShardSpec).dump_json(spec))


if __name__ == "__main__":
    main()
