"""What is there where objects are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from infra.errors import BadInputError
from infra.storage import tree
from infra.storage.base import FilesExistError, FileVersion, parents
from infra.storage.bucket import Bucket, RemoteObject

_LONGEST_KEY = 1024  # bytes


def same_entries(bucket: Bucket, prefix: str, keys: Iterable[str]) -> dict[str, RemoteObject]:
    """List the existing objects at and below the first segments of these keys."""
    names = {first_segment(key, prefix) for key in keys}
    if not names:
        return {}
    objects, folders = bucket.level(prefix)
    found = [remote for remote in objects if remote.key.removeprefix(prefix) in names]
    for folder in folders:
        if first_segment(folder, prefix) in names:
            found += bucket.below(folder)
    return {remote.key: remote for remote in found}


def first_segment(key: str, prefix: str) -> str:
    """Return the first segment of a key below ``prefix``, the name of its entry."""
    return key.removeprefix(prefix).partition("/")[0]


def check_key(key: str) -> None:
    """Refuse a key that no object can have.

    Raises:
        BadInputError: With the code ``NameNotUtf8`` or ``NameTooLong``.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise BadInputError(
            f"{key!r} is not named in UTF-8.", "Rename it.", code="NameNotUtf8"
        ) from None
    if length > _LONGEST_KEY:
        raise BadInputError(
            f"The key of {key!r} has {length} bytes, more than {_LONGEST_KEY}.",
            "Shorten the names.",
            code="NameTooLong",
        )


def check_mergeable(bucket: Bucket, prefix: str, names: Iterable[str]) -> None:
    """Refuse names below ``prefix`` that objects cannot have beside those that are there.

    Object storage itself would have both an object ``x`` and one ``x/y``, but no folder has.

    Raises:
        BadInputError: With the code ``NamesClash``; as :func:`check_key` does.
    """
    keys = [prefix + name for name in names]
    for key in keys:
        check_key(key)
    refuse_clashes(bucket, prefix, keys, same_entries(bucket, prefix, keys))


def refuse_clashes(bucket: Bucket, prefix: str, keys: Iterable[str], there: Iterable[str]) -> None:
    """Refuse keys that objects cannot have beside those ``there``.

    Raises:
        BadInputError: With the code ``NamesClash``.
    """
    objects = {key.removeprefix(prefix) for key in there}
    folders = {folder for name in objects for folder in parents(name)}
    wanted = tree.entries_of(key.removeprefix(prefix) for key in keys)
    for name, wants_folder in wanted.items():
        if name in (objects if wants_folder else folders):
            kind = "an object" if wants_folder else "a folder"
            place = f"{bucket.uri.rstrip('/')}/{name}"
            raise tree.names_clash(place, kind, wants_folder=wants_folder)


def versions(bucket: Bucket, prefix: str, names: Iterable[str]) -> dict[str, FileVersion]:
    """Versions of the objects that are there; see :meth:`infra.storage.base.Store.versions`."""
    wanted = set(names)
    there = same_entries(bucket, prefix, [prefix + name for name in wanted])
    found = {}
    for key, remote in there.items():
        written = int(remote.modified.timestamp() * 1e9)
        if (name := key.removeprefix(prefix)) in wanted:
            found[name] = FileVersion(remote.size, written, remote.etag, written)
    return found


class ExpectedObjects:
    """What may be there of objects that are published: nothing, or a version."""

    def __init__(self, prefix: str, replaceable: Mapping[str, FileVersion]) -> None:
        self._prefix = prefix
        self._replaceable = dict(replaceable)

    def check(self, bucket: Bucket, keys: Iterable[str]) -> None:
        """Refuse other objects of these keys.

        Raises:
            FilesExistError: If there are any.
        """
        names = [key.removeprefix(self._prefix) for key in keys]
        there = versions(bucket, self._prefix, names)
        others = [name for name, found in there.items() if self._replaceable.get(name) != found]
        if others:
            raise FilesExistError(bucket.uri, others)

    def forget(self, key: str) -> None:
        """Expect no object: the one that could be replaced was deleted."""
        self._replaceable.pop(key.removeprefix(self._prefix), None)

    def etag(self, key: str) -> str:
        """The ETag that an object has; "" if there is to be none."""
        found = self._replaceable.get(key.removeprefix(self._prefix))
        return found.tag if found else ""
