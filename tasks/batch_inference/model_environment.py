"""The Python that a model predicts with: its own requirements, or its framework's stock."""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from modelyard_runtime.recognition import LocalFiles, recognize
from packaging.requirements import InvalidRequirement, Requirement

from infra.workloads.environment_spec import BaseEnvironment, EnvironmentSpec, PipInstall
from infra.workloads.environments import EnvironmentCache
from registry.models import models
from registry.models.models import ResolvedVersion

_REQUIREMENTS = "requirements.txt"
_HANDLER = ("torch", "torchserve")  # what handlers of TorchServe's import


@contextlib.contextmanager
def using(
    model: ResolvedVersion,
    folder: Path,
    environments: EnvironmentCache,
    log: Callable[[str], object],
    stop_requested: Callable[[], bool],
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Use the interpreter of a model; yields its path, and open files that hold its environment.

    A ``requirements.txt`` among the model's files, with what its framework needs besides, counts
    first; then what its training had installed, then what its framework needs. What Modelyard's
    own environment has is not installed again.

    Args:
        model: The version.
        folder: Its files.
        environments: The cache of environments.
        log: Receives progress lines.
        stop_requested: Polled a few times a second; true cancels.

    Raises:
        BadInputError: If they cannot be installed, with the code ``RequirementsNotInstallable``.
        DiskFullError: If they do not fit.
        InstallCancelledError: If it was cancelled.
    """
    file = _requirements_file(folder)
    needed = (models.trained_with(model) if file is None else []) or _stock(folder)
    spec = _spec(
        needed,
        file,
        f"The requirements of {model.uri}",
        "Fix the requirements.txt among the model's files, and register it as a new version.",
    )
    with _interpreter(spec, environments, log, stop_requested) as found:
        yield found


@contextlib.contextmanager
def using_folders(
    folders: Sequence[Path],
    environments: EnvironmentCache,
    log: Callable[[str], object],
    stop_requested: Callable[[], bool],
    *,
    has_stock: bool,
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Use an interpreter for files that are not registered; as :func:`using`.

    Args:
        folders: Where a ``requirements.txt`` may be; the first one counts.
        environments: The cache of environments.
        log: Receives progress lines.
        stop_requested: Polled a few times a second; true cancels.
        has_stock: Whether the files are a model, whose framework may need something.
    """
    file = next(filter(None, map(_requirements_file, folders)), None)
    needed = [one for folder in folders for one in _stock(folder)] if has_stock else []
    spec = _spec(needed, file, f"{file}", f"Fix {file}.")
    with _interpreter(spec, environments, log, stop_requested) as found:
        yield found


def _spec(
    needed: Sequence[str], file: Path | None, label: str, hint: str
) -> EnvironmentSpec | None:
    """What is installed; None if Modelyard's own environment has all."""
    missing = tuple(one for one in needed if not _is_installed(one))
    if file is None and not missing:
        return None
    install = PipInstall(missing, file=file)
    return EnvironmentSpec((install,), BaseEnvironment.MODELYARD, label=label, hint=hint)


@contextlib.contextmanager
def _interpreter(
    spec: EnvironmentSpec | None,
    environments: EnvironmentCache,
    log: Callable[[str], object],
    stop_requested: Callable[[], bool],
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if spec is None:
        yield sys.executable, ()
        return
    with environments.using(spec, log, stop_requested) as environment:
        yield str(environment.python), (environment.lock.fileno(),)


def _requirements_file(folder: Path) -> Path | None:
    """The ``requirements.txt`` of a model: among its files, or in its archive; None without."""
    if (file := folder / _REQUIREMENTS).is_file():
        return file
    for archive in folder.glob("*.mar"):
        with zipfile.ZipFile(archive) as packed:
            manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
            if name := manifest["model"].get("requirementsFile"):
                unpacked = folder.with_name(f"{folder.name}-{_REQUIREMENTS}")
                unpacked.write_bytes(packed.read(name))
                return unpacked
    return None


def _stock(folder: Path) -> Sequence[str]:
    """What a model needs, by its kind."""
    if any(folder.glob("*.mar")) or (folder / "handler.py").is_file():
        return _HANDLER
    found = recognize(LocalFiles(folder))
    return found.kind.packages if found else ()


def _is_installed(requirement: str) -> bool:
    """Whether Modelyard's own environment has what is required."""
    try:
        parsed = Requirement(requirement)
        return parsed.specifier.contains(metadata.version(parsed.name), prereleases=True)
    except (InvalidRequirement, metadata.PackageNotFoundError):
        return False
