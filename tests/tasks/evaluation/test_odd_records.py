"""Odd records are counted and named, and never stop the others."""

from __future__ import annotations

import collections
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import RunFailedError
from tasks.evaluation import bootstrap
from tests.tasks.evaluation.conftest import Evaluate

Lines = list[str]
DIGITS = "9" * 5000
SURROGATE = "\\ud800"


@pytest.fixture(autouse=True)
def _no_warnings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(bootstrap, "_OWN_REPLICATES", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def counts(found: dict[str, Any]) -> dict[str, int]:
    return {name: many for name, many in found["counts"].items() if many}


def named(found: dict[str, Any]) -> list[tuple[str, int, str]]:
    return [(one["count"], one["row"], one["reason"]) for one in found["examples"]]


def test_odd_targets_of_json_are_counted(evaluate: Evaluate) -> None:
    odd = [DIGITS, f'"{SURROGATE}"', "1e400", "true", '{"a":[1]}', "[" * 900 + "]" * 900, "null",
           '"yes"']  # fmt: skip
    text = "".join(f'{{"y":{one}}}\n' for one in odd)

    found = evaluate({"a.jsonl": (text, dict.fromkeys(range(1, 8), "yes"))})

    assert counts(found) == {
        "records": 8, "evaluated": 1, "unreadable": 1, "missing_targets": 1, "unseen_targets": 5,
    }  # fmt: skip
    assert sum(found["unseen_targets"].values()) == 5
    assert {"True", "inf", "\\ud800"} <= found["unseen_targets"].keys()
    assert ("unseen_targets", 1, "Its true value '\\ud800' is no class.") in named(found)
    assert ("missing_targets", 6, "It has no true value.") in named(found)
    assert "4300 digits" in named(found)[0][2]
    assert {one["file"] for one in found["examples"]} == {"a.jsonl"}
    assert found["remarks"][0] == (
        "1 of 8 lines are not records; the first one is row 0 of a.jsonl."
    )


def test_odd_targets_of_csv_are_counted(evaluate: Evaluate) -> None:
    text = f"x,y\n1,{DIGITS}\n2,1e400\n3,1\n4,0\n"
    results = dict.fromkeys(range(4), 1)

    found = evaluate({"a.csv": (text, results)}, class_names=["0", "1"])

    assert counts(found) == {"records": 4, "evaluated": 2, "unseen_targets": 2}
    assert found["metrics"]["accuracy"] == 0.5


def test_odd_slices_are_slices(evaluate: Evaluate) -> None:
    odd = [f'"{SURROGATE}"', "1e400", "[1]", '"b"']
    text = "".join(f'{{"y":"yes","where":{one}}}\n' for one in odd)

    found = evaluate({"a.jsonl": (text, dict.fromkeys(range(4), "yes"))}, slice_field="where")

    assert sorted(found["slices"]) == ["[1]", "\\ud800", "b", "inf"]


@pytest.mark.parametrize(
    ("probabilities", "missing"),
    [
        ([[0.2, 0.8], [0.9], [0.2, 0.3, 0.5], [], None, [0.1, None], [[0.3, 0.7]], 0.6, "x",
          {"a": 1}, [True, False], ["0.5", "0.5"], [0.4, [0.6]], [[[]]]], [2, 3, 4, 5, 8, 9, 13]),
        ([[0.2, 0.8], [[0.3, 0.7]]], []),
        ([[[0.2, 0.8]], [[0.3, 0.7]]], []),
        ([[0.2, 0.8], None], [1]),
        ([None, None, [0.5, 0.5]], [0, 1]),
    ],
    ids=["uneven", "some nested", "all nested", "one missing", "most missing"],
)  # fmt: skip
def test_odd_probabilities_are_counted(
    evaluate: Evaluate, probabilities: list[Any], missing: list[int]
) -> None:
    rows = len(probabilities)
    results = {
        at: {"prediction": "yes", "probabilities": one} for at, one in enumerate(probabilities)
    }
    text = "".join(json.dumps({"x": at, "y": "yes"}) + "\n" for at in range(rows))

    found = evaluate({"a.jsonl": (text, results)})

    assert found["counts"]["evaluated"] == rows
    assert found["counts"]["missing_probabilities"] == len(missing)
    assert found["metrics"]["accuracy"] == 1
    shown = [row for count, row, _ in named(found) if count == "missing_probabilities"]
    assert shown == missing[:5]
    if missing:
        assert found["undefined"]["log_loss"] == (
            f"{len(missing)} rows have no number as the probability of each class."
        )


def test_a_record_without_probabilities_has_no_most_probable_class(evaluate: Evaluate) -> None:
    results = {0: {"probabilities": [0.9, 0.1]}, 1: {"probabilities": None},
               2: {"probabilities": [None, 0.4]}, 3: {"probabilities": [0.5]}}  # fmt: skip

    found = evaluate({"a.csv": ("x,y\n" + "1,no\n" * 4, results)})

    assert found["confusion_matrix"]["counts"] == [[2, 0, 2], [0, 0, 0]]
    assert counts(found)["unknown_predictions"] == 2
    assert "contradictions" not in counts(found)


def test_a_prediction_depends_on_no_other_record(evaluate: Evaluate) -> None:
    results = {
        0: {"prediction": None, "probabilities": [0.9, 0.1]},
        1: {"prediction": "yes", "probabilities": [0.9, 0.1]},
        2: {"prediction": True, "probabilities": [0.9, 0.1]},
    }

    found = evaluate({"a.csv": ("x,y\n1,no\n2,yes\n3,no\n", results)})

    assert found["confusion_matrix"]["counts"] == [[1, 0, 1], [0, 1, 0]]


def test_batches_with_and_without_probabilities_are_one_evaluation(evaluate: Evaluate) -> None:
    files = {
        "a.csv": ("x,y\n1,no\n", {0: {"prediction": "no"}}),
        "b.csv": ("x,y\n1,yes\n", {0: {"prediction": "yes", "probabilities": [0.1, 0.9]}}),
    }

    found = evaluate(files)

    assert counts(found) == {"records": 2, "evaluated": 2, "missing_probabilities": 1}
    assert found["metrics"]["accuracy"] == 1


def test_predictions_that_orjson_refuses_are_read(evaluate: Evaluate) -> None:
    results = {0: "\ud800", 1: 10**30, 2: "yes"}

    found = evaluate({"a.csv": ("x,y\n1,yes\n2,yes\n3,yes\n", results)})

    assert counts(found) == {"records": 3, "evaluated": 3, "unknown_predictions": 2}
    assert named(found)[0] == ("unknown_predictions", 0, "Its prediction '\\ud800' is no class.")


@pytest.mark.parametrize("many", [1, 1500])
def test_a_model_of_other_classes_is_refused(evaluate: Evaluate, many: int) -> None:
    results = {at: {"prediction": "yes", "probabilities": [0.2, 0.3, 0.5]} for at in range(many)}

    with pytest.raises(RunFailedError, match="gives 3 probabilities") as raised:
        evaluate({"a.csv": ("x,y\n" + "1,yes\n" * many, results)})

    assert raised.value.code == "ClassNamesMismatch"


def test_sums_that_are_off_are_named(evaluate: Evaluate) -> None:
    results = {
        at: {"prediction": "yes", "probabilities": one}
        for at, one in enumerate([[0.2, 0.8], [0.2, 0.2], [-0.5, 1.5], [1e308, 1e308]])
    }

    found = evaluate({"a.csv": ("x,y\n" + "1,yes\n" * 4, results)})

    assert counts(found)["off_sums"] == 3
    assert named(found) == [
        ("off_sums", 1, "Its probabilities have the sum 0.4, the lowest is 0.2."),
        ("off_sums", 2, "Its probabilities have the sum 1, the lowest is -0.5."),
        ("off_sums", 3, "Its probabilities have the sum inf, the lowest is 1e+308."),
    ]
    assert found["undefined"]["log_loss"] == "The probabilities of 3 rows are off from the sum 1."


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "-", "", "N/A", "#N/A", "<NA>"])
def test_a_class_may_be_called_like_a_missing_value(evaluate: Evaluate, name: str) -> None:
    rows = [name, "yes", "n/a", name]
    text = "x,y\n" + "".join(f"{at},{one}\n" for at, one in enumerate(rows))
    results = {0: name, 1: "yes", 2: "yes", 3: "yes"}

    of_csv = evaluate({"a.csv": (text, results)}, class_names=[name, "yes"])

    assert counts(of_csv) == {"records": 4, "evaluated": 3, "missing_targets": 1}
    assert of_csv["confusion_matrix"]["counts"] == [[1, 1, 0], [0, 1, 0]]
    assert of_csv["metrics"][f"recall/{name}"] == 0.5


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "-", ""])
def test_such_a_class_is_read_of_json_as_well(evaluate: Evaluate, name: str) -> None:
    text = "".join(json.dumps({"y": one}) + "\n" for one in (name, "yes", None))

    found = evaluate({"a.jsonl": (text, {0: name, 1: "yes", 2: "yes"})}, class_names=[name, "yes"])

    assert counts(found) == {"records": 3, "evaluated": 2, "missing_targets": 1}
    assert found["metrics"]["accuracy"] == 1


