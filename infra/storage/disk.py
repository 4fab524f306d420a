"""Errors of this machine's file systems, as errors for users."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from infra.errors import (
    BadInputError,
    ConflictError,
    DiskFullError,
    ModelyardError,
    NotFoundError,
)

_Kind = tuple[type[ModelyardError], str, str, str]

_UNREADABLE: _Kind = (
    BadInputError, "NotReadable", "may not be read", "Give its user or group the right to read it."
)  # fmt: skip
_UNWRITABLE: _Kind = (
    BadInputError, "NotWritable", "may not be written", "Give a folder that you may write to."
)  # fmt: skip
_IN_THE_WAY: _Kind = (
    BadInputError, "NotADirectory", "is, or lies below, a file", "Give a folder, which may be new."
)  # fmt: skip
_KINDS: dict[int, _Kind] = {
    errno.EACCES: _UNWRITABLE,
    errno.EPERM: _UNWRITABLE,
    errno.EROFS: _UNWRITABLE,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOENT: (NotFoundError, "NotFound", "does not exist", "Check the path."),
    errno.ENAMETOOLONG: (BadInputError, "NameTooLong", "has too long a name", "Rename it."),
}


@contextlib.contextmanager
def translating_errors(where: str, reads: Path | None = None) -> Iterator[None]:
    """Translate errors of the file system to errors for users.

    Args:
        where: What is read or written, for the message.
        reads: Below this, files are read; all others are written.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(
                f"The disk of {where} is full.", "Make room, and retry."
            ) from error
        number, path, what = _first(error)
        family, code, means, hint = _KINDS.get(
            number, (ModelyardError, "StoreFailed", f"failed: {what}", "Check its disk.")
        )
        if code == "NotWritable" and reads is not None and Path(path).is_relative_to(reads):
            family, code, means, hint = _UNREADABLE
        raise family(f"{where}: {path or 'it'} {means}.", hint, code=code) from error


def _first(error: OSError) -> tuple[int, str, str]:
    """Return number, path and message of an error, of the first that ``shutil.Error`` wraps."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        source, target, text = error.args[0][0]
        number = re.match(r"\[Errno (\d+)\]", str(text))
        path = source if repr(str(source)) in str(text) else target
        return int(number[1]) if number else 0, str(path), str(text)
    return error.errno or 0, str(error.filename or ""), error.strerror or str(error)


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error``, or one that ``shutil.Error`` wraps, is a full disk or quota."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return any("No space left" in str(reason) for _, _, reason in error.args[0])
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def check_absent(destination: Path) -> None:
    """Refuse a destination whose name is taken.

    Raises:
        ConflictError: With the code ``DestinationExists``.
    """
    if os.path.lexists(destination):
        raise ConflictError(
            f"{destination} already exists.", "Remove it.", code="DestinationExists"
        )
