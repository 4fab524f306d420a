"""Publishing of single files and folders to a store."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from infra.errors import ModelyardError
from infra.storage import Store, store
from infra.storage.base import Progress


class TransferStoppedError(ModelyardError):
    """A transfer was given up because its run was stopped."""

    code = "Stopped"


def send(found: Store, source: Path, scratch: Path, progress: Progress | None = None) -> None:
    """Publish a file or a folder under the URI of a store.

    Args:
        found: The store.
        source: The file or the folder.
        scratch: A temporary folder, which need not exist; if it is not on the source's disk, a
            file is copied there first.
        progress: As for :meth:`Store.publish`.
    """
    if source.is_dir():
        found.publish(source, progress)
        return
    # A store takes folders: a file goes as the only one of a folder, under its new name.
    above, _, name = found.uri.rstrip("/").rpartition("/")
    folder = scratch / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        _link(source, folder / name)
        store(above).publish(folder, progress)
    finally:
        shutil.rmtree(folder)


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source.resolve(), place)
    except OSError:  # another file system
        shutil.copy2(source, place)
