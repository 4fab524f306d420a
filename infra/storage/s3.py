"""Object storage: ``s3://bucket/key`` and ``obs://endpoint/container/path``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from infra import settings
from infra.errors import BadInputError, NotFoundError
from infra.storage import addresses, clients, destination, disk, fetching, publishing
from infra.storage.base import (
    ALL_ENTRIES,
    EntryFilter,
    FileVersion,
    Progress,
    Store,
    StoreEntry,
    check_name,
)
from infra.storage.bucket import Bucket, RemoteObject, named
from infra.storage.transfer import Transfer


class S3Store(Store):
    """Objects of a server that speaks S3. A folder is every key that begins with ``key/``."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._address = addresses.parse(uri)

    def _bucket(self, progress: Progress | None = None) -> Bucket:
        found = settings.load()
        client = clients.client(self.uri, self._address, found)
        transfer = Transfer(found, progress=progress)
        return Bucket(self.uri, client, self._address.bucket, transfer)

    def exists(self) -> bool:  # noqa: D102
        bucket = self._bucket()
        return self._is_directory(bucket) or bucket.find(self._address.key) is not None

    def is_directory(self) -> bool:  # noqa: D102
        return self._is_directory(self._bucket())

    def _is_directory(self, bucket: Bucket) -> bool:
        return bucket.has_below(self._address.prefix) or not self._address.key

    def in_place(self) -> Path | None:  # noqa: D102
        return None

    def check_writable(self, names: Iterable[str] = ()) -> None:  # noqa: D102
        bucket = self._bucket()
        self._check_place(bucket)
        destination.check_mergeable(bucket, self._address.prefix, list(names))
        # An upload that is begun and ended needs the right to write, and is never seen. One whose
        # beginning was answered by an error is ended by the next check.
        key = f"{self._address.prefix}.modelyard-check"
        bucket.abort(bucket.begin(key))
        for left in bucket.unfinished(key):
            bucket.abort(left)

    def _check_place(self, bucket: Bucket) -> None:
        """Refuse a place that is no folder."""
        path = PurePosixPath(self._address.key)
        for key in (str(path), *map(str, path.parents)):
            if key != "." and bucket.find(key) is not None:
                raise BadInputError(
                    f"{self.uri} is, or lies below, the object {key}.",
                    "Give a folder, which may be new.",
                    code="NotADirectory",
                )

    def _found(
        self, bucket: Bucket, only: EntryFilter = ALL_ENTRIES
    ) -> tuple[dict[str, RemoteObject], bool]:
        """The chosen objects by name, and whether the URI is one object alone."""
        below = bucket.below(self._address.prefix)
        if below or not self._address.key:
            return named(below, self._address.prefix, only), False
        alone = bucket.find(self._address.key)
        if alone is None:
            raise self._nothing()
        name = PurePosixPath(self._address.key).name
        return {name: alone} if only.chooses(name) else {}, True

    def _nothing(self, name: str = "") -> NotFoundError:
        what = f"no object {name} below" if name else "nothing at"
        return NotFoundError(f"There is {what} {self.uri}.", "Check the path.")

    def entries(self, only: EntryFilter = ALL_ENTRIES) -> Iterator[StoreEntry]:  # noqa: D102
        remotes, _ = self._found(self._bucket(), only)
        return iter([StoreEntry(name, remote.size) for name, remote in remotes.items()])

    def versions(self, names: Iterable[str]) -> dict[str, FileVersion]:  # noqa: D102
        return destination.versions(self._bucket(), self._address.prefix, names)

    def read(  # noqa: D102
        self, name: str = "", *, offset: int = 0, length: int | None = None
    ) -> bytes:
        if name:
            check_name(name)
        bucket, own = self._bucket(), self._address.key
        keys = [self._address.prefix + name] if name else [own]
        if name == PurePosixPath(own).name:
            keys.append(own)  # a file is listed by its own name
        for key in filter(None, keys):
            content = bucket.read(key, offset, length)
            if content is not None:
                return content
        raise self._nothing(name)

    def fetch(self, destination: Path, progress: Progress | None = None) -> None:  # noqa: D102
        bucket = self._bucket(progress)
        remotes, alone = self._found(bucket)
        fetching.fetch(bucket, remotes, destination, alone=alone)

    def publish(  # noqa: D102
        self,
        source: Path,
        progress: Progress | None = None,
        *,
        whole_entries: bool = False,
        last: str = "",
        stale: Collection[str] = (),
        replaceable: Mapping[str, FileVersion] | None = None,
    ) -> None:
        bucket = self._bucket(progress)
        self._check_place(bucket)
        with disk.translating_errors(self.uri, source):
            publishing.publish(
                bucket, self._address.prefix, source,
                whole_entries=whole_entries, last=last, stale=stale, replaceable=replaceable,
            )  # fmt: skip

    def remove(self) -> None:  # noqa: D102
        if not self._address.key:
            raise BadInputError(
                f"{self.uri} is a whole bucket or container.",
                "Give a folder in it.",
                code="NotADirectory",
            )
        publishing.remove(self._bucket(), self._address.key)
