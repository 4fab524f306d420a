from __future__ import annotations

import pytest

from infra.workloads.redaction import redactor


@pytest.mark.parametrize(
    ("secrets", "line", "told"),
    [
        ((), "a line", "a line"),
        (("secret-1",), "secret-1 and secret-1", "*** and ***"),
        (("secret-1",), "SECRET-1 secret_1", "SECRET-1 secret_1"),
        (("secret", "secret-long"), "secret-long secret", "*** ***"),
        (("first-line\nsecond-line\n",), "> second-line", "> ***"),
        (("a.b*c(d",), "a.b*c(d axbyc(d", "*** axbyc(d"),
        (("true", "", "  "), "true   ", "true   "),
    ],
)
def test_what_is_told(secrets: tuple[str, ...], line: str, told: str) -> None:
    assert redactor(secrets)(line) == told
