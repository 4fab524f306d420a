"""A run that is executed for the while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from infra import run_lock
from infra.home import Home


@contextlib.contextmanager
def holding(home: Home, run: str) -> Iterator[None]:
    with run_lock.scope():
        run_lock.acquire(home, run)
        yield
