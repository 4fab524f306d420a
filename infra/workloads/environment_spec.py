"""What a Python environment contains, and the cache key that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from infra.errors import BadInputError

# The version is what differs between interpreters of one machine, and where it lies.
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))

_EXTRAS = re.compile(r"\[[^]]*\]$")  # of a local package, such as .[cpu]
_OPTION = re.compile(r"\s*(-[rcfe]|--requirement|--constraint|--find.links|--editable)[\s=]*(\S+)")
_BUILD_LEFTOVERS = re.compile(r"__pycache__|build|dist|\.git|.*\.egg-info")
_SEPARATORS = re.compile(r"[\s=@]+")


class Base(Enum):
    """What an environment sees before anything is installed.

    Attributes:
        BARE: pip alone, as in an image of Python.
        MODELYARD: Modelyard's own packages, which the requirements may shadow.
    """

    BARE = "bare"
    MODELYARD = "modelyard"


@dataclass(frozen=True)
class PipInstall:
    """One call of ``pip install``.

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
        """Everything that decides what it installs, local files and folders by their content."""
        digest = hashlib.sha256()
        visited: set[Path] = set()
        if self.file is not None:
            _add_file(digest, self.file, self.file.parent, visited)
        for requirement in sorted(self.requirements):
            for path in _local_paths(requirement, []):
                _add_path(digest, path, path.parent, visited)
        return [sorted(self.requirements), list(self.options), digest.hexdigest()]


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
    base: Base = Base.BARE
    python: str = ""
    label: str = "The requirements"
    hint: str = "Fix the requirements, or the package index that pip is set to."

    def key(self) -> str:
        """The environment's name in the cache."""
        visible: list[str] = []
        if self.base is Base.MODELYARD:
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


def flatten(file: Path) -> list[str]:
    """Lines of a requirements file and of those that it includes, fit to be installed for good.

    Local packages become built copies even where the file calls them editable: an environment
    outlives the folder that they lie in.
    """
    lines: list[str] = []
    for line in file.read_text().replace("\\\n", " ").splitlines():
        option = _OPTION.match(line)
        kind, named = (option[1].lstrip("-")[0], option[2]) if option else ("", "")
        if kind == "r" and (file.parent / named).is_file():
            lines += flatten(file.parent / named)
        elif kind in {"c", "f"} and (file.parent / named).exists():
            lines.append(f"-{kind} {file.parent / named}")
        elif kind == "e" and "://" not in named and option:
            lines.append(named + line[option.end() :])
        else:
            lines.append(line)
    return lines


def _add_file(digest: hashlib._Hash, path: Path, root: Path, visited: set[Path]) -> None:
    """Add a file's content, and that of the local files and folders that a text file names.

    Args:
        digest: The digest.
        path: The file.
        root: The folder that pip runs in; names are relative to it, or to the file.
        visited: Files that the digest has.
    """
    if path in visited:
        return
    visited.add(path)
    digest.update(path.read_bytes())
    if path.suffix in {".txt", ".in"}:
        for named in _local_paths(path.read_text(errors="replace"), [path.parent, root]):
            _add_path(digest, named, root, visited)


def _add_path(digest: hashlib._Hash, path: Path, root: Path, visited: set[Path]) -> None:
    for file in _sources(path) if path.is_dir() else [path]:
        _add_file(digest, file, root, visited)


def _local_paths(text: str, roots: list[Path]) -> Iterator[Path]:
    """Existing files and folders that words of ``text`` name; without roots, absolute ones."""
    for word in _SEPARATORS.split(text):
        name = _EXTRAS.sub("", word.removeprefix("file://"))
        if not name or not (roots or name.startswith("/")):
            continue
        for path in dict.fromkeys(root / name for root in roots or [Path("/")]):
            if path.exists():
                yield path


def _sources(folder: Path) -> list[Path]:
    """Files of a local package, without what building it leaves there."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(_BUILD_LEFTOVERS.fullmatch(part) for part in path.relative_to(folder).parts)
    ]
