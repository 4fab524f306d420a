"""Named accesses: places in storage with an endpoint and an access key, or a folder, of their own.

They are blocks of Prefect's, all of one type, written by ``registry/storage_accesses.py``. A
process that knows no Prefect has none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from infra import secrets
from infra.errors import StackError
from infra.storage.addresses import place_of

BLOCK_TYPE = "storage-access"
_SECONDS = 60  # how long a process believes what it has read; each read asks Prefect


@dataclass(frozen=True)
class StorageAccess:
    """An access.

    Attributes:
        name: Its name.
        uris: What it is for: these URIs, and all below them.
        endpoint: The server of s3:// URIs; "" for Amazon's own.
        region: The region; "" for none, or boto3's own rules.
        plain_http: Whether the endpoint of an obs:// URI speaks plain http.
        key_id: Id of the access key, or ``secret:NAME``; "" for boto3's own rules.
        secret_key: Secret of the access key, or ``secret:NAME``.
        session_token: Token of a temporary access key; "" for none.
        folder: The folder that a nas:// URI stands for.
    """

    name: str
    uris: tuple[str, ...]
    endpoint: str = ""
    region: str = ""
    plain_http: bool = False
    key_id: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    folder: str = ""

    @classmethod
    def from_block(cls, name: str, data: Mapping[str, Any]) -> Self:
        """Read an access from its block's data."""
        return cls(name, **{**data, "uris": tuple(data["uris"])})

    def depth(self, place: tuple[str, ...]) -> int:
        """Return how many parts of a place one of its URIs covers; 0 for none."""
        covering = (one for one in map(place_of, self.uris) if place[: len(one)] == one)
        return max(map(len, covering), default=0)


_known: dict[int, tuple[float, list[StorageAccess]]] = {}


def find(uri: str) -> StorageAccess | None:
    """Find the access for ``uri``: of those that cover it, the one with the longest URI.

    Raises:
        StackError: If Prefect cannot be reached, and none were read before.
    """
    return _longest(_all(), uri)


def is_covered(uri: str, among: Iterable[StorageAccess]) -> bool:
    """Whether one of the accesses is for ``uri``."""
    return _longest(among, uri) is not None


def read_all() -> list[StorageAccess]:
    """Read every access from Prefect, sorted by name.

    Raises:
        StackError: If Prefect cannot be reached.
    """
    found = secrets.read_blocks(BLOCK_TYPE)
    return [StorageAccess.from_block(name, found[name]) for name in sorted(found)]


def forget() -> None:
    """Have the next call read the accesses again, such as after a refused key."""
    _known.clear()


def _longest(among: Iterable[StorageAccess], uri: str) -> StorageAccess | None:
    place = place_of(uri)
    best = max(among, key=lambda one: one.depth(place), default=None)
    return best if best and best.depth(place) else None


def _all() -> list[StorageAccess]:
    if not os.environ.get("PREFECT_API_URL"):
        return []
    until, found = _known.get(os.getpid(), (0.0, None))
    if time.monotonic() < until and found is not None:
        return found
    try:
        read = read_all()
    except StackError:
        if found is None:
            raise
        read = found
    _known.clear()  # those of a parent process as well
    _known[os.getpid()] = (time.monotonic() + _SECONDS, read)
    return read
