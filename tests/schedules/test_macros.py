from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError
from schedules import macros

_SLOT = datetime(2026, 3, 1, 18, 7, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no macro { } }}", "no macro { } }}"),
        ("{{ slot }}", "2026-03-01T18:07:05Z"),
        ("a {{slot}} b {{  slot  }}", "a 2026-03-01T18:07:05Z b 2026-03-01T18:07:05Z"),
        ("{{ slot.strftime('%Y-%m-%d') }}", "2026-03-01"),
        ('s3://b/{{ slot.strftime( "%Y/%j" ) }}/x', "s3://b/2026/060/x"),
        ("{{ slot.strftime('') }}", ""),
        ("{{ slot.local }}", "2026-03-02T03:07:05+09:00"),
        ("{{ slot.local.strftime('%d %H %z %s') }}", "02 03 +0900 1772388425"),
        ("{{ '{{' }} slot }}", "{{ slot }}"),
        ('{{ "{{x" }}', "{{x"),
        ("[[ScheduledTime]]", "[[ScheduledTime]]"),
    ],
)
def test_what_a_macro_stands_for(text: str, expected: str) -> None:
    macros.check(text)

    assert macros.fill(text, _SLOT, "Asia/Seoul") == expected


def test_macros_are_found_wherever_a_text_is() -> None:
    given: dict[str, Any] = {
        "a": ["{{ slot }}", 1, None, True, {"{{ slot }}": "{{ slot.strftime('%Y') }}"}],
        "b": 1.5,
    }

    assert macros.fill(given, _SLOT) == {
        "a": ["2026-03-01T18:07:05Z", 1, None, True, {"{{ slot }}": "2026"}],
        "b": 1.5,
    }
    assert given["a"][0] == "{{ slot }}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{{ }}", "MacroUnknown"),
        ("{{ slots }}", "MacroUnknown"),
        ("{{ Slot }}", "MacroUnknown"),
        ("{{ slot.year }}", "MacroUnknown"),
        ("{{ slot.strftime(%Y) }}", "MacroUnknown"),
        ("{{ slot.strftime('%Y\") }}", "MacroUnknown"),
        ("{{ slot.strftime('%Y').__class__ }}", "MacroUnknown"),
        ("{{ slot.strftime('a' + 'b') }}", "MacroUnknown"),
        ("{{ slot.__class__ }}", "MacroUnknown"),
        ("{{ workflow.uid }}", "MacroUnknown"),
        ("fine {{ slot }} and {{ not }}", "MacroUnknown"),
        ("{{ slot.strftime('%Q') }}", "MacroFormatInvalid"),
        ("{{ slot.strftime('%') }}", "MacroFormatInvalid"),
        ("{{ slot.strftime('%-d') }}", "MacroFormatInvalid"),
        ("{{ slot", "MacroNotClosed"),
        ("{{ slot }} {{", "MacroNotClosed"),
    ],
)
def test_what_is_refused_when_it_is_written(text: str, code: str) -> None:
    for parameters in (text, {"name": [text]}):
        with pytest.raises(BadInputError) as caught:
            macros.check(parameters)

        assert caught.value.code == code
        assert caught.value.hint


@pytest.mark.parametrize("directive", "YymdejHIMSaAbBpuwGVFTR%")
@given(days=st.integers(0, 20_000), seconds=st.integers(0, 86_399))
def test_formats_are_those_of_the_standard_library_in_english(
    directive: str, days: int, seconds: int
) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=days, seconds=seconds)

    assert macros.strftime(at, f"<%{directive}>") == at.strftime(f"<%{directive}>")


@pytest.mark.parametrize("text", ["{{$.scheduledTime.strftime('%Y')}}", "{{ $.currentTime }}"])
def test_what_a_pipeline_fills_in_itself_is_left_and_found(text: str) -> None:
    assert macros.fill({"in": [f"{text} {{{{ slot }}}}"]}, _SLOT) == {
        "in": [f"{text} {macros.fill('{{ slot }}', _SLOT)}"]
    }
    assert macros.find_foreign({"a": 1, "in": ["{{ slot }}", f"x {text}"]}) == text
    assert macros.find_foreign({"a": None, "in": ["{{ slot }}"]}) == ""
