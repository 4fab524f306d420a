"""What the parameters of schedules mean."""

from __future__ import annotations

from typing import Any

import pytest

from registry.schedules import schedules

DAY = "{{ slot.strftime('%F') }}"


@pytest.mark.parametrize(
    ("told", "value", "may"),
    [
        ("a", "a", True), ("a", "b", False), ("", "", True), (None, "a", False), (5, "5", False),
        (f"exp-{DAY}", "exp-2027-01-01", True), (f"exp-{DAY}", "exp2027", False),
        (f"{DAY}-exp", "2027-exp", True), (f"{DAY}-exp", "2027-exp2", False),
        (f"a{DAY}b{DAY}c", "a1b2c", True), (f"a{DAY}b{DAY}c", "a1c", False),
        (f"ab{DAY}bc", "abc", False), (f"a{DAY}b{DAY}b", "ab", False),
        (f"a.{DAY}", "ab2027", False), (DAY, "anything\nat all", True), ("{{ slot", "a", False),
    ],
)  # fmt: skip
def test_a_macro_may_be_anything(told: Any, value: str, *, may: bool) -> None:
    assert schedules.may_be(told, value) == may
