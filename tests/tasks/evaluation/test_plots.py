"""Plots of an evaluation, which are pages of their own."""

from __future__ import annotations

import json
import re

import pytest

from tasks.evaluation.plots import plots

CURVE = {
    "positives": 4, "negatives": 2, "thresholds": [0.9, 0.5, 0.1], "true_positives": [1, 3, 4],
    "false_positives": [0, 1, 2],
}  # fmt: skip
MATRIX = {"classes": ["a</script>", "b"], "counts": [[3, 1, 0], [0, 2, 0]]}


def lines(page: str) -> list[dict[str, object]]:
    found = re.search(r'id="lines">(.*?)</script>', page)
    assert found
    parsed: list[dict[str, object]] = json.loads(found[1])
    return parsed


def test_every_curve_is_drawn_with_the_values_of_its_points() -> None:
    found = plots(
        {"confusion_matrix": MATRIX},
        {"classes": {"a</script>": CURVE, "b": CURVE}, "micro": CURVE},
    )

    assert set(found) == {
        "confusion-matrix.html", "roc.html", "precision-recall.html", "thresholds.html",
    }  # fmt: skip
    first, second = lines(found["roc.html"])
    assert (first["name"], second["name"]) == ("a</script>", "b")
    assert second["points"] == [[64, 476], [64, 361], [294, 131], [524, 16]]
    assert isinstance(second["texts"], list)
    assert second["texts"][2] == (
        "threshold 0.5, recall 0.7500, false positive rate 0.5000, precision 0.7500"
    )
    assert lines(found["precision-recall.html"])[1]["points"][0] == [179, 16]  # type: ignore[index]
    assert [one["name"] for one in lines(found["thresholds.html"])][2:] == [
        "precision of b", "recall of b",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["confusion-matrix.html", "roc.html"])
def test_names_are_escaped_and_nothing_is_fetched(name: str) -> None:
    page = plots({"confusion_matrix": MATRIX}, {"classes": {"a</script>": CURVE}})[name]

    assert "a</script>" not in page.replace('"lines">', "")
    assert "a&lt;/script&gt;" in page
    assert "http" not in page


def test_without_curves_there_is_the_matrix_alone_and_of_a_regression_nothing() -> None:
    assert set(plots({"confusion_matrix": MATRIX}, {})) == {"confusion-matrix.html"}
    assert plots({"metrics": {}}, {}) == {}
