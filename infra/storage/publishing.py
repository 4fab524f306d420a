"""Publishing of files to objects.

Object storage writes single objects atomically, but not several, so a folder is published in
three phases:

1. Large files are uploaded in parts. Parts are invisible until their upload is completed.
2. In one short burst, every upload is completed, and then small files are written.
3. Stale objects are deleted: those that are named, and where entries are replaced as wholes what
   else was below their names.

An object that describes the others is deleted before phase 2, and written after phase 3.

A publish that is killed in phase 1 leaves the old objects, and incomplete uploads, which the next
publish of the same files resumes. One that is killed in phase 2 or 3 leaves a mixture of new and
old objects; a repeat completes it without sending present objects again. Concurrent readers may
see such a mixture, too: where that matters, publish to a new URI and announce it afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial as bound
from itertools import chain
from pathlib import Path

from infra.errors import ModelyardError
from infra.storage import checksums, destination, failures, tree
from infra.storage.base import FilesExistError, FileVersion, check_name
from infra.storage.bucket import (
    Bucket,
    ChangedError,
    MultipartUpload,
    OccupiedError,
    RemoteObject,
)
from infra.storage.destination import ExpectedObjects
from infra.storage.transfer import MIB, CompletedBytes, Step

_MOST_PARTS = 10_000


@dataclass(frozen=True)
class _SourceFile:
    """A file as observed when the publish began."""

    path: Path
    name: str
    key: str
    size: int
    changed_ns: int

    def check_unchanged(self) -> None:
        """Refuse a file that has been written since.

        Raises:
            StoreError: With the code ``FileChanged``.
        """
        try:
            now = self.path.stat()
        except FileNotFoundError:
            raise failures.file_changed(str(self.path)) from None
        if (now.st_size, now.st_mtime_ns) != (self.size, self.changed_ns):
            raise failures.file_changed(str(self.path))

    def read(self, start: int, length: int) -> bytes:
        """Read exactly ``length`` bytes of the file.

        Raises:
            StoreError: With the code ``FileChanged`` if there are fewer by now.
        """
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                content = file.read(length)
        except FileNotFoundError:
            raise failures.file_changed(str(self.path)) from None
        if len(content) != length:
            raise failures.file_changed(str(self.path))
        return content


def publish(
    bucket: Bucket,
    prefix: str,
    source: Path,
    *,
    whole_entries: bool = False,
    last: str = "",
    stale: Collection[str] = (),
    replaceable: Mapping[str, FileVersion] | None = None,
) -> None:
    """Publish the files of ``source`` as the objects below ``prefix``.

    Args:
        bucket: The bucket.
        prefix: The objects' prefix; "" or with ``/`` at its end.
        source: A folder.
        whole_entries: Delete what else is below the first segments of the objects' names.
        last: See :meth:`infra.storage.base.Store.publish`.
        stale: Likewise.
        replaceable: Likewise.

    Raises:
        FilesExistError: If an object is there that is not replaceable.
        BadInputError: If a link or a name in ``source`` cannot be published, or what is there is
            in the way.
        StoreError: If a file changes during the publish, or it is interrupted.
    """
    for name in stale:
        check_name(name)
    files = _files(source, prefix)
    keys = {file.key for file in files}
    there = destination.same_entries(bucket, prefix, keys)
    if not whole_entries:
        destination.refuse_clashes(bucket, prefix, keys, there)
    old = there.pop(prefix + last, None) if last else None
    gone = {prefix + name for name in stale} | (there.keys() if whole_entries else set())
    expected = None if replaceable is None else ExpectedObjects(prefix, replaceable)
    upload = _FolderUpload(bucket, prefix, files, there, expected)
    with upload.aborted_on_failure():
        upload.begin()
        if expected is not None:
            expected.check(bucket, keys | gone)
        if old is not None:
            bucket.delete(old.key)
            if expected is not None:
                expected.forget(old.key)
        upload.show(keys - {prefix + last})
        bucket.transfer.run([bound(_delete, bucket, key) for key in sorted(gone - keys)])
        upload.show(keys & {prefix + last})
    upload.abort_unused()


def remove(bucket: Bucket, key: str) -> None:
    """Remove an object and everything below its name."""
    keys = [key, *(remote.key for remote in bucket.below(f"{key}/"))]
    bucket.transfer.run([bound(_delete, bucket, one) for one in keys])


def part_size_for(size: int, usual: int) -> int:
    """Compute the part size of a file: the usual one, or larger so that 10 000 suffice."""
    needed = -(-size // _MOST_PARTS)
    return max(usual, -(-needed // MIB) * MIB)


def _files(source: Path, prefix: str) -> list[_SourceFile]:
    tree.check_tree(source, links_resolve=True)
    files = []
    for name, path in tree.files(source):
        key = prefix + name
        destination.check_key(key)
        status = path.stat()
        files.append(_SourceFile(path, name, key, status.st_size, status.st_mtime_ns))
    return files


def _unfinished(
    bucket: Bucket, prefix: str, large: list[_SourceFile]
) -> dict[str, list[MultipartUpload]]:
    """List uploads that an earlier publish has left, by key; only if any file is large."""
    keys = {file.key for file in large}
    found: dict[str, list[MultipartUpload]] = {}
    for upload in bucket.unfinished(prefix) if keys else ():
        if upload.key in keys:
            found.setdefault(upload.key, []).append(upload)
    return found


def _abort(bucket: Bucket, uploads: Iterable[MultipartUpload | None]) -> None:
    """Abort uploads that are not resumed; failures are ignored."""
    for upload in uploads:
        if upload is not None:
            with contextlib.suppress(ModelyardError):
                bucket.abort(upload)


def _delete(bucket: Bucket, key: str) -> CompletedBytes:
    bucket.delete(key)
    return CompletedBytes()


def _etag_if_newer(file: _SourceFile, remote: RemoteObject | None) -> str:
    """Return the ETag for comparison, if the object is newer than the file."""
    if remote is None or remote.size != file.size:
        return ""
    newer = remote.modified.timestamp() + 1 >= file.changed_ns / 1e9
    return remote.etag if newer else ""


def _put(
    bucket: Bucket, file: _SourceFile, there: RemoteObject | None, expected: str | None
) -> CompletedBytes:
    """Put a small file, unless the object has these bytes already."""
    content = file.read(0, file.size)
    file.check_unchanged()
    md5 = checksums.md5(content)
    if _etag_if_newer(file, there) != md5:
        for _ in range(2):
            if not checksums.differs(_put_over(bucket, file, content, md5, expected), md5):
                break
        else:
            raise failures.checksum_mismatch(str(file.path))
    return CompletedBytes(file.size)


def _put_over(
    bucket: Bucket, file: _SourceFile, content: bytes, md5: str, expected: str | None
) -> str:
    """Put a small file in place of the object that is expected; the object's ETag."""
    try:
        return bucket.put(file.key, content, md5, expected)
    except OccupiedError:
        # A put whose answer was lost is repeated, and then the object is there.
        there = bucket.find(file.key)
        if there is None or there.etag != md5:
            raise FilesExistError(bucket.uri, [file.name]) from None
        return md5


