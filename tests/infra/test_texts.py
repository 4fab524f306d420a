from typing import Any

import pytest

from infra.errors import ModelyardError
from infra.texts import is_storable, make_printable, make_storable


@pytest.mark.parametrize(
    ("text", "kept"),
    [("", ""), ("한글 😀\n\x1b[0m", "한글 😀\n\x1b[0m"), ("a\0b\ud800c\udfff", "a�b�c�")],
)
def test_what_no_database_takes_is_replaced(text: str, kept: str) -> None:
    assert make_storable(text) == kept
    kept.encode()


@pytest.mark.parametrize(
    ("text", "kept"),
    [("한글 😀\n\ta", "한글 😀\n\ta"), ("a\0\x1b[31m\x9b\ud800b\r\nc\rd", "a��[31m��b\nc�d")],
)
def test_what_controls_a_terminal_is_replaced_too(text: str, kept: str) -> None:
    assert make_printable(text) == kept


def test_errors_have_no_characters_that_a_state_cannot_have() -> None:
    error = ModelyardError("The model said 'a\0\x1b[2Jb'.", "Look at '\0'.")

    assert str(error) == "The model said 'a��[2Jb'. Look at '�'."


@pytest.mark.parametrize("value", [None, 1, 0.5, True, "한글", [], {"a": ["b", {"c": None}]}])
def test_what_can_be_stored(value: Any) -> None:
    assert is_storable(value)


@pytest.mark.parametrize("value", ["\0", "\udc00", ["a", "\0"], {"a": [{"b": "\0"}]}, {"\0": 1}])
def test_what_cannot(value: Any) -> None:
    assert not is_storable(value)
