"""Which file is the model of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import BadInputError
from infra.storage import store
from registry import frameworks

_PICKLED = b"\x80\x04N."


def _check(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    frameworks.check("scikit-learn", store(str(folder)), "name")


@pytest.mark.parametrize(
    "files",
    [
        {"a.pkl": _PICKLED},
        {"a.pickle": _PICKLED, "notes.txt": b"of the user's own"},
        {"model.pkl": _PICKLED, "scaler.pkl": b"any"},
        {"a.joblib": _PICKLED, "a.pkl": b"any"},
        {"a.joblib": _PICKLED, "a.onnx": b"any"},
    ],
    ids=str,
)
def test_a_joblib_file_or_else_a_pickle_is_the_model(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    _check(tmp_path, files)


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"a.npz": _PICKLED}, "JoblibMissing"),
        ({"a.pkl": _PICKLED, "b.pickle": _PICKLED}, "JoblibAmbiguous"),
        ({"a.pkl": _PICKLED, "model.onnx": b"any"}, "JoblibAmbiguous"),
        ({"a.pkl": b"PK\x03\x04"}, "JoblibMalformed"),
    ],
    ids=str,
)
def test_what_is_refused(tmp_path: Path, files: dict[str, bytes], code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        _check(tmp_path, files)

    assert raised.value.code == code
    assert raised.value.hint
    assert str(tmp_path) in raised.value.message
