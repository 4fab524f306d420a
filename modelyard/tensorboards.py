"""The TensorBoards that are running on this machine: each announces itself in the home.

An announcement counts while its file is locked, which ends with the process that wrote it, however
that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from infra.home import Home


@dataclass(frozen=True)
class TensorBoard:
    """A running TensorBoard.

    Attributes:
        shown: What it shows: an experiment, or a run by id or name.
        url: Its address.
    """

    shown: str
    url: str


@contextlib.contextmanager
def announced(home: Home, board: TensorBoard) -> Iterator[None]:
    """Announce a TensorBoard until the block ends."""
    folder = home.tensorboards
    folder.mkdir(exist_ok=True)
    path = folder / f"{os.getpid()}.json"
    with path.with_suffix(".new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(asdict(board), file)
        file.flush()
        path.with_suffix(".new").replace(path)  # once it is locked
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running(home: Home) -> list[TensorBoard]:
    """List the announced TensorBoards by what they show; remove what others have left behind."""
    found = []
    for path in home.tensorboards.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(TensorBoard(**json.load(file)))
            else:
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda board: (board.shown, board.url))
