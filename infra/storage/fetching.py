"""Fetching of objects to files.

Each object is fetched in ranges, several at once, into its place in a hidden folder beside the
destination (``infra/storage/partial.py``); the whole is renamed when every object is there and
has the checksum that its ETag promises. A range is as large as the object's own parts where it
was uploaded in parts, so that each range is a part whose MD5 the ETag is made of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Mapping
from functools import partial as bound
from pathlib import Path

from infra.errors import BadInputError, DiskFullError, ModelyardError
from infra.storage import checksums, disk, failures, partial
from infra.storage.base import parents
from infra.storage.bucket import Bucket, ChangedError, RemoteObject
from infra.storage.partial import PartialFetch
from infra.storage.transfer import MIB, CompletedBytes, Step

_LARGEST_RANGE = 64 * MIB
_LONGEST_NAME = 255  # bytes, on every file system that matters


def fetch(
    bucket: Bucket, remotes: Mapping[str, RemoteObject], destination: Path, *, alone: bool
) -> None:
    """Fetch objects to ``destination``: files of a folder, by name, or a single file.

    Raises:
        BadInputError: If the names cannot all be files of one folder.
        ConflictError: If the destination exists.
        DiskFullError: If it does not fit.
        StoreError: If it is interrupted. Fetched parts are kept if a repeat can resume.
    """
    if not alone:
        check_names(remotes)
    disk.check_absent(destination)
    with (
        disk.translating_errors(str(destination)),
        partial.opened(destination, bucket.uri) as hidden,
    ):
        if hidden is None:
            return
        try:
            _check_room(remotes, destination, hidden)
            hidden.prepare(None if alone else remotes)
            _bring(bucket, remotes, hidden, alone=alone)
            hidden.move(destination)
        except BaseException as error:
            if not _can_go_on_after(error):
                hidden.remove()
            raise


def _can_go_on_after(error: BaseException) -> bool:
    """Whether a repeat can resume: the fetch was interrupted or stopped."""
    if isinstance(error, ModelyardError):
        return error.code in failures.RESUMABLE
    return not isinstance(error, Exception)


def _bring(
    bucket: Bucket, remotes: Mapping[str, RemoteObject], hidden: PartialFetch, *, alone: bool
) -> None:
    transfer = bucket.transfer
    transfer.total = sum(remote.size for remote in remotes.values())
    objects = [
        _ObjectFetch(bucket, hidden, "" if alone else name, remote)
        for name, remote in remotes.items()
    ]
    # Large ones first: at the end there are then small ones left to fill the threads with.
    objects.sort(key=lambda each: each.size, reverse=True)
    transfer.run([each.begin for each in objects])


def check_names(names: Mapping[str, RemoteObject]) -> None:
    """Refuse names of which one is a folder of another, or that file systems do not allow.

    Raises:
        BadInputError: With the code ``NamesClash`` or ``NameTooLong``.
    """
    for name in names:
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in name.split("/")):
            raise BadInputError(
                f"{name!r} has a part of more than {_LONGEST_NAME} bytes.",
                "Rename it.",
                code="NameTooLong",
            )
        for folder in parents(name):
            if folder in names:
                raise BadInputError(
                    f"{folder!r} is a file, and {name!r} lies in a folder of that name.",
                    "Rename or delete one of them.",
                    code="NamesClash",
                )


def _check_room(
    remotes: Mapping[str, RemoteObject], destination: Path, hidden: PartialFetch
) -> None:
    missing = sum(remote.size for remote in remotes.values()) - hidden.kept()
    if missing > shutil.disk_usage(destination.parent).free:
        raise DiskFullError(f"The disk of {destination} is full.", "Make room, and retry.")


class _ObjectFetch:
    """Fetch of one object to one file; its methods are steps of the transfer."""

    def __init__(
        self, bucket: Bucket, hidden: PartialFetch, name: str, remote: RemoteObject
    ) -> None:
        self.size = remote.size
        self._bucket = bucket
        self._hidden = hidden
        self._name = name
        self._path = hidden.path(name)
        self._remote = remote
        self._restarted: set[str] = set()
        self._lock = threading.Lock()

    @property
    def _what(self) -> str:
        return f"{self._bucket.uri}{'/' * bool(self._name)}{self._name}"

    def begin(self) -> CompletedBytes:
        """Create the file, and return the steps for its ranges."""
        etag, size = self._remote.etag, self._remote.size
        self._changed = self._opaque = False
        self._piece = self._piece_size()
        self._step = self._step_size()
        # Where the pieces of the ETag are ranges, each is hashed as it arrives; else they are
        # hashed in the file. A file that no ETag vouches for has its ranges' own MD5s kept, which
        # tell after a kill whether they have reached the disk.
        in_file = self._piece and self._piece != self._step and size > self._step
        self._in_order = (
            checksums.PieceHasher(self._path, size, self._piece, self._step) if in_file else None
        )
        known = self._hidden.complete(self._name, etag, self._step)
        self._md5s: dict[int, str] = {}
        if not known:
            self._path.unlink(missing_ok=True)
        with self._path.open("ab") as file:
            file.truncate(size)
        moved = 0
        for number in range(-(-size // self._step)):
            if number in known and self._is_there(number, known[number]):
                self._finished(number, known[number])
                moved += self._length(number)
        missing = [n for n in range(-(-size // self._step)) if n not in self._md5s]
        self._left = len(missing)
        if not missing:
            return CompletedBytes(moved, self._end())
        if len(missing) == 1:
            done = self._fetch(missing[0])
            return CompletedBytes(moved + done.moved, done.then)
        return CompletedBytes(moved, [bound(self._fetch, number) for number in missing])

    def _piece_size(self) -> int:
        """Of what the ETag is made: the whole, or the object's own parts; 0 if unknown."""
        etag, size = self._remote.etag, self._remote.size
        count = checksums.part_count(etag)
        if count is None:
            return size if checksums.plain_md5(etag) else 0
        piece = size if count == 1 else self._bucket.part_size(self._remote)
        return piece if piece and -(-size // piece) == count else 0

    def _step_size(self) -> int:
        usual = self._bucket.transfer.settings.transfer_part_mib * MIB
        is_range = 0 < self._piece <= _LARGEST_RANGE and self._piece < self._remote.size
        return self._piece if is_range else usual

    def _length(self, number: int) -> int:
        return min(self._step, self._remote.size - number * self._step)

    def _is_there(self, number: int, md5: str) -> bool:
        """Whether the range that was written before the fetch was killed is in the file."""
        if self._in_order is not None:
            return md5 == ""  # the whole is compared in the end
        with self._path.open("rb", buffering=0) as file:
            file.seek(number * self._step)
            content = file.read(self._length(number))
        return checksums.md5(content) == md5

    def _finished(self, number: int, md5: str) -> None:
        self._md5s[number] = md5
        if self._in_order is not None:
            self._in_order.filled(number)

    def _fetch(self, number: int) -> CompletedBytes:
        """Fetch one range; the last one to finish verifies the file."""
        moved = 0
        if not self._changed:
            try:
                md5 = self._write(number)
            except ChangedError:
                self._changed = True
            else:
                self._hidden.record(self._name, self._remote.etag, self._step, number, md5)
                self._finished(number, md5)
                moved = self._length(number)
        with self._lock:
            self._left -= 1
            last = self._left == 0
        return CompletedBytes(moved, self._end() if last else ())

    def _write(self, number: int) -> str:
        """Bring one range into the file; its MD5, or "" where the file is hashed instead."""
        start, hashing = number * self._step, self._in_order is None
        md5 = hashlib.md5(usedforsecurity=False)
        with self._path.open("r+b", buffering=0) as file:

            def sink(offset: int, block: bytes) -> None:
                nonlocal md5
                if offset == start:  # a further attempt begins here again
                    md5 = hashlib.md5(usedforsecurity=False)
                if hashing:
                    md5.update(block)
                _write_at(file.fileno(), block, offset)

            if self._bucket.get(self._remote, start, self._length(number), sink):
                self._opaque = True
        return md5.hexdigest() if hashing else ""

    def _end(self) -> list[Step]:
        """What follows when every range was fetched: nothing, or everything once more."""
        if not self._changed and self._is_right():
            return []
        reason = "changed" if self._changed else "wrong"
        if reason in self._restarted:
            kind = failures.object_changed if self._changed else failures.checksum_mismatch
            raise kind(self._what)
        self._restarted.add(reason)
        self._hidden.forget(self._name, self._remote.etag, self._step)
        if self._changed:
            found = self._bucket.find(self._remote.key)
            if found is None:
                raise failures.object_changed(self._what)
            self._remote = found
        return [self.begin]

    def _is_right(self) -> bool:
        """Whether the bytes have the checksum that the ETag promises, if it does."""
        etag = self._remote.etag
        if not self._piece or self._opaque:
            return True
        if self._in_order is not None:
            md5s = self._in_order.md5s()
        else:
            md5s = [md5 for _, md5 in sorted(self._md5s.items())]
        count = checksums.part_count(etag)
        expected = checksums.of_parts(md5s) if count else md5s[0]
        return not checksums.differs(etag, expected) or self._has_odd_parts(count or 1)

    def _has_odd_parts(self, count: int) -> bool:
        """Whether the object was put together of parts of several sizes, as a copy may be."""
        sizes = (self._bucket.part_size(self._remote, number) for number in range(2, count))
        return any(size is not None and size != self._piece for size in sizes)


def _write_at(descriptor: int, block: bytes, offset: int) -> None:
    view = memoryview(block)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
