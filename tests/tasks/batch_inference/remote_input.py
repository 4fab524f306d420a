"""A folder as a storage that cannot be read in place."""

from pathlib import Path

from infra.storage.file import FileStore


class RemoteFolder(FileStore):
    """A folder that is read by ranges alone."""

    def in_place(self) -> Path | None:
        return None


def remote_folder(uri: str) -> RemoteFolder:
    """The storage of a path."""
    return RemoteFolder(uri, Path(uri))
