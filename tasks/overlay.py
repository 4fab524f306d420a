"""Environments for scripts: what their ``requirements.txt`` adds to ours, made once.

An overlay is a virtual environment that sees our own packages and shadows them with what the
requirements ask for. pip installs into the overlay only what ours lacks or has in another
version; it never touches ours. The overlay's name is a digest of everything that decides its
content, so an unchanged file finds the overlay of the last time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from infra.connection import user_environment
from infra.errors import BadInputError, DiskFullError

_READY = "modelyard-ready"
_TAIL_LINES = 12
_EXTRAS = re.compile(r"\[[^]]*\]$")  # of a local package, such as .[cpu]
_OPTION = re.compile(r"\s*(-[rcfe]|--requirement|--constraint|--find.links|--editable)[\s=]*(\S+)")
_BUILT = re.compile(r"__pycache__|build|dist|\.git|.*\.egg-info")


def _digest(requirements: Path) -> str:
    installed = sorted(f"{dist.name}=={dist.version}" for dist in metadata.distributions())
    digest = hashlib.sha256("\n".join([sys.version, sys.prefix, *installed]).encode())
    _add_file(digest, requirements, requirements.parent, set())
    return digest.hexdigest()[:24]


def _add_file(digest: hashlib._Hash, path: Path, root: Path, seen: set[Path]) -> None:
    """Add a requirements file to the digest, with the local files and folders that it names.

    To pip a name is relative to the file, or to ``root``, in which it runs.
    """
    if path in seen:
        return
    seen.add(path)
    digest.update(path.read_bytes())
    if path.suffix not in {".txt", ".in"}:
        return
    for word in re.split(r"[\s=@]+", path.read_text(errors="replace")):
        name = _EXTRAS.sub("", word.removeprefix("file://"))
        for named in dict.fromkeys([path.parent / name, root / name]) if name else ():
            for file in _sources(named) if named.is_dir() else [named] * named.exists():
                _add_file(digest, file, root, seen)


def _sources(folder: Path) -> list[Path]:
    """The files of a local package, without what building it leaves there."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(_BUILT.fullmatch(part) for part in path.relative_to(folder).parts)
    ]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def python_for(requirements: Path, overlays: Path) -> str:
    """The interpreter with ``requirements`` installed; ours where the file does not exist.

    Args:
        requirements: A ``requirements.txt``, read by pip.
        overlays: The folder that holds the overlays.

    Raises:
        BadInputError: If pip cannot install them; nothing is left then.
        DiskFullError: If they do not fit.
    """
    if not requirements.is_file():
        return sys.executable
    overlays.mkdir(parents=True, exist_ok=True)
    overlay = overlays / _digest(requirements)
    python = overlay / "bin" / "python"
    with _locked(overlays / f"{overlay.name}.lock"):
        if not (overlay / _READY).exists():
            shutil.rmtree(overlay, ignore_errors=True)
            try:
                _make(overlay, requirements)
                (overlay / _READY).touch()
            except BaseException:
                shutil.rmtree(overlay, ignore_errors=True)
                raise
    return str(python)


def _lasting(requirements: Path) -> list[str]:
    """The lines of a requirements file, and of those that it names, as they are installed.

    Local packages are installed as built copies even where they are called editable: the run's
    folder, which they lie in, goes with the run, and the overlay stays.
    """
    lines = []
    for line in requirements.read_text().replace("\\\n", " ").splitlines():
        option = _OPTION.match(line)
        kind, named = (option[1].lstrip("-")[0], option[2]) if option else ("", "")
        if kind == "r" and (requirements.parent / named).is_file():
            lines += _lasting(requirements.parent / named)
        elif kind in {"c", "f"} and (requirements.parent / named).exists():
            lines.append(f"-{kind} {requirements.parent / named}")
        elif kind == "e" and "://" not in named and option:
            lines.append(named + line[option.end() :])
        else:
            lines.append(line)
    return lines


def _make(overlay: Path, requirements: Path) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(overlay)
    purelib = sysconfig.get_path("purelib", "venv", {"base": str(overlay)})
    # addsitedir and not a bare path, so that our own .pth files count as well.
    ours = sysconfig.get_path("purelib")
    Path(purelib, "modelyard.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    installed = overlay / "requirements.txt"
    installed.write_text("".join(f"{line}\n" for line in _lasting(requirements)))
    done = subprocess.run(
        [str(overlay / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check",
         "--no-input", "--progress-bar", "off", "-r", str(installed)],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=requirements.parent,
        env={**user_environment(), "PIP_USER": "0", "PYTHONNOUSERSITE": "1"},
    )  # fmt: skip
    if done.returncode == 0:
        return
    if "No space left on device" in done.stderr:
        raise DiskFullError(
            f"The disk of {overlay.parent} is full: the requirements do not fit.", "Make room."
        )
    tail = "\n".join(
        line for line in done.stderr.splitlines() if not line.startswith("WARNING: Location")
    )
    tail = os.linesep.join(tail.splitlines()[-_TAIL_LINES:])
    raise BadInputError(
        f"requirements.txt cannot be installed:\n{tail}",
        "Mend requirements.txt beside the entry point.",
        code="RequirementsNotInstallable",
    )
