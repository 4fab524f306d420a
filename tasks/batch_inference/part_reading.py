"""The records of a part, whose files follow each other as if they were one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from tasks.batch_inference import reading
from tasks.batch_inference.planning import PlannedPiece
from tasks.batch_inference.reading import BadRecord, Batch

# So many records may come after one that waits for others of its form: their results, which it
# comes before, are held until then.
_MOST_AHEAD = 16_384


def read(
    pieces: Iterable[PlannedPiece], input_format: str, batch_size: int, key: str = ""
) -> Iterator[PlannedPiece | Batch | BadRecord]:
    """The records of the pieces of a part, numbered through from 0.

    Records of one form share a batch, also of several files or with others between them, so
    batches are not in order. Each piece comes before its records.

    Args:
        pieces: The pieces, brought one after another.
        input_format: Their format.
        batch_size: Most records of a batch.
        key: The field that is a record's key; "" if none.

    Raises:
        OSError: If a file cannot be read, or has other records than were counted.
    """
    return _merged(_numbered(pieces, input_format, batch_size, key), batch_size)


def _numbered(
    pieces: Iterable[PlannedPiece], input_format: str, batch_size: int, key: str
) -> Iterator[PlannedPiece | Batch | BadRecord]:
    start = 0
    for piece in pieces:
        yield piece
        part, count = piece.part, 0
        for one in reading.read(piece.path, input_format, part, batch_size, key, piece.types):
            count += 1 if isinstance(one, BadRecord) else len(one.rows)
            if count > part.rows:
                break
            yield _shifted(one, start - part.first_row)
        if count != part.rows:
            raise OSError(
                f"{piece.path} has {count} records where {part.rows} were counted: it was "
                "changed, or is malformed."
            )
        start += part.rows


def _shifted(one: Batch | BadRecord, by: int) -> Batch | BadRecord:
    if isinstance(one, BadRecord):
        return replace(one, row=one.row + by)
    if isinstance(one.rows, range):
        return replace(one, rows=range(one.rows.start + by, one.rows.stop + by))
    return replace(one, rows=[row + by for row in one.rows])


def _merged(
    items: Iterable[PlannedPiece | Batch | BadRecord], batch_size: int
) -> Iterator[PlannedPiece | Batch | BadRecord]:
    """The same, where batches that are not full wait for others of their form."""
    waiting: dict[Hashable, list[Batch]] = {}
    counts: Counter[Hashable] = Counter()  # of their records
    ahead = 0  # records that have come since none waits
    for item in items:
        if not isinstance(item, Batch) or len(item.rows) == batch_size:
            yield item
        else:
            form = _form(item)
            waiting.setdefault(form, []).append(item)
            counts[form] += len(item.rows)
            if counts[form] >= batch_size:
                full, *rest = _joined(waiting.pop(form)).pieces(batch_size)
                yield full
                counts[form] -= batch_size
                if rest:
                    waiting[form] = rest
        if isinstance(item, Batch):
            ahead = ahead + len(item.rows) if waiting else 0
        if ahead >= _MOST_AHEAD:
            yield from map(_joined, waiting.values())
            waiting.clear()
            counts.clear()
            ahead = 0
    yield from map(_joined, waiting.values())


def _form(batch: Batch) -> Hashable:
    """What the arrays of batches have to have in common to be joined as they are."""
    columns = ((name, one.dtype.str, one.shape[1:]) for name, one in batch.columns.items())
    return batch.keys is None, tuple(columns)


def _joined(batches: list[Batch]) -> Batch:
    """The records of batches of one form, in the order of their rows."""
    if len(batches) == 1:
        return batches[0]
    rows = np.concatenate([one.rows for one in batches])
    order = np.argsort(rows)
    keys = None
    if batches[0].keys is not None:
        found = [key for one in batches for key in one.keys or ()]
        keys = [found[at] for at in order.tolist()]
    return Batch(
        rows[order].tolist(),
        {
            name: np.concatenate([one.columns[name] for one in batches])[order]
            for name in batches[0].columns
        },
        keys,
    )
