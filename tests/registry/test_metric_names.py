"""Names of metrics, of any texts."""

from __future__ import annotations

import pytest
from mlflow.utils.validation import _validate_metric_name

from registry import metric_names


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yes", "yes"), ("a/b", "a_b"), (".", "_"), ("..", "_"), ("...", "_"), ("", "_"),
        ("1.5", "1.5"), ("길", "길"), ("a\nb", "a_b"), ("x" * 300, "x" * 100),
    ],
)  # fmt: skip
def test_any_text_is_a_part_of_a_name(text: str, wanted: str) -> None:
    assert metric_names.part(text) == wanted
    _validate_metric_name(f"share/{wanted}")


def test_a_name_that_is_taken_gets_a_number() -> None:
    taken = {"a", "a 2", "b"}
    assert metric_names.unique("c", taken) == "c"
    assert metric_names.unique("a", taken) == "a 3"
    assert metric_names.unique("b", taken, "_") == "b_2"