class _FolderUpload:
    """Upload of files, of which large ones are sent before any is visible."""

    def __init__(
        self,
        bucket: Bucket,
        prefix: str,
        files: list[_SourceFile],
        there: Mapping[str, RemoteObject],
        expected: ExpectedObjects | None,
    ) -> None:
        self._bucket = bucket
        self._expected = expected
        self._transfer = bucket.transfer
        self._transfer.total = sum(file.size for file in files)
        self._there = there
        self._usual = self._transfer.settings.transfer_part_mib * MIB
        large = [file for file in files if file.size > self._usual]
        self._list_unfinished = bound(_unfinished, bucket, prefix, large)
        self._small = [file for file in files if file.size <= self._usual]
        left = self._list_unfinished()
        self._uploads = {
            file.key: _Upload(
                bucket, file, part_size_for(file.size, self._usual),
                there.get(file.key), left.get(file.key, []), self._etag(file.key),
            )
            for file in large
        }  # fmt: skip
        sizes = [upload.part_size for upload in self._uploads.values()]
        self._largest_part = max(sizes, default=self._usual)

    def _etag(self, key: str) -> str | None:
        """The ETag of the object to replace; "" for none, None for any."""
        return None if self._expected is None else self._expected.etag(key)

    def begin(self) -> None:
        """Send the large files; none is visible."""
        begun = [upload.begin for upload in self._uploads.values()]
        self._transfer.run(begun, self._largest_part)

    def show(self, keys: Collection[str]) -> None:
        """Complete the uploads of these keys, and then send their small files."""
        completed = [upload.complete for key, upload in self._uploads.items() if key in keys]
        self._transfer.run(completed, self._largest_part)
        self._transfer.run(
            [
                bound(_put, self._bucket, file, self._there.get(file.key), self._etag(file.key))
                for file in self._small
                if file.key in keys
            ],
            self._usual,
        )

    @contextlib.contextmanager
    def aborted_on_failure(self) -> Iterator[None]:
        """Abort the uploads at an error, unless a repeat resumes them."""
        try:
            yield
        except ModelyardError as error:
            if error.code not in failures.RESUMABLE:
                used = [upload.unfinished for upload in self._uploads.values()]
                _abort(self._bucket.afresh(), used)
            raise

    def abort_unused(self) -> None:
        """Abort the uploads of these files that are left once all of them are visible.

        An earlier publish has left them, or this one, where the answer to a beginning was lost.
        """
        with contextlib.suppress(ModelyardError):
            _abort(self._bucket, chain.from_iterable(self._list_unfinished().values()))


