from __future__ import annotations

import json
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
        (["a=null", "b="], {"a": None, "b": None}),
        (["a={b: 007, c: no, d: 12:30}"], {"a": {"b": 7, "c": "no", "d": "12:30"}}),
        (["a='", "b=it's", "c=x: y", "d=@x"], {"a": "'", "b": "it's", "c": "x: y", "d": "@x"}),
        (["hyperparameters.a=null", "hyperparameters.b=[1, 2]", "hyperparameters.c="],
         {"hyperparameters": {"a": "null", "b": "[1, 2]", "c": None}}),
        (["arguments.rate=1.10"], {"arguments": {"rate": 1.1}}),
    ],
)  # fmt: skip
def test_pairs(pairs: list[str] | None, read: dict[str, Any]) -> None:
    assert parameters.read(None, pairs) == read


def test_what_a_flow_has_as_a_string_is_read_as_one() -> None:
    pairs = ["description=[red]x", "logs.uri=", "name=1.10", "max_minutes=5"]

    assert parameters.read_for("train", None, pairs) == {
        "description": "[red]x", "logs": {"uri": None}, "name": "1.10", "max_minutes": 5,
    }  # fmt: skip


@pytest.mark.parametrize(("flow", "read"), [("train", "2026"), ("mine", 2026), ("", 2026)])
def test_a_flow_that_is_not_modelyards_has_no_strings(flow: str, read: Any) -> None:
    assert parameters.read_for(flow, None, ["name=2026"]) == {"name": read}


@pytest.mark.parametrize("key", ["a", "hyperparameters.a"])
@pytest.mark.parametrize(
    "text",
    ["12:30", "007", "no", "yes", "on", "1.10", "1_000", "0x1F", "0o7", "0b1", ".5", "5.", "+1",
     "1e999", ".inf", "True", "~", "-0", "٣", "3.14159265358979323846", "2026-01-31", "a # b"],
)  # fmt: skip
def test_what_json_would_write_otherwise_is_a_text(key: str, text: str) -> None:
    *outer, last = key.split(".")
    found = parameters.read(None, [f"{key}={text}"])

    assert (found[outer[0]] if outer else found) == {last: text}


@pytest.mark.parametrize(
    ("text", "read"),
    [("5", 5), ("-0.5", -0.5), ("1.0", 1.0), ("1e-4", 1e-4), ("2E+3", 2e3), ("true", True),
     ("false", False), ("'5'", "5"), ('"true"', "true")],
)  # fmt: skip
def test_a_hyperparameter_is_a_number_where_json_has_one(text: str, read: Any) -> None:
    found = parameters.read(None, [f"hyperparameters.a={text}"])["hyperparameters"]["a"]

    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("12:30", "12:30"), ("007", 7), ("0o17", 15), ("0x1F", 31), ("no", "no"), ("Yes", "Yes"),
        ("on", "on"), ("1_000", "1_000"), ("1e-4", 1e-4), ("1.10", 1.1), (".5", 0.5),
        ("-.inf", float("-inf")), ("2026-01-31", "2026-01-31"), ("True", True), ("~", None),
        ("", None), ("0b1", "0b1"), ("+1", 1), ("'007'", "007"), ('"\\U0001F600"', "\U0001f600"),
    ],
)  # fmt: skip
def test_a_file_is_read_by_the_core_schema(tmp_path: Path, text: str, read: Any) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(f"a: {text}\n", encoding="utf-8")

    found = parameters.read(file, None)["a"]

    assert (found, type(found)) == (read, type(read))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_file_that_json_wrote_is_read_as_json(
    tmp_path: Path, indent: int | None, ascii_only: bool
) -> None:
    written = {"name": "\U0001f600 \t\x7f", "a/b": ["\ud7ff", 1e-7, {"c": None, "12:30": True}]}
    file = tmp_path / "parameters.json"
    text = json.dumps(written, indent=indent, ensure_ascii=ascii_only)
    file.write_text(text, encoding="utf-8")

    assert parameters.read(file, None) == written


def test_a_key_of_json_stands_once(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"a": 1, "a": 2}')

    with pytest.raises(BadInputError, match="twice"):
        parameters.read(file, None)


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


@pytest.mark.parametrize("pair", ["", "name", "=value", "a: 1", "a=[", "a={b"])
def test_pairs_that_cannot_be_read_are_refused(pair: str) -> None:
    with pytest.raises(BadInputError) as raised:
        parameters.read(None, [pair])

    assert repr(pair) in raised.value.message or pair in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("pairs", [["a=1", "a.b=2"], ["a=[1]", "a.b.c=2"], ["a=", "a.b=1"]])
def test_a_pair_inside_what_is_no_mapping_is_refused(pairs: list[str]) -> None:
    with pytest.raises(BadInputError, match="a is not a mapping"):
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


@pytest.mark.parametrize("text", ["a: &a [*a]", "&a {b: {c: *a}}"])
def test_a_value_within_itself_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)

    with pytest.raises(BadInputError, match="contains it") as refused:
        parameters.read(tmp_path / "p.yaml", None)
    assert "YAML 1.2" in refused.value.hint


def test_a_value_may_stand_in_many_places(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    (tmp_path / "p.yaml").write_text("\n".join(lines))

    found = parameters.read(tmp_path / "p.yaml", None)
    assert found["a2"] == [[[1], [1]], [[1], [1]]]


def test_a_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, folder in ((Path("none.yaml"), str(tmp_path)), (tmp_path / "none.yaml", "")):
        with pytest.raises(BadInputError, match=r"There is no file .*none\.yaml") as raised:
            parameters.read(file, None)
        assert raised.value.code == "FileMissing"
        assert folder in raised.value.hint


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file in (binary, tmp_path):
        with pytest.raises(BadInputError, match=str(file)) as raised:
            parameters.read(file, None)
        assert raised.value.code == "FileNotReadable"


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
