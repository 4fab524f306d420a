"""Layout of Python environments: interpreter, programs and packages."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from infra.workloads.environment_spec import BASE_PYTHON

LIBRARY = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
OWN_PACKAGES = Path(sysconfig.get_path("purelib"))


def make_bare(folder: Path) -> None:
    """Create an environment with pip alone."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    if not copy_package(Requirement("pip"), OWN_PACKAGES, folder):
        venv.EnvBuilder(symlinks=True, with_pip=True).create(folder)
    _write_pip_programs(folder)


def make_overlay(folder: Path, packages: Path) -> None:
    """Create an empty environment that sees the packages of another.

    Args:
        folder: Where to make it.
        packages: The other one's folder of packages.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / LIBRARY).mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(
        f"home = {Path(BASE_PYTHON).parent}\ninclude-system-site-packages = false\n"
        f"version = {sys.version.split()[0]}\n"
    )
    for name in ("python", "python3", f"python3.{sys.version_info.minor}"):
        (folder / "bin" / name).symlink_to(BASE_PYTHON)
    _write_pip_programs(folder)
    # addsitedir and not a bare path, so that .pth files of packages count as well.
    line = f"import site; site.addsitedir({str(packages)!r})\n"
    (folder / LIBRARY / "modelyard.pth").write_text(line)


def copy_package(requirement: Requirement, packages: Path, folder: Path) -> bool:
    """Copy a distribution that satisfies a requirement into an environment, if there is one.

    Args:
        requirement: The requirement.
        packages: The folder of packages to copy from.
        folder: The environment.

    Returns:
        Whether one was found.
    """
    for found in metadata.distributions(name=requirement.name, path=[str(packages)]):
        # What came from an address or a path may be something else under the same version.
        direct = found.read_text("direct_url.json")
        if direct or not found.files or not requirement.specifier.contains(found.version, True):
            continue
        _copy_files(found, found.files, folder)
        return True
    return False


def _copy_files(
    found: metadata.Distribution, files: Sequence[metadata.PackagePath], folder: Path
) -> None:
    for file in files:
        origin = Path(str(found.locate_file(file)))
        if file.parts[0] == ".." or file.is_absolute() or not origin.is_file():
            continue
        target = folder / LIBRARY / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(origin, target)


def _write_pip_programs(folder: Path) -> None:
    for name in ("pip", "pip3"):
        program = folder / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python3" -m pip "$@"\n')
        program.chmod(0o755)