class _Upload:
    """Multipart upload of a large file; its methods are steps of the transfer."""

    def __init__(
        self,
        bucket: Bucket,
        file: _SourceFile,
        part_size: int,
        there: RemoteObject | None,
        left: list[MultipartUpload],
        expected: str | None,
    ) -> None:
        self.unfinished: MultipartUpload | None = None
        self._bucket = bucket
        self._file = file
        self.part_size = part_size
        self._there = there
        self._expected = expected
        self._left_over = list(left)
        self._parts = -(-file.size // part_size)
        self._etags: dict[int, str] = {}
        self._md5s: dict[int, str] = {}
        self._known: Mapping[int, tuple[int, str]] = {}
        self._completing = False
        self._restarted = False
        self._ended = False
        self._lock = threading.Lock()

    def begin(self) -> CompletedBytes:
        """Find out what the server has of this file, and say which parts are to be sent."""
        if self._is_there():
            return CompletedBytes(self._file.size)
        self._resume()
        if self.unfinished is None:
            self._known = {}
            self.unfinished = self._bucket.begin(self._file.key)
        self._etags, self._md5s, self._ended = {}, {}, False
        self._to_do = self._parts
        return CompletedBytes(
            0, [bound(self._send, number) for number in range(1, self._parts + 1)]
        )

    def _is_there(self) -> bool:
        """Whether the object is this file already, sent by a publish that was killed later."""
        return self._has(_etag_if_newer(self._file, self._there))

    def _has(self, etag: str) -> bool:
        """Whether ``etag`` is that of this file's bytes: in our parts, or in one piece."""
        count = checksums.part_count(etag)
        if count != self._parts and not checksums.plain_md5(etag):
            return False
        md5s = checksums.md5s_of(self._file.path, self.part_size if count else self._file.size)
        self._file.check_unchanged()
        return etag == (checksums.of_parts(md5s) if count else md5s[0])

    def _resume(self) -> None:
        """Resume the newest upload with the same part size."""
        while self._left_over and self.unfinished is None:
            upload = self._left_over.pop(0)
            parts = self._bucket.parts(upload)
            if all(size == self._length(number) for number, (size, _) in parts.items()):
                self.unfinished, self._known = upload, parts

    def _length(self, number: int) -> int:
        """Of a part, counted from 1; none has less than one byte."""
        return min(self.part_size, self._file.size - (number - 1) * self.part_size)

    def _send(self, number: int) -> CompletedBytes:
        """Upload one part, unless the server has it; the last one completes the phase."""
        moved = 0
        if not self._ended:
            try:
                self._send_part(number)
                moved = self._length(number)
            except ChangedError:
                self._ended = True
        with self._lock:
            self._to_do -= 1
            last = self._to_do == 0
        if not last:
            return CompletedBytes(moved)
        if self._ended:
            return CompletedBytes(moved, self._again())
        self._file.check_unchanged()
        return CompletedBytes(moved, [self.complete] if self._completing else ())

    def _send_part(self, number: int) -> None:
        content = self._file.read((number - 1) * self.part_size, self._length(number))
        md5 = checksums.md5(content)
        self._md5s[number] = md5
        size, etag = self._known.get(number, (0, ""))
        if size and checksums.plain_md5(etag) == md5:
            self._etags[number] = etag
            return
        assert self.unfinished is not None
        for _ in range(2):
            etag = self._bucket.put_part(self.unfinished, number, content, md5)
            if not checksums.differs(etag, md5):
                self._etags[number] = etag
                return
        raise failures.checksum_mismatch(f"{self._file.path}, part {number}")

    def _again(self) -> list[Step]:
        """Restart, once, if another client has ended or changed the upload."""
        if self._restarted:
            raise failures.upload_disturbed(str(self._file.path))
        self._restarted = True
        self._left_over, self.unfinished, self._there = [], None, None
        return [self.begin]

    def complete(self) -> CompletedBytes:
        """Make the object visible."""
        self._completing = True
        if self.unfinished is None:
            return CompletedBytes()
        self._file.check_unchanged()
        numbers = range(1, self._parts + 1)
        try:
            etag = self._bucket.complete(
                self.unfinished, [self._etags[number] for number in numbers], self._expected
            )
        except (ChangedError, OccupiedError) as error:
            # A completion whose answer was lost is repeated, and then there is no such upload.
            there = self._bucket.find(self._file.key)
            if there is None or not self._has(there.etag):
                if isinstance(error, OccupiedError):
                    raise FilesExistError(self._bucket.uri, [self._file.name]) from None
                return CompletedBytes(0, self._again())
        else:
            promised = checksums.of_parts([self._md5s[number] for number in numbers])
            if checksums.part_count(etag) and etag != promised:
                raise failures.checksum_mismatch(str(self._file.path))
        return CompletedBytes()
