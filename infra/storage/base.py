"""What every store can do, whatever holds the bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path


class Store(ABC):
    """Bytes under a URI: one file, or a directory of files.

    The contract, which ``tests/infra/storage/contract.py`` checks of every implementation:

    - ``fetch`` and ``publish`` are atomic: until they return, nothing is visible under the
      destination's name; when they raise, nothing new is left anywhere.
    - Links inside a fetched directory that point outside it are refused.
    - A store is made for one URI and keeps no state, so it may be used from any thread.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a file or a directory under the URI."""

    @abstractmethod
    def is_directory(self) -> bool:
        """Whether it is a directory."""

    @abstractmethod
    def in_place(self) -> Path | None:
        """Where the bytes can be read without a copy, or None where they cannot."""

    @abstractmethod
    def check_writable(self) -> None:
        """Find out early whether ``publish`` may write here.

        Raises:
            BadInputError: If it may not.
        """

    @abstractmethod
    def fetch(self, destination: Path) -> None:
        """Copy everything under the URI to ``destination``, which must not exist.

        Raises:
            NotFoundError: If there is nothing under the URI.
            BadInputError: If a link points outside.
            DiskFullError: If it does not fit.
        """

    @abstractmethod
    def publish(self, source: Path) -> None:
        """Copy the directory ``source`` here. Entries of the same name are replaced whole.

        Raises:
            DiskFullError: If it does not fit.
        """
