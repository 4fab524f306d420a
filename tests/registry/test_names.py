from __future__ import annotations

import pytest

from infra.errors import BadInputError
from registry import names

_UNKEEPABLE = ["", " ", " a", "a ", "a\n", "a\0b", "n" * 251, "\u200b"]


@pytest.mark.parametrize("name", ["a", "이름 [1] - ok", "n" * 250])
def test_names_that_can_be_kept(name: str) -> None:
    names.check(name)
    names.check_plain(name)


@pytest.mark.parametrize("name", [*_UNKEEPABLE, "a/b", "a:b", 'a"b'])
def test_a_runs_name_that_cannot_be_kept(name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        names.check(name)

    assert raised.value.code == "NameInvalid"


@pytest.mark.parametrize("name", ["a/b", "a:b", 'a"b', "a'b`"])
def test_no_filter_holds_a_plain_name(name: str) -> None:
    names.check_plain(name)


@pytest.mark.parametrize("name", _UNKEEPABLE)
def test_a_plain_name_that_cannot_be_kept(name: str) -> None:
    with pytest.raises(BadInputError) as raised:
        names.check_plain(name, "Odd")

    assert raised.value.code == "Odd"
    assert raised.value.hint


@pytest.mark.parametrize("text", ["", "d" * 4000, "two\nlines"])
def test_descriptions_that_can_be_kept(text: str) -> None:
    names.check_description(text)


@pytest.mark.parametrize("text", ["\0", "d" * 4001])
def test_descriptions_that_cannot_be_kept(text: str) -> None:
    with pytest.raises(BadInputError) as raised:
        names.check_description(text)

    assert raised.value.code == "TextInvalid"
