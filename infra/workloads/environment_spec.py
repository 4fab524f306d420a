"""Specification of a Python environment, and its cache key."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from infra.errors import BadInputError
from infra.workloads import requirements_file

# The version is what differs between interpreters of one machine, and where it lies.
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))


class BaseEnvironment(Enum):
    """Base of an environment, before anything is installed.

    Attributes:
        BARE: pip alone, as in an image of Python.
        MODELYARD: Modelyard's own packages, which the requirements may shadow.
    """

    BARE = "bare"
    MODELYARD = "modelyard"


@dataclass(frozen=True)
class PipInstall:
    """Arguments of one ``pip install``.

    Attributes:
        requirements: Requirement specifiers, in pip's syntax.
        options: Options of pip, each followed by its value.
        file: A ``requirements.txt`` to install besides; names in it are relative to its folder.
    """

    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def without_dependencies(self) -> bool:
        """Whether pip installs the requirements alone."""
        return "--no-deps" in self.options

    def key(self) -> list[object]:
        """Cache key: all that determines the installation, local files by their content.

        Raises:
            BadInputError: With the code ``RequirementsNotInstallable``, if they cannot be read.
        """
        digest = hashlib.sha256()
        try:
            for path in self._local_files():
                digest.update(path.read_bytes())
        except OSError as error:
            raise requirements_file.refused(str(error)) from error
        return [sorted(self.requirements), list(self.options), digest.hexdigest()]

    def _local_files(self) -> Iterator[Path]:
        if self.file is not None:
            yield self.file
            lines = list(requirements_file.read_lines(self.file))
            yield from requirements_file.local_files(lines, self.file.parent)
        named = map(requirements_file.requirement, sorted(self.requirements))
        yield from requirements_file.local_files(named, None)


@dataclass(frozen=True)
class EnvironmentSpec:
    """A Python environment: equal keys share one environment.

    Attributes:
        installs: Calls of pip, in order.
        base: What is there before them.
        python: Python versions that the packages support, such as ``==3.11.*``; "" for any.
        label: The requirements' name in messages.
        hint: How a person fixes requirements that cannot be installed.
    """

    installs: tuple[PipInstall, ...] = ()
    base: BaseEnvironment = BaseEnvironment.BARE
    python: str = ""
    label: str = "The requirements"
    hint: str = "Fix the requirements, or the package index that pip is set to."

    def key(self) -> str:
        """Name of the environment in the cache."""
        visible: list[str] = []
        if self.base is BaseEnvironment.MODELYARD:
            visible = sorted(f"{one.name}=={one.version}" for one in metadata.distributions())
            visible.insert(0, sys.prefix)
        parts = [
            self.base.value, sys.version, BASE_PYTHON, visible,
            [install.key() for install in self.installs],
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def check_python(self) -> None:
        """Refuse packages that do not support this machine's Python.

        Raises:
            BadInputError: With the code ``PythonVersionMismatch``.
        """
        present = "{}.{}.{}".format(*sys.version_info[:3])
        if not SpecifierSet(self.python).contains(present, prereleases=True):
            raise BadInputError(
                f"{self.label} need Python {self.python}, and Modelyard runs on {present}.",
                "Use a backend that runs images, or requirements for this version.",
                code="PythonVersionMismatch",
            )
