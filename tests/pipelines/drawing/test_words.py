"""The words of a drawing."""

from __future__ import annotations

from pipelines.drawing import words


def test_a_state_that_has_no_look_is_its_own_word() -> None:
    assert (words.state("SUCCEEDED"), words.state("ODD")) == ("Succeeded", "Odd")
    assert words.format_counts({"ODD": 1, "FAILED": 2, "SUCCEEDED": 94}) == (
        "94 succeeded, 2 failed, 1 odd"
    )