class TestRegression:
    def test_odd_values_are_named_with_their_reasons(self, evaluate: Evaluate) -> None:
        odd = ["1", "1e400", "-Infinity", "[2]", '"many"', '"1_000"', "9" * 400, "null", "2", "3",
               "4", "5"]  # fmt: skip
        text = "".join(f'{{"y":{one}}}\n' for one in odd)
        results = dict.fromkeys(range(12), 1.0) | {8: None, 9: "many", 10: [4], 11: [1, 2]}

        found = evaluate({"a.jsonl": (text, results)}, task="regression", class_names=[])

        assert counts(found) == {
            "records": 12, "evaluated": 2, "missing_targets": 1, "unseen_targets": 6,
            "missing_predictions": 3,
        }  # fmt: skip
        beyond = "is not finite: beyond 1.8e308, the largest float."
        reasons = {row: reason for _, row, reason in named(found)}
        assert reasons[1] == f"Its true value inf {beyond}"
        assert reasons[2] == f"Its true value -inf {beyond}"
        assert reasons[3] == "Its true value [2] is not a number."
        assert reasons[4] == "Its true value 'many' is not a number."
        assert reasons[8] == "Its prediction None is not a number."
        assert reasons[11] == "Its prediction [1, 2] is not a number."
        assert found["metrics"]["mae"] == 0

    def test_an_overflow_is_a_reason_and_no_warning(self, evaluate: Evaluate) -> None:
        text = "x,y\n1,1e308\n2,-1e308\n3,1e-320\n"
        results = {0: -1e308, 1: 1e308, 2: 1.0}

        found = evaluate({"a.csv": (text, results)}, task="regression", class_names=[])

        for name in ("mae", "mape", "r2", "rmse"):
            assert found["metrics"][name] is None
            assert "beyond 1.8e308" in found["undefined"][name]
        assert (
            found["undefined"]["rmsle"] == "1 targets are below 0, and 1 predictions are below 0."
        )
        assert not found["intervals"]

    def test_targets_too_far_apart_have_no_variance(self, evaluate: Evaluate) -> None:
        text = "x,y\n1,1e300\n2,2e300\n"

        found = evaluate(
            {"a.csv": (text, {0: 1e300, 1: 2e300})}, task="regression", class_names=[]
        )

        assert (found["metrics"]["rmse"], found["metrics"]["r2"]) == (0, None)
        assert "beyond 1.8e308" in found["undefined"]["r2"]

    def test_targets_of_minus_one_have_no_rmsle(self, evaluate: Evaluate) -> None:
        text = "x,y\n1,-1\n2,3\n"

        found = evaluate({"a.csv": (text, {0: -1, 1: 3})}, task="regression", class_names=[])

        assert found["undefined"] == {
            "rmsle": "1 targets are below 0, and 1 predictions are below 0."
        }
        assert np.isfinite(found["metrics"]["mape"])


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=4)
ANY_NUMBER = (
    st.integers() | st.integers(10**400, 10**401) | st.floats(width=64) | st.booleans()
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | ANY_NUMBER | ANY_TEXT | st.sampled_from(["no", "yes", "1e999", "9" * 4400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=2),
    max_leaves=5,
)
RECORD = st.tuples(ANY_JSON, ANY_JSON, ANY_JSON | st.lists(ANY_NUMBER, min_size=2, max_size=2))


@pytest.mark.parametrize("task", ["classification", "regression"])
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(records=st.lists(RECORD, max_size=8))
def test_whatever_records_say_each_is_counted_once(
    evaluate: Evaluate, task: str, records: list[tuple[Any, Any, Any]]
) -> None:
    is_class = task == "classification"
    good = ("yes", "yes", [0.2, 0.8]) if is_class else (1.5, 2, None)
    rows = [good, *records]
    text = "".join(json.dumps({"y": target, "s": odd}) + "\n" for target, odd, _ in rows)
    results = {
        at: {"prediction": said, "probabilities": scores}
        for at, (_, said, scores) in enumerate(rows)
    }

    found = evaluate(
        {"a.jsonl": (text, results)}, task=task, class_names=["no", "yes"] if is_class else [],
        slice_field="s",
    )  # fmt: skip

    many = found["counts"]
    left_out = ("unreadable", "missing_targets", "unseen_targets", "missing_predictions")
    assert many["records"] == len(rows)
    assert many["evaluated"] + sum(many[name] for name in left_out) == len(rows)
    assert many["evaluated"] == found["records"]
    assert sum(one["records"] for one in found["slices"].values()) == found["records"]
    named_counts = collections.Counter(one["count"] for one in found["examples"])
    assert named_counts == {
        name: min(5, count) for name, count in many.items()
        if count and name not in {"records", "evaluated", "contradictions"}
    }  # fmt: skip
