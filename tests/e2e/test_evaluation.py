"""Model evaluation on the real stack, from the command."""

import json

import joblib
import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from tests.e2e.stack import wait_for

pytestmark = pytest.mark.e2e

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(size=(400, 3))
LABELS = np.where(ROWS[:, 0] + RANDOM.normal(0, 0.7, 400) > 0, "yes", "no")
REGIONS = np.array(["north", "south"])[(ROWS[:, 1] > 0).astype(int)]


def registered(stack, name, columns):
    """A model that sees the first ``columns`` fields well, and its next version."""
    folder = stack.home.with_name(f"{name}-{columns}")
    folder.mkdir()
    weights = np.eye(3)[:, :columns] @ np.ones(columns)
    found = LogisticRegression(C=0.5).fit(ROWS * weights, LABELS)
    joblib.dump(found, folder / "model.joblib")
    stack.do("model", "create", name, "--uri", str(folder), "--framework", "scikit-learn")
    return found


@pytest.fixture(scope="module")
def estimator(stack):
    return registered(stack, "answers", 3)


def written(folder):
    folder.mkdir()
    rows = [
        f"{a},{b},{c},{label},{region}"
        for (a, b, c), label, region in zip(ROWS.tolist(), LABELS, REGIONS, strict=True)
    ]
    head = ["a,b,c,answer,region"]
    (folder / "one.csv").write_text("\n".join(head + rows[:250]) + "\n")
    odd = ["1,2,3,maybe,north", "1,2,3,,north", "1,2"]
    (folder / "two.csv").write_text("\n".join(head + rows[250:] + odd) + "\n")
    return folder


def pairs(given):
    return [
        part
        for name, value in given.items()
        for part in ("-p", f"{name}={json.dumps(value) if isinstance(value, list) else value}")
    ]


def given_for(tmp_path, **others):
    return {
        "model": "answers/1", "class_names": ["no", "yes"], "input_uri": tmp_path / "in",
        "input_format": "csv", "target_field": "answer", "slice_field": "region",
        "drop_fields": ["region"], "output_uri": tmp_path / "out", **others,
    }  # fmt: skip


def check_comparison_and_gate(stack, tmp_path):
    """A second version, which is worse, does not take the alias of the first; a rule decides."""
    registered(stack, "answers", 1)
    given = given_for(tmp_path, name="worse", model="answers/2", output_uri=tmp_path / "worse")
    run = stack.do("run", "evaluate", *pairs(given))["flow_run_id"]
    stack.wait_for_state(run, "COMPLETE", timeout=120)

    found = stack.do("evaluation", "compare", "judged", "worse")
    assert [one["model"] for one in found["evaluations"]] == [
        "models:/answers/1", "models:/answers/2",
    ]  # fmt: skip
    difference = found["metrics"]["roc_auc"]["differences"][0]
    assert difference["low"] < difference["difference"] < difference["high"]
    assert {"judged", "worse"} <= {one["name"] for one in stack.do("evaluation", "list")}
    assert stack.do("evaluation", "show", "worse")["counts"]["evaluated"] == 400

    promote = ["model", "promote", "answers", "--alias", "champion", "--gate"]
    assert stack.ask(*promote[:3], "1", *promote[3:], "f1 >= old").error["code"] == "GateNotPassed"
    moved = stack.do(*promote[:3], "1", *promote[3:], "accuracy > 0.5")
    assert (moved["to"], moved["gate"]["passed"]) == (1, True)
    refused = stack.ask(*promote[:3], "2", *promote[3:], "roc_auc >= old + 0.2").error
    assert refused["code"] == "GateNotPassed"
    assert "lower bound of 95 %" in refused["message"]
    first, second, third = stack.do("model", "aliases", "answers", "--alias", "champion")
    assert (first["refused"], first["to"]) == (1, None)
    assert second["gate"]["rules"][0]["rule"] == "accuracy > 0.5"
    assert (third["from"], third["to"], third["refused"]) == (1, 1, 2)
    assert third["user"]
    assert third["gate"]["rules"][0]["lower"] < 0
    assert stack.ask("evaluation", "show", "none").code != 0
    check_pages(stack, stack.named("judged"), run)
    assert stack.ask("model", "delete", "answers", "--version", "1").error["code"] == "ModelInUse"


def check_pages(stack, judged, worse):
    """The pages of an evaluation and of a comparison show what the command does."""
    shown = fetch(stack, f"/runs/{judged}")
    assert "judged batch inference</a>" in shown
    assert "By the values of region" in shown
    assert shown.count("<figure") == 4
    address = f"/evaluations?run={judged}&run={worse}"
    compared = wait_for(lambda: finished(fetch(stack, address)), 60, "the comparison")
    assert ">roc_auc</td>" in compared
    assert "data-verdict=" in compared
    assert compared.count("<polyline") == 4


def fetch(stack, path):
    with stack.urlopen(f"{stack.link('web')}{path}") as answer:
        return answer.read().decode()


def finished(page):
    return None if "are being computed" in page else page


