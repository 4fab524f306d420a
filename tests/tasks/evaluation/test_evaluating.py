"""Evaluations of files and of the outputs that a batch inference wrote for them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from infra.errors import BadInputError, ModelyardError, RunFailedError
from tasks.evaluation import evaluating, joined_records, row_sample
from tasks.evaluation.evaluating import EvaluationFolders
from tasks.evaluation.evaluation_request import Evaluation
from tests.tasks.evaluation.conftest import Evaluate


def test_every_record_is_counted_once(evaluate: Evaluate) -> None:
    lines = ["x,y", "1,yes", "2,no", "3,perhaps", "4,", "5", "6,yes", "7,no"]

    found = evaluate({"a.csv": ("\n".join(lines), {0: "yes", 1: "yes", 2: "no", 6: "none"})})

    wanted = {
        "records": 7, "evaluated": 3, "unreadable": 1, "missing_targets": 1, "unseen_targets": 1,
        "failed": 1, "unknown_predictions": 1,
    }  # fmt: skip
    assert {name: many for name, many in found["counts"].items() if many} == wanted
    assert found["unseen_targets"] == {"perhaps": 1}
    assert found["metrics"]["accuracy"] == pytest.approx(1 / 3)
    assert found["confusion_matrix"]["counts"] == [[0, 1, 1], [0, 1, 0]]
    assert len(found["remarks"]) == 5
    assert found["undefined"]["roc_auc"] == "The model has no probabilities."


def test_files_of_json_lines_are_joined_by_row(evaluate: Evaluate) -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 900)
    scores = np.clip(truth * 0.3 + random.uniform(0, 0.7, 900), 0, 1)
    files = {}
    for number, name in enumerate(("a.jsonl", "sub/b.jsonl")):
        own = slice(450 * number, 450 * (number + 1))
        text = "".join(
            json.dumps({"x": at, **({"y": int(one)} if at % 2 else {"y": ["no", "yes"][one]})})
            + "\n"
            for at, one in enumerate(truth[own])
        )
        results = {
            at: {"prediction": int(one > 0.5), "probabilities": [1 - one, one]}
            for at, one in enumerate(scores[own].tolist())
        }
        files[name] = (text, results)

    found = evaluate(files)

    metrics = found["metrics"]
    low, high = found["intervals"]["roc_auc"]
    assert low < metrics["roc_auc"] < high
    assert metrics["roc_auc"] == pytest.approx(oracle.roc_auc_score(truth, scores), rel=1e-9)
    assert metrics["accuracy"] == pytest.approx(np.mean((scores > 0.5) == truth))
    assert [one["name"] for one in found["data"]["files"]] == ["a.jsonl", "sub/b.jsonl"]


@pytest.mark.parametrize(
    "results",
    [
        {0: {"probabilities": [0.2, 0.8]}, 1: {"probabilities": [0.9, 0.1]}},
        {0: {"prediction": [0.2, 0.8]}, 1: {"prediction": [0.9, 0.1]}},
        {0: {"prediction": [1], "probabilities": [0.8]}, 1: {"prediction": [0],
                                                             "probabilities": [0.1]}},
        {0: {"prediction": "yes", "probabilities": 0.8},
         1: {"prediction": "no", "probabilities": 0.1}},
    ],
    ids=["no prediction", "the probabilities alone", "lists of one", "of the second class"],
)  # fmt: skip
def test_forms_of_answers(evaluate: Evaluate, results: dict[int, Any]) -> None:
    found = evaluate({"a.csv": ("x,y\n1,yes\n2,no\n", results)})

    assert found["metrics"]["accuracy"] == 1
    assert found["metrics"]["roc_auc"] == 1
    assert found["metrics"]["log_loss"] == pytest.approx(-np.log([0.8, 0.9]).mean())


def test_an_order_of_classes_that_is_not_the_models_is_remarked(evaluate: Evaluate) -> None:
    results = {at: {"prediction": "yes", "probabilities": [0.8, 0.2]} for at in range(4)}

    found = evaluate({"a.csv": ("x,y\n" + "1,yes\n" * 4, results)})

    assert "class_names may not be in the model's order" in found["remarks"][-1]


def test_a_regression_counts_what_is_no_number(evaluate: Evaluate) -> None:
    text = "".join(json.dumps({"y": one}) + "\n" for one in (1, 2.5, None, "many", "3", 4, 5))
    results = {0: 2, 1: 2.5, 2: 1, 3: 1, 4: 1, 5: None}

    found = evaluate({"a.jsonl": (text, results)}, task="regression", class_names=[])

    wanted = {
        "records": 7, "evaluated": 3, "missing_targets": 1, "unseen_targets": 1, "failed": 1,
        "missing_predictions": 1,
    }  # fmt: skip
    assert {name: many for name, many in found["counts"].items() if many} == wanted
    assert found["metrics"]["mae"] == pytest.approx(1)


def test_records_of_other_forms_have_their_own_predictions(evaluate: Evaluate) -> None:
    records = [{"y": at % 2, **({"x": 1} if at % 3 else {})} for at in range(20)]
    text = "".join(json.dumps(one) + "\n" for one in records)

    found = evaluate(
        {"a.jsonl": (text, {at: at % 2 for at in range(20) if at != 7})}, class_names=["0", "1"]
    )

    assert (found["counts"]["evaluated"], found["counts"]["failed"]) == (19, 1)
    assert found["metrics"]["accuracy"] == 1


def test_slices(evaluate: Evaluate) -> None:
    text = "x,y,where\n1,yes,a\n2,no,a\n3,no,b\n4,yes,\n"

    found = evaluate({"a.csv": (text, dict.fromkeys(range(4), "yes"))}, slice_field="where")

    shown = {value: one["metrics"]["accuracy"] for value, one in found["slices"].items()}
    assert shown == {"a": 0.5, "b": 0, "(missing)": 1}
    assert [one["records"] for one in found["slices"].values()] == [2, 1, 1]
    assert found["metrics"]["accuracy"] == 0.5


def test_checksums_differ_with_the_data(evaluate: Evaluate) -> None:
    results = {0: "yes"}
    first = evaluate({"a.csv": ("x,y\n1,yes\n", results)})
    other_target = evaluate({"a.csv": ("x,y\n1,no\n", results)})
    other_field = evaluate({"a.csv": ("x,y\n2,yes\n", results)})

    assert first["targets_sha256"] != other_target["targets_sha256"]
    assert first["targets_sha256"] == other_field["targets_sha256"]
    assert len({one["data"]["sha256"] for one in (first, other_target, other_field)}) == 3


@pytest.mark.parametrize(
    ("text", "results", "more", "code"),
    [
        ("x,z\n1,2\n", {0: "yes"}, {}, "TargetMissing"),
        ("x,y\n1,yes\n", {0: "yes"}, {"slice_field": "z"}, "SliceFieldMissing"),
        ("x,y\n1,maybe\n2,\n", {0: "yes", 1: "yes"}, {}, "NothingToEvaluate"),
        ("x,y\n1,yes\n", {0: "yes", 7: "no"}, {}, "ResultsDamaged"),
        ("x,y\n1,yes\n", {-1: "no", 0: "yes"}, {}, "ResultsDamaged"),
        ("x,y\n1,yes\n", {0: {"probabilities": [0.1, 0.2, 0.7]}}, {}, "ClassNamesMismatch"),
        ("x,y\n1,yes\n", {0: "yes"}, {"prediction_field": "predicted"}, "OutputFieldMissing"),
        ("x,y\n1,yes\n", {0: "yes"}, {"probabilities_field": "scores"}, "OutputFieldMissing"),
        ("x,y\n1,yes\n", {0: {"label": "yes"}}, {}, "OutputFieldMissing"),
        ("x,y\n" + "".join(f"{at},yes\n" for at in range(21)), dict.fromkeys(range(21), "yes"),
         {"slice_field": "x"}, "SlicesTooMany"),
    ],
)  # fmt: skip
def test_faults(
    evaluate: Evaluate, text: str, results: dict[int, Any], more: dict[str, Any], code: str
) -> None:
    with pytest.raises(ModelyardError) as raised:
        evaluate({"a.csv": (text, results)}, **more)

    assert raised.value.code == code
    assert raised.value.hint
    if code == "NothingToEvaluate":
        assert "1 of 2 records have no true value" in raised.value.message


def test_results_that_are_damaged_or_missing(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate({"a.csv": ("x,y\n1,yes\n", {0: "yes"})})
    request = Evaluation(input_format="csv", target_field="y", class_names=["no", "yes"])
    (tmp_path / "bad.jsonl").write_text("{broken\n")
    with pytest.raises(RunFailedError) as raised:
        list(joined_records.read(tmp_path / "in/a.csv", tmp_path / "bad.jsonl", "a", request))
    assert raised.value.code == "ResultsDamaged"

    (tmp_path / "in" / "more.csv").write_text("x,y\n1,yes\n")
    with pytest.raises(RunFailedError) as raised:
        evaluate({"a.csv": ("x,y\n1,yes\n", {0: "yes"})})
    assert raised.value.code == "ResultsDamaged"


def test_an_input_without_records_has_no_fields_to_check(tmp_path: Path) -> None:
    request = Evaluation(input_format="jsonl", target_field="y")
    (tmp_path / "a.jsonl").write_text("{broken\n")
    joined_records.check_fields(tmp_path / "a.jsonl", "a", request)
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(BadInputError, match="has no field 'y'; it has 'x'"):
        joined_records.check_fields(tmp_path / "a.jsonl", "a", request)


def test_a_file_without_a_header_is_refused_before_anything_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    request = Evaluation(input_format="csv", target_field="target")
    with pytest.raises(BadInputError, match=r"a\.csv cannot be read as csv: it has no header"):
        joined_records.check_fields(tmp_path / "a.csv", "a.csv", request)
    (tmp_path / "a.csv").write_text("x,targets\n1,2\n")
    with pytest.raises(BadInputError, match="Did you mean targets") as raised:
        joined_records.check_fields(tmp_path / "a.csv", "a.csv", request)
    assert raised.value.code == "TargetMissing"


class TestSample:
    def test_it_is_the_same_whatever_the_batches(self) -> None:
        ids = row_sample.hashes("a", np.arange(5000))
        made = []
        for batch in (13, 900):
            sample = row_sample.RowSample(100)
            for at in range(0, 5000, batch):
                own = slice(at, at + batch)
                sample.add(ids[own], {"target": np.arange(5000)[own]})
            made.append(sample.columns())

        assert len(np.unique(ids)) == 5000
        assert made[0]["target"].tolist() == made[1]["target"].tolist()
        assert made[0]["id"].tolist() == np.sort(ids)[:100].tolist()

    def test_it_is_written_and_read(self, tmp_path: Path) -> None:
        columns = {"id": np.arange(3, dtype=np.uint64), "target": np.array([0.5, 1, 2])}

        row_sample.write(columns, tmp_path / "sample.npz")

        found = row_sample.read(tmp_path / "sample.npz")
        assert {name: one.tolist() for name, one in found.items()} == {
            "id": [0, 1, 2], "target": [0.5, 1, 2],
        }  # fmt: skip
        assert row_sample.RowSample(3).columns()["id"].size == 0

    def test_what_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not a zip file"):
            row_sample.parse(b"")
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("target.npy", bytes(65 * 2**20))
        with pytest.raises(ValueError, match="more than"):
            row_sample.parse(written.getvalue())

    def test_it_is_smaller_with_many_classes(self) -> None:
        assert row_sample.most_rows(0) == row_sample.most_rows(2) == 50_000
        assert row_sample.most_rows(50) == 20_000


def test_too_many_slices_are_found_before_anything_is_predicted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = "\n".join(f"{at},yes" for at in range(21))
    (tmp_path / "in" / "a.csv").write_text(f"x,y\n{names}\n")
    request = Evaluation(
        input_uri=str(tmp_path / "in"), input_format="csv", target_field="y", slice_field="x",
        class_names=["no", "yes"], output_uri=str(tmp_path / "out"),
    )  # fmt: skip
    chosen = evaluating.select(request)

    with pytest.raises(RunFailedError) as raised:
        evaluating.check_first_file(request, chosen, EvaluationFolders(tmp_path / "run"))
    assert raised.value.code == "SlicesTooMany"


def test_too_many_slices_of_later_files_are_found_as_well(evaluate: Evaluate) -> None:
    rows = [f"{at},yes\n" for at in range(24)]
    parts = {"a.csv": rows[:12], "b.csv": rows[12:]}

    with pytest.raises(RunFailedError) as raised:
        evaluate(
            {name: ("x,y\n" + "".join(part), dict.fromkeys(range(12), "yes"))
             for name, part in parts.items()},
            slice_field="x",
        )  # fmt: skip
    assert raised.value.code == "SlicesTooMany"


def test_predictions_of_another_run_are_not_evaluated(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate({"a.csv": ("x,y\n1,yes\n", {0: "yes"})})
    request = Evaluation(
        input_uri=str(tmp_path / "in"), input_format="csv", target_field="y",
        class_names=["no", "yes"], output_uri=str(tmp_path / "out"),
    )  # fmt: skip
    folders, chosen = EvaluationFolders(tmp_path / "run"), evaluating.select(request)
    with pytest.raises(RunFailedError, match="not those of the evaluation's own"):
        evaluating.predicted(request, "mine")
    file = {"input": "a.csv", "sha256": "0" * 64}
    manifest = {"flow_run_id": "mine", "rows": 1, "files": [file]}
    (tmp_path / "out" / "predictions" / "manifest.json").write_text(json.dumps(manifest))

    predictions = evaluating.predicted(request, "mine")
    with pytest.raises(RunFailedError) as raised:
        evaluating.score(request, chosen, folders, predictions, lambda: None, lambda _: None)
    assert raised.value.code == "ResultsDamaged"
    with pytest.raises(RunFailedError):
        evaluating.predicted(request, "another's")


def test_input_that_was_changed_between_attempts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.csv"
    file.write_text("x,y\n1,yes\n")
    request = Evaluation(
        input_uri=str(tmp_path / "in"), input_format="csv", target_field="y",
        class_names=["no", "yes"], output_uri=str(tmp_path / "out"),
    )  # fmt: skip
    folders = EvaluationFolders(tmp_path / "run")
    folders.root.mkdir()
    for _ in range(2):
        evaluating.check_unchanged(request, evaluating.select(request), folders)
    os.utime(file, ns=(1, 1))

    with pytest.raises(BadInputError) as raised:
        evaluating.check_unchanged(request, evaluating.select(request), folders)
    assert raised.value.code == "InputChanged"
    file.unlink()
    (tmp_path / "in" / "b.csv").write_text("x,y\n1,yes\n")
    with pytest.raises(BadInputError):
        evaluating.check_unchanged(request, evaluating.select(request), folders)
