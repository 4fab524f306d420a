from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError
from modelyard import parameters


@pytest.mark.parametrize(
    ("pairs", "read"),
    [
        (None, {}),
        (["name=digits"], {"name": "digits"}),
        (["max_minutes=10"], {"max_minutes": 10}),
        (["max_minutes=0.5"], {"max_minutes": 0.5}),
        (["flag=true"], {"flag": True}),
        (["name="], {"name": None}),
        (["name=''"], {"name": ""}),
        (["name='10'"], {"name": "10"}),
        (["name=a=b"], {"name": "a=b"}),
        (["datasets=[{name: a, uri: /a}]"], {"datasets": [{"name": "a", "uri": "/a"}]}),
        (["hyperparameters.epochs=5"], {"hyperparameters": {"epochs": 5}}),
        (["a.b.c=1", "a.b.d=2", "a.e=3"], {"a": {"b": {"c": 1, "d": 2}, "e": 3}}),
        (["a=1", "a=2"], {"a": 2}),
        (["a={b: 1}", "a.c=2"], {"a": {"b": 1, "c": 2}}),
        (["name={{ slot.strftime('%F') }}"], {"name": "{{ slot.strftime('%F') }}"}),
        (["name= {{ slot }} x"], {"name": " {{ slot }} x"}),
        (["a.b={{ slots"], {"a": {"b": "{{ slots"}}),
        (["a=2026-01-31", "b=2026-01-31 10:00"], {"a": "2026-01-31", "b": "2026-01-31 10:00"}),
    ],
)
def test_pairs(pairs: list[str] | None, read: dict[str, Any]) -> None:
    assert parameters.read(None, pairs) == read


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("1", "1"),
        ("1.10", "1.10"),
        ("2026-01-01", "2026-01-01"),
        ("yes", "yes"),
        ("null", "null"),
        ("#team", "#team"),
        ("@team", "@team"),
        ("", ""),
        ("a: b", "a: b"),
        ("[x", "[x"),
        ("'1'", "1"),
        ('"a\\n\\"b\\""', 'a\n"b"'),
        ('"', '"'),
        ("'a' or 'b'", "'a' or 'b'"),
        ("{{ slot }}", "{{ slot }}"),
    ],
)
def test_a_pair_that_is_a_text_is_as_it_was_written(text: str, read: str) -> None:
    pairs = [f"told={text}", "other=1"]

    assert parameters.read(None, pairs, texts={"told"}) == {"told": read, "other": 1}


@pytest.mark.parametrize(
    ("text", "pairs", "read"),
    [
        ("a: 1\nb: {c: 2}", None, {"a": 1, "b": {"c": 2}}),
        ('{"a": 1, "b": [null]}', None, {"a": 1, "b": [None]}),
        ("", None, {}),
        ("# nothing\n", ["a=1"], {"a": 1}),
        ("a: 1\nb: {c: 2, d: 3}", ["a=9", "b.c=8"], {"a": 9, "b": {"c": 8, "d": 3}}),
    ],
)
def test_files_with_pairs_over_them(
    tmp_path: Path, text: str, pairs: list[str] | None, read: dict[str, Any]
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(text)

    assert parameters.read(file, pairs) == read


@pytest.mark.parametrize("pair", ["", "name", "=value", "a: 1", "a=[", "a={b", "a='"])
def test_pairs_that_cannot_be_read_are_refused(pair: str) -> None:
    with pytest.raises(BadInputError) as raised:
        parameters.read(None, [pair])

    assert repr(pair) in raised.value.message or pair in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("pairs", [["a=1", "a.b=2"], ["a=[1]", "a.b.c=2"], ["a=", "a.b=1"]])
def test_a_pair_inside_what_is_no_mapping_is_refused(pairs: list[str]) -> None:
    with pytest.raises(BadInputError, match="a is no mapping"):
        parameters.read(None, pairs)


@pytest.mark.parametrize(
    "content", [b"- a\n- b", b"text", b"1", b"a: [", b"\xff\xfe\x00", b"1: a", b"a: 1\n---\nb: 2"]
)
def test_files_that_hold_no_parameters_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_bytes(content)

    with pytest.raises(BadInputError) as raised:
        parameters.read(file, None)

    assert str(file) in raised.value.message


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.yaml"):
        parameters.read(tmp_path / "none.yaml", None)


@pytest.mark.parametrize(
    ("pair", "read"),
    [
        ("a=1", {"a": 1}),
        ("a=-0.5", {"a": -0.5}),
        ("a=true", {"a": True}),
        ("a.b.c=x", {"a.b.c": "x"}),
        ("a=x=y", {"a": "x=y"}),
        ("a='1'", {"a": "1"}),
        ('a="x y"', {"a": "x y"}),
        ("a=1.10", {"a": "1.10"}),
        ("a=1e-4", {"a": "1e-4"}),
        ("a=010", {"a": "010"}),
        ("a=1_000", {"a": "1_000"}),
        ("a=True", {"a": "True"}),
        ("a=yes", {"a": "yes"}),
        ("a=", {"a": ""}),
        ("a=null", {"a": "null"}),
        ("a=.nan", {"a": ".nan"}),
        ("a=2026-01-31", {"a": "2026-01-31"}),
        ('a={"b": 1}', {"a": '{"b": 1}'}),
        ("a=[1]", {"a": "[1]"}),
        ("a={{ x", {"a": "{{ x"}),
        ("a=secret:b", {"a": "secret:b"}),
        ("a= x", {"a": " x"}),
        ("a=hello # world", {"a": "hello # world"}),
        ("a=one\ntwo", {"a": "one\ntwo"}),
        ("a=&a b", {"a": "&a b"}),
    ],
)
def test_what_a_program_gets_is_as_it_was_written(pair: str, read: dict[str, Any]) -> None:
    assert parameters.as_written([pair]) == read


@pytest.mark.parametrize("pair", ["", "a", "=1"])
def test_what_is_no_pair_is_refused_as_well(pair: str) -> None:
    with pytest.raises(BadInputError):
        parameters.as_written([pair])
