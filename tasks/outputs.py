"""Checks of output URIs: outside Modelyard's home, system folders and the run's own inputs."""

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


def canonical(uri: str) -> str:
    """Canonical form of a URI: a path without links, or a URI without a trailing slash."""
    path = storage.local_path(uri)
    return os.path.realpath(path) if path is not None else uri.rstrip("/")


def _local(field: str, uri: str) -> str:
    """Canonical form of a URI; the local path of a mounted network folder."""
    path = site.inspect_store(field, uri, lambda store: store.in_place())
    return os.path.realpath(path) if path is not None else canonical(uri)


def _lies_in(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")


def check(field: str, uri: str, sources: Iterable[tuple[str, str]], home: Home) -> None:
    """Refuse an output URI whose files the run must not replace.

    Args:
        field: Parameter that has the URI, such as ``output_uri``.
        uri: Its value.
        sources: Inputs of the run: a description and a URI for each.
        home: Modelyard's home.

    Raises:
        BadInputError: With the code ``OutputInHome``, ``OutputInSystem`` or ``OutputInSource``.
    """
    output = _local(field, uri)
    if not site.is_validating_for_remote():
        homes = os.path.realpath(home.root)
        if _lies_in(output, homes) or _lies_in(homes, output):
            raise _refused(field, uri, "Modelyard's own home", "OutputInHome")
        # Modelyard's environment and code are protected wherever they are installed.
        system = (*_SYSTEM, sys.prefix, *(str(_MODELYARD / top) for top in _packages()))
        if any(_lies_in(output, os.path.realpath(folder)) for folder in system):
            raise _refused(field, uri, "a system folder", "OutputInSystem")
    for what, source in sources:
        read = _local(what, source)
        if _lies_in(output, read) or _lies_in(read, output):
            raise _refused(field, uri, f"{what} ({source})", "OutputInSource")


def _packages() -> list[str]:
    return [path.parent.name for path in _MODELYARD.glob("*/__init__.py")]


def _refused(field: str, uri: str, what: str, code: str) -> BadInputError:
    return BadInputError(
        f"{field}: {uri} is, contains, or lies in {what}.", "Give a separate folder.", code=code
    )


def check_unused(uri: str, is_known: Callable[[str], bool], *, overwrite: bool) -> None:
    """Refuse an output folder with files that no run has published.

    Args:
        uri: The ``output_uri``; "" is accepted.
        is_known: Whether a run has published to a canonical URI.
        overwrite: Whether such files may be replaced.

    Raises:
        ConflictError: With the code ``OutputNotEmpty``.
    """
    if overwrite or not uri:
        return
    if not site.inspect_store("output_uri", uri, _has_files) or is_known(canonical(uri)):
        return
    raise ConflictError(
        f"output_uri: {uri} has files that no run has published.",
        "Give an empty folder, or allow files of the same names to be replaced: overwrite=true.",
        code="OutputNotEmpty",
    )


def _has_files(store: Store) -> bool:
    path = store.in_place()
    if path is None:
        return store.exists()
    return path.is_dir() and any(not is_hidden(entry.name) for entry in path.iterdir())
