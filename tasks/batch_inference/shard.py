"""A shard: predicts parts one after another, in a process of its own.

    python -m tasks.batch_inference.shard SPEC

Parts that have a summary are done already, and are skipped. What the model prints goes to the
standard error.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson
from modelyard_runtime.frames import Columns
from pydantic import TypeAdapter

from infra import storage
from serving.server_http import ServedModel
from tasks.batch_inference import part_reading, server_connection
from tasks.batch_inference.failure_reasons import FailureReason, FailureReasons
from tasks.batch_inference.part_results import OutputError, PartFiles, PartWriter
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.predictor_client import (
    PredictionError,
    PredictorClient,
    PredictorCommand,
    PredictorStartError,
)
from tasks.batch_inference.reading import BadRecord, Batch
from tasks.batch_inference.result_statistics import ResultStatistics
from tasks.batch_inference.server_client import ServerClient

# Records that run into the time limit, or end the predictor, one after another, until the model
# counts as hanging or broken.
_MOST_UNANSWERED = 10
# Batches that fail, one after another, although none of their records does alone, until they count
# as too large: for the memory, or the time limit.
_MOST_OVERSIZED = 2
# Smaller batches are asked for again record by record.
_LEAST_IN_PIECES = 16
_AHEAD = 4
_TELL_SECONDS = 1.0

# Variable with the values of the model's secret parameters, in JSON, which are in no file.
SECRETS = "MODELYARD_MODEL_SECRETS"

# Exit status of a shard that had no room for its results.
DISK_FULL = 74

T = TypeVar("T")


class ShardFailedError(Exception):
    """The shard cannot go on; the message is for people."""


class TooManyFailedError(ShardFailedError):
    """More records have failed than may."""


@dataclass(frozen=True)
class ShardSpec:
    """What a shard does.

    Attributes:
        pieces: The pieces of the parts, in their order.
        folder: The folder of their results.
        status: File that says what is done, once it has begun.
        input_format: The format of their files.
        predictor: How its predictor is started, or the server that it asks.
        batch_size: Most records of one request.
        seconds: How long one request may take.
        most_failed: So many records may fail, of all shards.
        key: The field that is a record's key; "" if none.
        drop_fields: Fields that the model does not get.
    """

    pieces: list[PlannedPiece]
    folder: Path
    status: Path
    input_format: str
    predictor: PredictorCommand | ServedModel
    batch_size: int
    seconds: float
    most_failed: int
    key: str = ""
    drop_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShardStatus:
    """What a shard has done.

    Attributes:
        rows: Records that it has predicted, also those of earlier attempts.
        failed: Records that failed.
        earlier: Records of parts that earlier attempts had done.
        failure: Why it cannot go on; "" if it can.
        reasons: Why records failed, the most frequent reason first.
        outputs: The names of the model's outputs; empty before its first results.
    """

    rows: int = 0
    failed: int = 0
    earlier: int = 0
    failure: str = ""
    reasons: list[FailureReason] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list, compare=False)


class Shard:
    """A shard at work."""

    def __init__(self, spec: ShardSpec, client: PredictorClient | ServerClient) -> None:
        """Predict with ``client``."""
        self._spec = spec
        self._client = client
        self._rows = 0
        self._failed = 0
        self._earlier = 0
        self._reasons = FailureReasons()
        self._outputs: list[str] = []
        self._unanswered = 0  # one after another
        self._most = spec.batch_size
        self._oversized = 0  # one after another
        self._tries = 0
        self._told = 0.0

    def run(
        self,
        pieces: Iterable[PlannedPiece] | None = None,
        on_predicted: Callable[[Sequence[PlannedPiece], PartFiles], object] = lambda *_: None,
    ) -> None:
        """Predict all parts that are not done.

        Args:
            pieces: The pieces of the parts, brought one after another; those of the specification
                by default.
            on_predicted: Called with the pieces of each part that was predicted, and its results.

        Raises:
            ShardFailedError: If the model hangs, or too many records fail: TooManyFailedError.
            PredictorStartError: If the model does not load.
            OSError: If a file cannot be read or written.
        """
        found = self._spec.pieces if pieces is None else pieces
        for number, part in itertools.groupby(found, key=lambda piece: piece.number):
            files = PartFiles(self._spec.folder, number)
            done = files.read_summary()
            if done is None:
                with PartWriter(files) as writer:
                    on_predicted(self._predict(part, writer), files)
            else:
                self._rows += done.rows
                self._earlier += done.rows + done.failed
                self._reasons.merge(done.reasons)
                self._count_failed(done.failed)
        self.tell()

    def tell(self, failure: str = "") -> None:
        """Write what is done to the status file."""
        self._told = time.monotonic()
        status = ShardStatus(
            self._rows, self._failed, self._earlier, failure, self._reasons.found, self._outputs
        )
        write_status(status, self._spec.status)

    def _predict(
        self, pieces: Iterable[PlannedPiece], writer: PartWriter
    ) -> Sequence[PlannedPiece]:
        """Predict the pieces of a part; these."""
        spec, statistics, begun = self._spec, ResultStatistics(), []
        read = part_reading.read(pieces, spec.input_format, spec.batch_size, spec.key)
        with prefetched(read, _AHEAD) as ahead:
            for one in ahead:
                if isinstance(one, PlannedPiece):
                    writer.begin(one.part, one.file)
                    begun.append(one)
                elif isinstance(one, BadRecord):
                    self._fail(writer, one.row, None, one.reason)
                else:
                    self._predict_batch(one, writer, statistics)
                if time.monotonic() - self._told > _TELL_SECONDS:
                    self.tell()
        writer.commit(statistics.summary())
        return begun

    def _predict_batch(
        self, batch: Batch, writer: PartWriter, statistics: ResultStatistics
    ) -> None:
        """Write what a batch predicts, in smaller batches once whole ones are too much."""
        for some in batch.pieces(self._most):
            tries = self._tries
            rows = len(some.rows)
            piece = math.isqrt(rows) if rows >= _LEAST_IN_PIECES else 1
            is_whole = self._predict_some(some, piece, writer, statistics)
            if self._tries == tries + 1:
                self._oversized = 0
            elif is_whole:  # no record of it fails alone
                self._count_oversized(rows)

    def _predict_some(
        self, batch: Batch, piece: int, writer: PartWriter, statistics: ResultStatistics
    ) -> bool:
        """Write what records predict, or where they fail what pieces of them predict.

        A batch is asked for again in pieces of the square root of its records, and a piece record
        by record. So one record that fails costs three failures, each of which may be a time limit
        and a start of the model, and a few requests. Halves would cost more failures, single
        records more requests.

        Args:
            batch: The records.
            piece: How many records a piece of them has.
            writer: Receives what is predicted.
            statistics: Likewise.

        Returns:
            Whether all were predicted.
        """
        keys, columns = batch.keys, self._seen(batch)
        self._client.prepare()  # what loading takes is no batch's
        begun = time.monotonic()
        self._tries += 1
        try:
            outputs = self._infer(columns, is_last=len(batch.rows) == 1)
            writer.write(batch.rows, keys, outputs)
        except (PredictionError, OutputError) as error:
            if len(batch.rows) > 1:
                is_whole = True
                for some in batch.pieces(piece):
                    is_whole &= self._predict_some(some, 1, writer, statistics)
                return is_whole
            self._count_unanswered(error)
            self._fail(writer, batch.rows[0], keys[0] if keys else None, str(error))
            return False
        self._unanswered = 0
        self._outputs = self._outputs or list(outputs)
        self._rows += len(batch.rows)
        statistics.add(outputs, time.monotonic() - begun)
        return True

    def _infer(self, columns: Columns, *, is_last: bool) -> Columns:
        """Ask the predictor; where it ends at the last attempt, once more.

        Something else may have ended it: a kill, or the memory that another process took.
        """
        try:
            return self._client.infer(columns, self._spec.seconds)
        except PredictionError as error:
            if not (is_last and error.is_lost):
                raise
        return self._client.infer(columns, self._spec.seconds)

    def _seen(self, batch: Batch) -> Columns:
        """The fields that the model sees."""
        hidden = self._spec.drop_fields
        return {name: values for name, values in batch.columns.items() if name not in hidden}

    def _count_unanswered(self, error: PredictionError | OutputError) -> None:
        """Give up a model that hangs, or ends, at one record after another."""
        is_late = isinstance(error, PredictionError) and error.is_late
        is_lost = isinstance(error, PredictionError) and error.is_lost
        self._unanswered = self._unanswered + 1 if is_late or is_lost else 0
        if self._unanswered < _MOST_UNANSWERED:
            return
        if is_late:
            raise ShardFailedError(
                f"{_MOST_UNANSWERED} records one after another had no prediction within "
                f"{self._spec.seconds:g} seconds each: the model hangs."
            )
        raise ShardFailedError(
            f"{_MOST_UNANSWERED} records one after another ended the model, the last one with: "
            f"{error}"
        )

    def _count_oversized(self, rows: int) -> None:
        """Ask for fewer records at once if batches fail again and again, and no record does."""
        self._oversized += 1
        if self._oversized < _MOST_OVERSIZED:
            return
        self._oversized, self._most = 0, max(1, rows // 2)
        _print(
            f"Batches of {rows:,} records fail, and none of the records does alone: from now on "
            f"the model is asked for {self._most:,} at once. See batch_size."
        )

    def _fail(self, writer: PartWriter, row: int, key: Any, reason: str) -> None:
        reason = reason.encode(errors="backslashreplace").decode()  # no lone surrogates
        writer.fail(row, key, reason)
        self._reasons.add(*writer.place(row), reason)
        self._count_failed(1)

    def _count_failed(self, count: int) -> None:
        self._failed += count
        if self._failed > self._spec.most_failed:
            raise TooManyFailedError(
                too_many_failed(self._spec.most_failed, self._failed, self._reasons.found)
            )


def too_many_failed(most: int, failed: int, reasons: Sequence[FailureReason]) -> str:
    """The message of a batch inference of whose records too many fail.

    Args:
        most: How many may.
        failed: How many do.
        reasons: Why, the most frequent reason first.
    """
    often = f", {reasons[0].count} of them with: {reasons[0].reason}" if reasons else ""
    return f"{failed} records failed, more than max_failed ({most}){often}"


def _print(line: str) -> None:
    """Print a line among those of the model."""
    print(line, file=sys.stderr, flush=True)


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
    secrets = json.loads(os.environ.pop(SECRETS, "{}"))
    shard: Shard | None = None
    try:
        with client_of(spec.predictor, secrets) as client:
            shard = Shard(spec, client)
            shard.run()
    except (ShardFailedError, PredictorStartError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(_report(shard, spec, error, str(error)))
    except Exception as error:  # noqa: BLE001 (the edge of the process: the run reports it)
        traceback.print_exc()
        sys.exit(_report(shard, spec, error, f"{type(error).__name__}: {error}"))


def _report(shard: Shard | None, spec: ShardSpec, error: Exception, message: str) -> int:
    """Write why a shard, or what it asks, cannot go on; the exit status."""
    if storage.is_disk_full(error):  # for the status, too
        return DISK_FULL
    if shard is not None:
        shard.tell(message)
    else:
        write_status(ShardStatus(failure=message), spec.status)
    return 1


def client_of(
    predictor: PredictorCommand | ServedModel, secrets: Mapping[str, str]
) -> PredictorClient | ServerClient:
    """What predicts.

    Args:
        predictor: How it is started, or where it is.
        secrets: Values of the model's secret parameters by their names; of a server its token, as
            ``token``.

    Raises:
        PredictorStartError: If a server is not ready, or does not have the model.
    """
    if isinstance(predictor, ServedModel):
        return server_connection.connect(replace(predictor, token=secrets.get("token", "")))
    return PredictorClient(predictor.with_secrets(secrets))


def read_spec(path: Path) -> ShardSpec:
    """The specification in a file."""
    return TypeAdapter(ShardSpec).validate_json(path.read_bytes())


def write_status(status: ShardStatus, path: Path) -> None:
    """Write what a shard has done, all at once."""
    staged = path.with_suffix(".partial")
    staged.write_bytes(orjson.dumps(status))
    staged.replace(path)


def read_status(path: Path) -> ShardStatus | None:
    """What a shard has done; None before it has begun."""
    if not path.exists():
        return None
    return TypeAdapter(ShardStatus).validate_json(path.read_bytes())


def write_spec(spec: ShardSpec, path: Path) -> None:
    """Write a specification for a shard's process, for its owner alone: it has variables."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_bytes(TypeAdapter(ShardSpec).dump_json(spec))


if __name__ == "__main__":
    main()
