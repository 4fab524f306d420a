"""Requirements files, in the ways in which people and tools write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.workloads import requirements_file
from infra.workloads.environment_spec import EnvironmentSpec, PipInstall
from tests.infra.workloads import packages


def key(file: Path) -> str:
    return EnvironmentSpec((PipInstall(file=file),)).key()


def write(folder: Path, text: str, name: str = "requirements.txt") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "text",
    [
        "# numpy / scipy are needed\nsix\n",
        "six # pinned to that of ..\n",
        "# see /usr for it\nsix",
        "# /dev/zero\nsix",
        "six --config-settings x=/usr\n",
        "six ; python_version > '3'\n-e git+https://host/path/.git\n",
        "/ \nsix",  # no source of a package
    ],
)
def test_only_what_a_requirement_names_is_looked_at(tmp_path: Path, text: str) -> None:
    lines = list(requirements_file.read_lines(write(tmp_path, text)))

    assert list(requirements_file.local_files(lines, tmp_path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "./lib", "./lib[x] ; python_version > '3'", "-e lib", "-e ./lib # ours",
        "--editable=./lib",
        "local @ file://ROOT/lib", "file://ROOT/l%69b", "ROOT/lib", "six\\\n\n./lib",
        "-r more/other.txt",
    ],
)  # fmt: skip
def test_a_local_package_counts_by_its_content(tmp_path: Path, text: str) -> None:
    package = packages.source(tmp_path / "lib", "local", "value = 1")
    write(tmp_path, "-e ../lib\n", "more/other.txt")
    file = write(tmp_path, text.replace("ROOT", str(tmp_path)))
    before = key(file)

    (package / "build").mkdir()
    (package / "build" / "left").touch()
    assert key(file) == before
    (package / "local.py").write_text("value = 2")
    assert key(file) != before


@pytest.mark.parametrize(
    "text", ["-f wheels", "--find" + "-links=wheels", "wheels/a-1.0-py3-none-any.whl"]
)
def test_archives_count_by_their_content(tmp_path: Path, text: str) -> None:
    packages.wheel(tmp_path / "wheels", "a", "x = 1")
    file = write(tmp_path, text)
    before = key(file)

    packages.wheel(tmp_path / "wheels", "a", "x = 2")
    assert key(file) != before


def test_constraints_count_and_are_left_to_pip(tmp_path: Path) -> None:
    limits = write(tmp_path, "six<2\n-c deeper.txt", "limits.txt")
    write(tmp_path, "numpy<9", "deeper.txt")
    file = write(tmp_path, "six\n-c limits.txt\n")
    before = key(file)
    assert requirements_file.flatten(file) == ["six", f"-c {limits}"]

    write(tmp_path, "numpy<8", "deeper.txt")
    assert key(file) != before


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    file = write(tmp_path, "# those of the run\nsix \\\n  ==1.0\nnumpy\n")

    assert requirements_file.flatten(file) == ["", "six   ==1.0", "", "numpy"]


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"),
        (b"# -*- coding: latin-1 -*-\n# \xe9t\xe9\n", "latin-1"),
    ],
)  # fmt: skip
def test_encodings_that_pip_reads(tmp_path: Path, mark: bytes, encoding: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_bytes(mark + "six\r\nnumpy\r\n".encode(encoding))

    assert [one for one in requirements_file.flatten(file) if one] == ["six", "numpy"]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"requirements.txt": b"six # \xff\n"}, "requirements.txt is not text in utf-8"),
        ({"requirements.txt": b"# coding: klingon\nsix"}, "is not text in klingon"),
        ({"requirements.txt": b"-r requirements.txt"}, "requirements.txt includes itself"),
        ({"requirements.txt": b"-r a.txt", "a.txt": b"-c ./requirements.txt"}, "includes itself"),
        ({"requirements.txt": b"-r none.txt"}, "there is no file none.txt"),
        ({"requirements.txt": b"-r /dev/zero"}, "there is no file zero"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    with pytest.raises(BadInputError) as raised:
        key(tmp_path / "requirements.txt")
    assert raised.value.code == "RequirementsNotInstallable"
    assert why in raised.value.message


def test_a_file_that_goes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "six")

    def gone(_: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_bytes", gone)
    with pytest.raises(BadInputError, match="No such file"):
        key(file)
