from __future__ import annotations

from pathlib import Path

import pytest

from infra import storage
from infra.errors import BadInputError


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/data/set", "/data/set"),
        ("file:///data/set", "/data/set"),
        ("file://localhost/data/set", "/data/set"),
        ("FILE:///data/set", "/data/set"),
        ("file:///sp%20ace/%C3%BC", "/sp ace/ü"),
        ("/sp%20ace", "/sp%20ace"),
        ("/a?b#c", "/a?b#c"),
        ("file:///dir/a #b", "/dir/a #b"),
        ("file:///dir/a?b", "/dir/a?b"),
        ("/a..b/..c/d..", "/a..b/..c/d.."),
    ],
)
def test_paths_and_file_uris_name_files(uri: str, path: str) -> None:
    found = storage.store(uri)

    assert found.uri == uri
    assert found.in_place() == Path(path)


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("/data/../etc", "PathClimbs"),
        ("..", "PathClimbs"),
        ("file:///data/../../etc", "PathClimbs"),
        ("file:///data/%2e%2e/etc", "PathClimbs"),
        ("file:///data/%2E./etc", "PathClimbs"),
        ("s3://bucket/../other", "PathClimbs"),
        ("/data\0/x", "PathClimbs"),
        ("file:///data%00/x", "PathClimbs"),
        ("data/set", "NotAbsolute"),
        ("", "NotAbsolute"),
        ("~/data", "NotAbsolute"),
        ("file://data/set", "NotAbsolute"),
        ("file://otherhost/data", "NotAbsolute"),
        ("http://host/data", "UnknownScheme"),
        ("gopher://host/data", "UnknownScheme"),
        ("://x", "UnknownScheme"),
        ("runs:/0123/model", "UnknownScheme"),
        ("models:/digits/1", "UnknownScheme"),
        ("file:data", "NotAbsolute"),
        ("s3:/bucket/key", "BucketNameWrong"),
    ],
)
def test_what_names_no_file_is_refused(uri: str, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        storage.store(uri)

    assert raised.value.code == code


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("data/set", "here/data/set"),
        ("./data", "here/data"),
        ("~/data", "here/data"),
        ("../x/m.onnx", "x/m.onnx"),
        ("a/../../x", "x"),
        ("/data", "/data"),
        ("/data/../etc", "/data/../etc"),
        ("file:///data", "file:///data"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("runs:/0123/model", "runs:/0123/model"),
        ("a:b", "here/a:b"),
        ("", ""),
    ],
)
def test_relative_paths_count_from_the_callers_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, absolute: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))

    found = storage.absolute(uri)

    below = absolute.startswith(("here", "x"))
    assert found == (str(tmp_path / absolute) if below else absolute)
