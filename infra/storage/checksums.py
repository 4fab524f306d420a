"""ETags as checksums of objects.

An object that was sent in one piece has the MD5 of its bytes as its ETag; one that was sent in
parts has the MD5 of its parts' MD5s, then ``-`` and their number. That is how Amazon's servers
make them where they do not encrypt with a customer's key, and how most others do. An ETag of
another form promises nothing, and then only the size can be compared.

ETags are written without their quotation marks here.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLAIN = re.compile(r"[0-9a-f]{32}")
_COMPOSITE = re.compile(r"[0-9a-f]{32}-([1-9]\d{0,4})")
_BLOCK = 2**20


def plain_md5(etag: str) -> str | None:
    """Return the MD5 in the ETag of an object in one piece."""
    return etag if _PLAIN.fullmatch(etag) else None


def part_count(etag: str) -> int | None:
    """Return the number of parts in the ETag of a multipart object."""
    match = _COMPOSITE.fullmatch(etag)
    return int(match[1]) if match else None


def md5(content: bytes) -> str:
    """Compute the MD5 of bytes, in hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def of_parts(md5s: Sequence[str]) -> str:
    """Compute the ETag of a multipart object from its parts' MD5s."""
    joined = b"".join(map(bytes.fromhex, md5s))
    return f"{md5(joined)}-{len(md5s)}"


def is_opaque(answer: Mapping[str, Any]) -> bool:
    """Whether the server reports an encryption with which the ETag is not an MD5."""
    encryption = str(answer.get("ServerSideEncryption", ""))
    return encryption.startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def differs(etag: str, expected: str) -> bool:
    """Whether an ETag in the form of a checksum differs from ``expected``."""
    return bool(_PLAIN.fullmatch(etag) or _COMPOSITE.fullmatch(etag)) and etag != expected


class PieceHasher:
    """Hasher of a file's pieces while the file is filled in any order.

    The thread that has filled a range hashes all contiguous bytes that are not hashed yet, unless
    another thread does. They were only just written, so they are read from memory.
    """

    def __init__(self, path: Path, size: int, piece: int, step: int) -> None:
        """Hash ``path`` in pieces of ``piece`` bytes; it is filled in steps of ``step``."""
        self._path, self._size, self._piece, self._step = path, size, piece, step
        self._filled: set[int] = set()
        self._at = 0
        self._hash = hashlib.md5(usedforsecurity=False)
        self._md5s: list[str] = []
        self._lock = threading.Lock()

    def filled(self, number: int) -> None:
        """Report that the step ``number``, from 0, is written."""
        self._filled.add(number)
        while self._ready() > self._at and self._lock.acquire(blocking=False):
            try:
                self._advance(self._ready())
            finally:
                self._lock.release()

    def md5s(self) -> list[str]:
        """Return the MD5 of every piece, once the file is complete."""
        with self._lock:
            self._advance(self._size)
            return self._md5s

    def _ready(self) -> int:
        """Up to where every byte is there."""
        number = self._at // self._step
        while number in self._filled:
            number += 1
        return min(self._size, number * self._step)

    def _advance(self, to: int) -> None:
        if to <= self._at:
            return
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._at)
            while self._at < to:
                end_of_piece = (len(self._md5s) + 1) * self._piece
                block = file.read(min(_BLOCK, to - self._at, end_of_piece - self._at))
                if not block:
                    raise EOFError(f"{self._path} is shorter than what was written to it")
                self._hash.update(block)
                self._at += len(block)
                if self._at in {end_of_piece, self._size}:
                    self._md5s.append(self._hash.hexdigest())
                    self._hash = hashlib.md5(usedforsecurity=False)


def md5s_of(path: Path, piece: int) -> list[str]:
    """Compute the MD5 of every piece of a file, at least one."""
    found: list[str] = []
    with path.open("rb", buffering=0) as file:
        while True:
            left, digest = piece, hashlib.md5(usedforsecurity=False)
            while left and (block := file.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
            if left == piece and found:
                return found
            found.append(digest.hexdigest())
            if left:
                return found
