from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from infra.errors import BadInputError, DiskFullError
from tasks import overlay

pytestmark = pytest.mark.integration

_OURS = Path(sysconfig.get_path("purelib"))
_SHADOWED = "mdurl"  # a small package that ours has


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


def _wheel(folder: Path, text: str = "", *, name: str = "tinything", version: str = "1.0") -> Path:
    """A wheel with one module of one line."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(content)},{len(content.encode())}\n"
        for path, content in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return wheel


def _digest(content: str) -> str:
    raw = hashlib.sha256(content.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _requirements(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "requirements.txt"
    file.write_text(text)
    return file


def _evaluate(python: str, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _our_environment() -> dict[str, tuple[str, int, int]]:
    """Every distribution of ours with when its files were last changed, and our commands."""
    found = {
        str(dist._path): (dist.version, dist._path.stat().st_mtime_ns, 0)  # type: ignore[attr-defined]
        for dist in metadata.distributions(path=[str(_OURS)])
    }
    for folder in (_OURS, Path(sysconfig.get_path("scripts"))):
        for path in folder.iterdir():
            if path.name != "__pycache__":
                found[str(path)] = ("", path.stat().st_mtime_ns, path.stat().st_size)
    return found


def _overlays(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir()] if folder.exists() else []


def test_without_requirements_it_is_our_own_interpreter(tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"

    assert overlay.python_for(tmp_path / "requirements.txt", overlays) == sys.executable
    assert not overlays.exists()


@pytest.mark.parametrize("relative", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_requirements_are_added_to_ours_which_stays_as_it_is(
    tmp_path: Path, relative: bool
) -> None:
    wheel = _wheel(tmp_path / "source" / "wheels", "ANSWER = 42")
    line = "./wheels/" + wheel.name if relative else str(wheel)
    requirements = _requirements(tmp_path / "source", f"# ours\n{line}\nnumpy\n")
    before = _our_environment()

    python = overlay.python_for(requirements, tmp_path / "overlays")

    assert _our_environment() == before
    answer = _evaluate(python, "import tinything, numpy, sys; print(tinything.ANSWER, sys.prefix)")
    assert answer.split() == ["42", str(Path(python).parents[1])]
    assert python.startswith(str(tmp_path / "overlays"))


def test_another_version_of_what_ours_has_shadows_it(tmp_path: Path) -> None:
    _wheel(tmp_path, "VERSION = 'another'", name=_SHADOWED, version="99.0")
    before = _our_environment()

    python = overlay.python_for(
        _requirements(tmp_path, f"./{_SHADOWED}-99.0-py3-none-any.whl"), tmp_path / "overlays"
    )

    code = f"import {_SHADOWED}; from importlib import metadata; print({_SHADOWED}.VERSION,"
    assert _evaluate(python, f"{code} metadata.version('{_SHADOWED}'))") == "another 99.0"
    assert _our_environment() == before


def test_what_is_unchanged_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlays = tmp_path / "overlays"
    wheel = _wheel(tmp_path, "ANSWER = 1")
    first = overlay.python_for(_requirements(tmp_path / "a", str(wheel)), overlays)
    monkeypatch.setattr(overlay, "_make", lambda *_: pytest.fail("it was made again"))

    assert overlay.python_for(_requirements(tmp_path / "b", str(wheel)), overlays) == first


def test_other_requirements_are_another_overlay(tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    one = overlay.python_for(_requirements(tmp_path, "numpy"), overlays)
    other = overlay.python_for(_requirements(tmp_path, "numpy\npyyaml"), overlays)

    assert one != other
    assert len(_overlays(overlays)) == 2


@pytest.mark.parametrize("via", [pytest.param("wheel", marks=pytest.mark.soak), "nested file"])
def test_the_same_words_about_other_content_are_another_overlay(tmp_path: Path, via: str) -> None:
    overlays = tmp_path / "overlays"
    answers = []
    for answer in ("1", "2"):
        folder = tmp_path / answer
        wheel = _wheel(folder / "wheels", f"ANSWER = {answer}")
        if via == "wheel":
            requirements = _requirements(folder, f"./wheels/{wheel.name}")
        else:
            (folder / "base.txt").write_text(str(wheel))
            requirements = _requirements(folder, "-r base.txt")
        python = overlay.python_for(requirements, overlays)
        answers.append(_evaluate(python, "import tinything; print(tinything.ANSWER)"))

    assert answers == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no-such-thing-anywhere==1.0", "no-such-thing-anywhere"),
        ("./missing.whl", "missing.whl"),
        ("!!! nonsense", "nonsense"),
        ("-r missing.txt", "missing.txt"),
    ],
)
def test_what_cannot_be_installed_is_told_and_leaves_nothing(
    tmp_path: Path, text: str, told: str
) -> None:
    overlays = tmp_path / "overlays"
    before = _our_environment()

    with pytest.raises(BadInputError) as raised:
        overlay.python_for(_requirements(tmp_path, text), overlays)

    assert raised.value.code == "RequirementsNotInstallable"
    assert told in raised.value.message
    assert _overlays(overlays) == []
    assert _our_environment() == before


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlays = tmp_path / "overlays"
    failed = subprocess.CompletedProcess([], 1, "", "OSError: [Errno 28] No space left on device")
    monkeypatch.setattr(overlay.subprocess, "run", lambda *_, **__: failed)

    with pytest.raises(DiskFullError):
        overlay.python_for(_requirements(tmp_path, "numpy"), overlays)

    assert _overlays(overlays) == []


def test_a_half_made_overlay_is_made_anew(tmp_path: Path) -> None:
    overlays = tmp_path / "overlays"
    requirements = _requirements(tmp_path, "numpy")
    python = Path(overlay.python_for(requirements, overlays))
    root = python.parents[1]
    (root / overlay._READY).unlink()
    (root / "rubbish").touch()

    assert overlay.python_for(requirements, overlays) == str(python)
    assert not (root / "rubbish").exists()
    assert (root / overlay._READY).exists()


_MAKER = """
import sys
from pathlib import Path
from tasks import overlay
real = overlay._make
def counted(*arguments):
    with open(sys.argv[3], "a") as file:
        file.write("made\\n")
    real(*arguments)