def test_a_model_is_evaluated(stack, estimator, tmp_path):
    written(tmp_path / "in")
    run = stack.do("run", "evaluate", *pairs(given_for(tmp_path, name="judged")))["flow_run_id"]

    shown = stack.wait_for_state(run, "COMPLETE", timeout=120)

    result = json.loads((tmp_path / "out" / "evaluation" / "result.json").read_text())
    probabilities = estimator.predict_proba(ROWS)
    wanted = {
        "accuracy": oracle.accuracy_score(LABELS, estimator.predict(ROWS)),
        "f1": oracle.f1_score(LABELS, estimator.predict(ROWS), average="macro"),
        "log_loss": oracle.log_loss(LABELS, y_proba=probabilities),
        "roc_auc": oracle.roc_auc_score(LABELS == "yes", probabilities[:, 1]),
    }
    for name, value in wanted.items():
        assert result["metrics"][name] == pytest.approx(value, rel=1e-9)
        assert shown["result"]["metrics"][name] == pytest.approx(value, rel=1e-9)
    assert result["counts"] | {"contradictions": 0} == {
        "records": 403, "evaluated": 400, "unreadable": 1, "missing_targets": 1,
        "unseen_targets": 1, "failed": 0, "missing_predictions": 0, "unknown_predictions": 0,
        "off_sums": 0, "missing_probabilities": 0, "contradictions": 0,
    }  # fmt: skip
    assert result["unseen_targets"] == {"maybe": 1}
    north = REGIONS == "north"
    assert result["slices"]["north"]["metrics"]["accuracy"] == pytest.approx(
        oracle.accuracy_score(LABELS[north], estimator.predict(ROWS[north])), rel=1e-9
    )
    assert (tmp_path / "out" / "predictions" / "manifest.json").exists()
    child = result["batch_inference"]
    assert stack.show(child)["name"] == "judged batch inference"

    check_comparison_and_gate(stack, tmp_path)

    refused = stack.ask("run", "evaluate", *pairs(given_for(tmp_path, target_field="question")))
    assert refused.code == 0  # the data is read by the run
    missed = stack.wait_for_state(json.loads(refused.out)["flow_run_id"], "CREATE FAILED")
    assert "TargetMissing" in missed["message"]

    stack.do("runs", "delete", run)
    assert stack.ask("runs", "show", child).code != 0


def test_a_misspelt_output_is_corrected_without_predicting_again(stack, estimator, tmp_path):
    written(tmp_path / "in")
    given = given_for(tmp_path, name="misspelt", probabilities_field="probabilites")
    run = stack.do("run", "evaluate", *pairs(given))["flow_run_id"]

    failed = stack.wait_for_state(run, "FAIL MODEL EVALUATION", timeout=120)

    assert "OutputFieldMissing" in failed["message"]
    assert "Did you mean probabilities?" in failed["message"]
    predicted = (tmp_path / "out" / "predictions" / "manifest.json").read_bytes()
    stack.do("runs", "update", run, "-p", "probabilities_field=probabilities")
    stack.do("runs", "retry", run)
    shown = stack.wait_for_state(run, "COMPLETE", timeout=120)
    assert shown["result"]["metrics"]["roc_auc"] > 0.5
    assert (tmp_path / "out" / "predictions" / "manifest.json").read_bytes() == predicted


def test_what_cannot_work_is_refused_before_a_run_is_made(stack, estimator, tmp_path):
    written(tmp_path / "in")

    for given, code in [
        ({"model": ""}, "ParameterMissing"),
        ({"class_names": []}, "ClassNamesMissing"),
        ({"input_format": "jsonl"}, "InputEmpty"),
        ({"slice_field": "answer"}, "TargetFieldTwice"),
    ]:
        answer = stack.ask("run", "evaluate", *pairs(given_for(tmp_path, **given)))
        assert answer.code != 0
        assert code in answer.out + answer.err, (given, answer.out, answer.err)


def test_it_is_stopped_with_its_batch_inference_and_retried(stack, tmp_path):
    ledger, go_on, folder = tmp_path / "ledger", tmp_path / "go on", tmp_path / "slow"
    folder.mkdir()
    (folder / "predictor.py").write_text(
        "import os, time\n"
        "def load(model_dir, parameters): ...\n"
        "def predict(inputs, model):\n"
        f"    open({str(ledger)!r}, 'a').write(','.join(inputs) + '\\n')\n"
        f"    while open({str(ledger)!r}).read().count('\\n') >= 45:\n"
        f"        if os.path.exists({str(go_on)!r}): break\n"
        "        time.sleep(0.1)\n"
        "    return {'prediction': inputs['x'] + 1}\n"
    )
    stack.do("model", "create", "guesses", "--uri", str(folder), "--framework", "custom")
    (tmp_path / "in").mkdir()
    for name in "abcd":
        lines = "".join(json.dumps({"x": at, "y": at}) + "\n" for at in range(200))
        (tmp_path / "in" / f"{name}.jsonl").write_text(lines)
    given = {
        "model": "guesses/1", "task": "regression", "input_uri": tmp_path / "in",
        "target_field": "y", "output_uri": tmp_path / "out", "batch.batch_size": 10,
    }  # fmt: skip

    run = stack.do("run", "evaluate", *pairs(given))["flow_run_id"]
    wait_for(lambda: ledger.exists() and ledger.read_text().count("\n") >= 45, 60, "two parts")
    (child,) = (one["id"] for one in stack.do("runs", "list", "--flow", "batch-inference")
                if one["state"] == "RUNNING")  # fmt: skip
    assert stack.ask("runs", "delete", child).error["code"] == "PartOfEvaluation"
    assert stack.ask("model", "delete", "guesses").error["code"] == "RunGoesOn"
    stack.do("runs", "stop", run)
    stack.wait_for_state(run, "STOPPED")
    stack.wait_for_state(child, "STOPPED")
    go_on.touch()

    stack.do("runs", "retry", run)
    shown = stack.wait_for_state(run, "COMPLETE", timeout=120)

    metrics = shown["result"]["metrics"]
    assert (metrics["mae"], metrics["rmse"], metrics["mape"]) == (1, 1, None)
    assert set(ledger.read_text().split()) == {"x"}  # the model never got the target
    assert ledger.read_text().count("\n") <= 46 + 40  # a file is a part, of 20 batches
