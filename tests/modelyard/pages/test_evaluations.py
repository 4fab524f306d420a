"""The page of an evaluation: its metrics, classes, slices, confusion matrix and curves."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.modelyard.pages import evaluated
from tests.modelyard.pages.conftest import OTHER, RUN, World, tracked

HOSTILE = "<script>alert(1)</script>"
QUOTED = "\"' onload='alert(1)"


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")


@pytest.fixture
def page(world: World, client: TestClient) -> Any:
    world.exist(flow="evaluate", state="COMPLETE", is_final=True, mlflow_run_id="m")
    return lambda asked="": client.get(f"/runs/{RUN}{asked}").text


def cells(page: str, caption: str) -> list[list[str]]:
    """The texts of a table's rows."""
    table = page.split(f"<caption>{caption}</caption>")[1].split("</table>", maxsplit=1)[0]
    return [re.findall(r"<t[hd][^>]*>(?:<a [^>]*>)?([^<]*)", row)
            for row in re.findall(r"<tr.*?</tr>", table)]  # fmt: skip


class _Elements(HTMLParser):
    """Counts scripts, and collects the names of all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attrs}


def check_harmless(page: str) -> None:
    """Check that nothing of a page runs, or is a style, but what its files have."""
    found = _Elements()
    found.feed(page)
    assert found.scripts == 1
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]


class TestClassification:
    @pytest.fixture(autouse=True)
    def _binary(self, world: World, page: Any) -> None:
        missing = {"count": "missing_targets", "file": "a.csv", "row": 7, "reason": "No value."}
        result = evaluated.classified(
            ["no", "yes"], remarks=["1 record has no true value."], examples=[missing]
        )
        result["metrics"]["f1"] = None
        result["undefined"]["f1"] = "It is undefined for every class."
        evaluated.keep(world, result, evaluated.curves(["no", "yes"]))

    def test_what_was_evaluated_is_told(self, page: Any) -> None:
        shown = page()

        assert (
            '<dt>Model</dt><dd><a href="http://mlflow/#/models/churn/versions/3">churn/3</a>'
            in shown
        )
        assert "<dt>Data</dt><dd>s3://data/in (1 file, 2,048 bytes)</dd>" in shown
        assert "<dt>Target</dt><dd>churned</dd>" in shown
        assert "<dt>Records</dt><dd>8 of 9 evaluated</dd>" in shown
        assert '<a href="http://mlflow/m1">Metrics in MLflow</a>' in shown
        assert "1 record has no true value." in shown
        assert cells(shown, "Records that are left out, or odd: the first of each kind") == [
            ["File", "Row", "Reason"], ["a.csv", "7", "No value."],
        ]  # fmt: skip

    def test_metrics_have_their_means_and_why_they_are_undefined(self, page: Any) -> None:
        shown = page()
        rows = cells(shown, "Of all records; the value is the mean over classes")

        assert rows[0] == ["Metric", "Value", "Weighted", "Micro"]
        assert rows[1] == ["accuracy", "0.7500", "", ""]
        assert ["roc_auc", "0.7500", "0.7500", "0.7500"] in rows
        assert ["f1", "undefined", "0.7500", "0.7500"] in rows
        assert "f1: It is undefined for every class." in shown

    def test_classes_have_their_own(self, page: Any) -> None:
        rows = cells(page(), "Each class against the rest")

        assert rows[0] == ["Class", "Records", *evaluated.OF_CLASS]
        assert rows[1:] == [["no", "4", *["0.7500"] * 5], ["yes", "4", *["0.7500"] * 5]]

    def test_the_matrix_is_shaded_by_shares(self, page: Any) -> None:
        shown = page()

        assert '<td class="shade-7 right" title="3 of no predicted as no, 75.0 %">3</td>' in shown
        assert '<td class="shade-3" title="1 of no predicted as yes, 25.0 %">1</td>' in shown
        assert "no class" not in shown

    def test_curves_are_drawn(self, page: Any) -> None:
        shown = page()

        assert shown.count("<figure") == 3
        roc = shown.split("<figure")[1]
        assert 'class="line line-0" points="44,276 44,209 194,75 344,8"><title>no</title>' in roc
        assert "ROC AUC 0.7500, PR AUC 0.7500" in shown
        assert "By threshold: yes" in shown
        plots = "http://mlflow/#/experiments/e1/runs/m/artifacts/evaluation/roc.html?"
        assert f'<a href="{plots}' in shown

    def test_calibration_is_drawn_beside_the_ideal(self, world: World, page: Any) -> None:
        assert ">Calibration</figcaption>" not in page()  # an earlier version has none
        found = {"probabilities": [0.25, 0.75], "shares": [0.5, 1], "records": [3, 5]}
        curves = evaluated.curves(["no", "yes"])
        curves["calibration"] = dict.fromkeys(["no", "yes"], found)
        evaluated.keep(world, evaluated.classified(["no", "yes"]), curves)

        (shown,) = (one for one in page().split("<figure") if ">Calibration</figcaption>" in one)

        assert 'class="line ideal" points="44,276 344,8"' in shown
        assert shown.count('points="119,142 269,8"') == 2

    def test_a_class_may_be_chosen(self, page: Any) -> None:
        assert f'<a href="/runs/{RUN}?class=no#curves">no</a>' in page()
        shown = page("?class=no")

        assert "Curves of no</h2>" in shown
        assert "By threshold: no" in shown
        assert shown.split("<figure")[1].count("<polyline") == 1
        assert '<tr aria-current="true"><th scope="row"><a' in shown
        assert f'<a href="/runs/{RUN}#curves">Curves of all classes</a>' in shown

    def test_one_that_is_none_is_not(self, page: Any) -> None:
        assert page(f"?class={HOSTILE}") == page()

    def test_its_metrics_are_not_listed_again(self, world: World, page: Any) -> None:
        world.tracked_as["m"] = tracked(metrics={"pr_auc/yes": 0.123456})

        assert "0.123456" not in page()


def test_metrics_have_their_intervals(world: World, page: Any) -> None:
    intervals = {"accuracy": [0.7, 0.81235], "f1/yes": [0, 1]}
    evaluated.keep(world, evaluated.classified(["no", "yes"], intervals=intervals))
    rows = cells(page(), "Of all records; the value is the mean over classes")

    assert rows[0] == ["Metric", "Value", "95 % interval", "Weighted", "Micro"]
    assert rows[1] == ["accuracy", "0.7500", "0.7000 to 0.8124", "", ""]
    assert ["f1", "0.7500", "", "0.7500", "0.7500"] in rows


class TestRegression:
    def test_it_has_neither_classes_nor_curves(self, world: World, page: Any) -> None:
        evaluated.keep(world, evaluated.regressed())
        shown = page()

        assert cells(shown, "Of all records") == [
            ["Metric", "Value"], ["mae", "48.782"], ["rmsle", "undefined"],
        ]  # fmt: skip
        assert "rmsle: A value is below 0." in shown
        assert not {"Classes</h2>", "Curves</h2>", "Confusion matrix</h2>"} & set(
            shown.split("<h2>")
        )
        assert "<figure" not in shown

    def test_errors_are_drawn(self, world: World, page: Any) -> None:
        evaluated.keep(world, evaluated.regressed(), evaluated.ERRORS)
        scatter, residuals, errors = page().split("<figure")[1:]

        assert "Predictions of 2 records" in scatter
        assert 'class="dots" d="M' in scatter
        assert 'class="line ideal"' in scatter
        # Up to the count at each edge, and down at the last: axes from -1 to 4, and from 0 to 2.
        assert 'points="44,276 44,142 104,142 104,8 344,8 344,276"' in residuals
        assert 'points="44,276 119,142 344,8"' in errors

    def test_slices_have_their_own_metrics(self, world: World, page: Any) -> None:
        slices = {
            "north": {"records": 5, "metrics": {"mae": 1.5}},
            "": {"records": 4, "metrics": {}},
        }
        evaluated.keep(world, evaluated.regressed(slice_field="region", slices=slices))

        assert cells(page(), "By the values of region") == [
            ["region", "Records", "mae"], ["north", "5", "1.5"], ["", "4", ""],
        ]  # fmt: skip


def test_names_of_data_and_models_are_escaped(world: World, page: Any) -> None:
    names = [HOSTILE, QUOTED]
    slices = {name: {"records": 4, "metrics": evaluated.figures(names)} for name in names}
    result = evaluated.classified(
        names, target_field=HOSTILE, slice_field=HOSTILE, slices=slices, remarks=[HOSTILE],
        examples=[{"count": HOSTILE, "file": HOSTILE, "row": 1, "reason": HOSTILE}],
        notes={"f1": HOSTILE}, undefined={"recall": HOSTILE},
        data={"uri": HOSTILE, "files": [], "sha256": HOSTILE},
    )  # fmt: skip
    evaluated.keep(world, result, evaluated.curves(names))
    world.tracked_as["m"] = tracked(tags={"modelyard.evaluated_model": f"models:/{HOSTILE}/1"})

    for shown in (page(), page(f"?class={HOSTILE}")):
        check_harmless(shown)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
        assert "http://mlflow/#/models/%3Cscript%3E" in shown


@pytest.mark.parametrize("size", [1000])
def test_a_page_is_bounded(world: World, page: Any, size: int) -> None:
    names = [f"{'x' * 300}{at}" for at in range(size)]
    slices = {f"s{at}": {"records": 4, "metrics": {"accuracy": 0.5}} for at in range(size)}
    curve = {**evaluated.CURVE, "thresholds": [0.5] * 500, "true_positives": [*range(500)],
             "false_positives": [*range(500)], "positives": 500, "negatives": 500}  # fmt: skip
    many = {"classes": {**dict.fromkeys(names, evaluated.CURVE), names[0]: curve}}
    result = evaluated.classified(names, slice_field="s", slices=slices, notes={"f1": "x" * 10**6})
    evaluated.keep(world, result, many)
    shown = page()

    assert len(shown) < 200_000
    assert "… and 950 more classes" in shown
    assert "… and 990 more classes: choose one" in shown
    assert "… and 985 more classes" in shown
    assert "… and 975 more slices" in shown
    assert "other classes" in shown
    assert len(cells(shown, "The most frequent confusions")) == 1 + 10
    chosen = page(f"?class={names[999]}")
    assert chosen.split("<figure")[1].count("<polyline") == 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"\xff", b"{}", b"<script>alert(1)</script>",
        json.dumps(evaluated.classified(["a", "b"], records=-1)).encode(),
        json.dumps(evaluated.classified(["a", "b"], records=10**400)).encode(),
        json.dumps(evaluated.classified(["a", "b"], metrics={"f1": float("nan")})).encode(),
        json.dumps(
            evaluated.classified(["a"], confusion_matrix={"classes": ["a"], "counts": [[1]]})
        ).encode(),
    ],
)  # fmt: skip
def test_what_is_no_result_is_not_shown(world: World, page: Any, content: bytes) -> None:
    evaluated.keep(world, content)
    shown = page()

    assert "The results are not shown. MLflow has other files there." in shown
    assert "<h2>Metrics" not in shown


@pytest.mark.parametrize(
    "broken", [{"thresholds": []}, {"thresholds": ["a", 1, 1]}, {"positives": None}]
)
def test_what_are_no_curves_are_not_drawn(world: World, page: Any, broken: dict[str, Any]) -> None:
    one = {"classes": {"a": {**evaluated.CURVE, **broken}}, "micro": None}
    evaluated.keep(world, evaluated.classified(["a", "b"]), one)

    assert "MLflow has other files there." in page()


@pytest.mark.parametrize("broken", [{"counts": []}, {"targets": [1]}, {"quantiles": "many"}])
def test_what_are_no_errors_are_not_drawn(world: World, page: Any, broken: dict[str, Any]) -> None:
    evaluated.keep(
        world, evaluated.regressed(), {"errors": {**evaluated.ERRORS["errors"], **broken}}
    )

    assert "MLflow has other files there." in page()


def test_results_that_are_missing_or_too_large_are_a_notice(
    world: World, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tracked_as["m"] = tracked(metrics={"accuracy": 0.5})
    assert "MLflow has no results, or too large ones." in page()
    assert "<dt>accuracy</dt>" in page()

    evaluated.keep(world, b" " * (33 * 2**20))
    assert "MLflow has no results, or too large ones." in page()


def test_while_mlflow_is_silent_the_rest_is_shown(world: World, page: Any) -> None:
    world.deaf = True

    assert "The results are not shown. MLflow does not answer." in page()
    assert "a run" in page()


class TestInference:
    @pytest.fixture(autouse=True)
    def _predicting(self, world: World) -> None:
        world.exist(flow="evaluate", name="mine", parameters={"model": "churn@champion"})
        world.exist(
            run=OTHER, flow="batch-inference", name=f"its {HOSTILE}", state="RUNNING",
            tags=(f"evaluation:{RUN}",), evaluation_id=RUN,
        )  # fmt: skip

    def test_it_is_linked_while_it_runs(self, client: TestClient) -> None:
        shown = client.get(f"/runs/{RUN}").text

        assert f'<dt>Batch inference</dt><dd><a href="/runs/{OTHER}">its &lt;script&gt;' in shown
        assert "<dt>Model</dt>" in shown
        assert "churn@champion" in shown
        assert "The results are not shown" not in shown

    @pytest.mark.parametrize(
        ("metrics", "shown"),
        [
            ({"records": 1200.0, "records_left": 4800.0, "records_per_second": 40.0},
             "1,200 of 6,000 records, about 2 min left"),
            ({"records": 6000.0, "records_left": 0.0, "records_per_second": 40.0},
             "6,000 of 6,000 records"),
            ({}, ""),
        ],
    )  # fmt: skip
    def test_it_says_how_far_it_is(
        self, world: World, client: TestClient, metrics: dict[str, float], shown: str
    ) -> None:
        world.known[OTHER] = world.known[OTHER].model_copy(update={"mlflow_run_id": "child"})
        world.tracked_as["child"] = tracked(metrics=metrics)

        page = client.get(f"/runs/{RUN}").text

        found = re.findall(r'RUNNING</span>(?: <span class="about">([^<]*)</span>)?</dd>', page)
        assert found == [shown]

    def test_it_leads_back(self, world: World, client: TestClient) -> None:
        back = f'<dt>Predicts for</dt><dd><a href="/runs/{RUN}">mine</a></dd>'
        assert back in client.get(f"/runs/{OTHER}").text

        del world.known[RUN]
        assert f'<a href="/runs/{RUN}">{RUN}</a>' in client.get(f"/runs/{OTHER}").text