overlay._make = counted
print("ready", flush=True)
sys.stdin.readline()
print(overlay.python_for(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_two_processes_at_once_make_it_once(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "ANSWER = 42")
    requirements = _requirements(tmp_path, str(wheel))
    count = tmp_path / "count"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", _MAKER, str(requirements), str(tmp_path / "overlays"), count],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    answers = [maker.communicate(timeout=100)[0].strip() for maker in makers]

    assert answers[0] == answers[1]
    assert count.read_text() == "made\n"
    assert _evaluate(answers[0], "import tinything; print(tinything.ANSWER)") == "42"


_BACKEND = """
import zipfile

def build_wheel(folder, *_):
    name = "local-1.0-py3-none-any.whl"
    info = "local-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as archive:
        archive.write("local.py")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: local\\nVersion: 1.0\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
    return name

def build_editable(*_):
    raise AssertionError("an editable one stays in the run's folder")
"""  # noqa: E501


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("-e .", {}),
        pytest.param("--editable=./", {}, marks=pytest.mark.soak),
        pytest.param(".", {}, marks=pytest.mark.soak),
        pytest.param(
            "-r more/other.txt",
            {"more/other.txt": "# those of the package\n-e .\n"},
            marks=pytest.mark.soak,
        ),
    ],
)
def test_a_local_package_is_a_copy_of_its_content(
    tmp_path: Path, line: str, files: dict[str, str]
) -> None:
    """A run's folder goes with the run; the overlay serves the next run of the same content."""

    def value(folder: str, content: str) -> str:
        source = tmp_path / folder
        requirements = _requirements(source, f"{line}\n")
        for name, text in {
            **files,
            "local.py": f"value = {content!r}",
            "backend.py": _BACKEND,
            "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\n"
            "backend-path = ['.']\n",
        }.items():
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(text)
        python = overlay.python_for(requirements, tmp_path / "overlays")
        shutil.rmtree(source)
        done = subprocess.run(
            [python, "-c", "import local; print(local.value)"],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        return done.stdout.strip()

    assert value("one", "first") == "first"
    assert value("two", "first") == "first"
    assert value("three", "second") == "second"
    assert len(list((tmp_path / "overlays").glob("*/bin"))) == 2
