"""Small packages to install."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

_BUILD_SYSTEM = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"

# Builds a wheel of NAME.py alone. With {before}, it first runs that.
_BACKEND = """
import os, time, zipfile

def build_wheel(folder, *_):
{before}
    name = "{name}-1.0-py3-none-any.whl"
    info = "{name}-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.write("{name}.py")
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return name

def build_editable(*_):
    raise AssertionError("an editable one stays in its folder")
"""  # noqa: E501

_SLOW = """
    with open({state!r} + "/environment", "w") as file:
        file.write("\\n".join(os.environ))
    with open({state!r} + "/part", "w") as file:
        file.write(str(os.getpid()))
    os.rename({state!r} + "/part", {state!r} + "/pid")
    while not os.path.exists({state!r} + "/go"):
        time.sleep(0.02)
"""


def wheel(
    folder: Path, name: str = "sample", text: str = "", *, version: str = "1.0", needs: str = ""
) -> Path:
    """A wheel with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(content)},{len(content.encode())}\n"
        for path, content in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in files.items():
            archive.writestr(one, content)
    return path


def _digest(content: str) -> str:
    return (
        base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
    )


def source(folder: Path, name: str = "local", text: str = "", *, before: str = "    pass") -> Path:
    """The source of a package with one module."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_BUILD_SYSTEM)
    (folder / "backend.py").write_text(_BACKEND.format(name=name, before=before))
    (folder / f"{name}.py").write_text(text)
    return folder


def slow_source(folder: Path, state: Path) -> Path:
    """The source of the package ``slow``, whose build waits for the file ``go`` in ``state``.

    The build writes its process id to the file ``pid``, and the names of its environment
    variables to ``environment``.
    """
    return source(folder, "slow", "WORD = 'made'", before=_SLOW.format(state=str(state)))
