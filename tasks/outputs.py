"""Where a run may write: not in Modelyard's home, in system folders or among its own sources."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from infra import site, storage
from infra.errors import BadInputError, ConflictError
from infra.home import Home
from infra.storage import Store
from infra.storage.partial import is_hidden

_SYSTEM = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr",
)  # fmt: skip
_MODELYARD = Path(__file__).parents[1]


def place(uri: str) -> str:
    """What a URI means: a path without links, or a URI without a slash at its end."""
    path = storage.local_path(uri)
    return os.path.realpath(path) if path is not None else uri.rstrip("/")


def _real(uri: str) -> str:
    """The same, of a mounted network folder its path here."""
    path = site.inspect_store(uri, lambda there: there.in_place())
    return os.path.realpath(path) if path is not None else place(uri)


def _lies_in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")


def check(field: str, uri: str, sources: Iterable[tuple[str, str]], home: Home) -> None:
    """Refuse a place whose files are not the run's to replace.

    Args:
        field: The parameter that names the place, such as ``output_uri``.
        uri: Its value.
        sources: URIs of the run's inputs, each with a name for people.
        home: Modelyard's home.

    Raises:
        BadInputError: With the code ``OutputInHome``, ``OutputInSystem`` or ``OutputInSource``.
    """
    found = _real(uri)
    if not site.is_validating_for_remote():
        homes = os.path.realpath(home.root)
        if _lies_in(found, homes) or _lies_in(homes, found):
            raise _refused(field, uri, "Modelyard's own home", "OutputInHome")
        # The environment and the code that runs are Modelyard's, wherever they are installed.
        system = (*_SYSTEM, sys.prefix, *(str(_MODELYARD / top) for top in _packages()))
        if any(_lies_in(found, os.path.realpath(folder)) for folder in system):
            raise _refused(field, uri, "a folder of the system's", "OutputInSystem")
    for what, source in sources:
        read = _real(source)
        if _lies_in(found, read) or _lies_in(read, found):
            raise _refused(field, uri, f"{what} ({source})", "OutputInSource")


def _packages() -> list[str]:
    return [path.parent.name for path in _MODELYARD.glob("*/__init__.py")]


def _refused(field: str, uri: str, what: str, code: str) -> BadInputError:
    return BadInputError(
        f"{field}: {uri} is, lies in, or holds {what}.", "Give a folder of its own.", code=code
    )


def check_unused(uri: str, is_known: Callable[[str], bool], *, overwrite: bool) -> None:
    """Refuse a folder with files that no run has published.

    Args:
        uri: The ``output_uri``.
        is_known: Whether a run has published to a place.
        overwrite: Whether that is allowed.

    Raises:
        ConflictError: With the code ``OutputNotEmpty``.
    """
    if overwrite or not uri or not site.inspect_store(uri, _holds_files) or is_known(place(uri)):
        return
    raise ConflictError(
        f"output_uri: there are files in {uri} that no run has published.",
        "Give an empty folder, or allow that files of the same names are replaced: "
        "overwrite=true.",
        code="OutputNotEmpty",
    )


def _holds_files(there: Store) -> bool:
    path = there.in_place()
    if path is None:
        return there.exists()
    return path.is_dir() and any(not is_hidden(entry.name) for entry in path.iterdir())
