"""Batch inference on the real stack, from the command."""

import json
import os
import random

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.e2e.batch_inference_soak import Soak
from tests.e2e.stack import wait_for
from tests.infra.workloads import docker_double, packages
from tests.serving import fake_server
from tests.tasks.batch_inference.model_server import line_server

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(0).normal(size=(200, 3))


@pytest.fixture(scope="module")
def model(stack):
    folder = stack.home.with_name("linear")
    folder.mkdir()
    joblib.dump(LogisticRegression().fit(ROWS, ROWS[:, 0] > 0), folder / "model.joblib")
    stack.do("model", "create", "linear", "--uri", str(folder), "--framework", "scikit-learn")
    return "linear/1"


def written(folder):
    (folder / "in" / "july").mkdir(parents=True)
    lines = [
        json.dumps({"id": f"c{at}", **dict(zip("abc", row, strict=True))})
        for at, row in enumerate(ROWS.tolist())
    ]
    (folder / "in" / "a.jsonl").write_text("\n".join([*lines, "{broken"]))
    (folder / "in" / "july" / "b.jsonl").write_text(lines[0])
    (folder / "in" / "notes.txt").write_text("not a record")
    return folder / "in", folder / "out"


def pairs(given):
    return [part for name, value in given.items() for part in ("-p", f"{name}={value}")]


def test_a_model_predicts_a_data_set(stack, model, tmp_path):
    source, target = written(tmp_path)
    given = {
        "model": model, "input_uri": source, "output_uri": target, "include": '["*.jsonl"]',
        "key": "id", "pods": 2,
    }  # fmt: skip

    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]

    found = stack.wait_for_state(run, "COMPLETE", timeout=120)
    lines = [json.loads(line) for line in (target / "a.jsonl").open()]
    assert [(one["row"], one["key"]) for one in lines] == [(at, f"c{at}") for at in range(200)]
    assert np.mean(np.array([one["prediction"] for one in lines]) == (ROWS[:, 0] > 0)) > 0.95
    assert (target / "july" / "b.jsonl").read_text().count("\n") == 1
    (error,) = [json.loads(line) for line in (target / "errors.jsonl").open()]
    assert (error["file"], error["row"]) == ("a.jsonl", 200)
    manifest = json.loads((target / "manifest.json").read_text())
    assert (manifest["rows"], manifest["predicted"], manifest["failed"]) == (202, 201, 1)
    result = found["result"]
    assert (result["records"], result["failed"]) == (202, 1)
    assert result["manifest_uri"] == f"{target}/manifest.json"
    (reason,) = result["failure_reasons"]
    assert (reason["count"], reason["file"], reason["row"]) == (1, "a.jsonl", 200)
    assert manifest["failure_reasons"] == [reason]
    with stack.urlopen(f"{stack.link('web')}/runs/{run}/statistics.png") as plot:
        assert plot.read(8) == b"\x89PNG\r\n\x1a\n"
    metrics = result["metrics"]
    assert (metrics["records"], metrics["failed"], metrics["records_left"]) == (202, 1, 0)
    assert metrics["records_per_second"] > 0
    assert not (stack.home / "runs" / run / "parts").exists()

    (target / "july" / "own.jsonl").write_text("mine")
    given["exclude"] = '["july/**"]'
    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]
    stack.wait_for_state(run, "COMPLETE", timeout=120)

    left = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert left == {"a.jsonl", "errors.jsonl", "july/own.jsonl", "manifest.json"}

    (target / "a.jsonl").write_text("edited")
    (target / "july" / "b.jsonl").write_text("mine")
    refused = stack.ask("run", "batch-inference", *pairs(given))
    assert '"OutputFilesExist", "message": "output_uri: ' in refused.out
    assert ': a.jsonl.", "hint": "Move them, or allow' in refused.out
    assert (target / "a.jsonl").read_text() == "edited"
    (target / "a.jsonl").unlink()
    del given["exclude"]
    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]
    found = stack.wait_for_state(run, "CREATE FAILED", timeout=120)
    assert ": july/b.jsonl." in found["message"]
    stack.do("runs", "update", run, "-p", "overwrite=true")
    stack.do("runs", "retry", run)
    stack.wait_for_state(run, "COMPLETE", timeout=120)
    assert (target / "july" / "b.jsonl").read_text().startswith('{"row":0')


def test_what_cannot_work_is_refused_before_a_run_is_made(stack, model, tmp_path):
    source, target = written(tmp_path)
    usual = {"model": model, "input_uri": source, "output_uri": target}

    for given, code in [
        ({"model": "linear/9"}, "NotFound"),
        ({"input_uri": tmp_path / "none"}, "InputMissing"),
        ({"output_uri": source / "deeper"}, "OutputInSource"),
        ({"include": '["/a"]'}, "GlobInvalid"),
        ({"model": ""}, "ParameterMissing"),
    ]:
        answer = stack.ask("run", "batch-inference", *pairs(usual | given))
        assert answer.code != 0
        assert code in answer.out + answer.err, (given, answer.out, answer.err)


def test_a_model_that_fails_on_every_record_fails_the_run(stack, model, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.jsonl").write_text('{"a": 1}\n' * 30)
    given = {"model": model, "input_uri": source, "output_uri": target, "max_failed": 5}

    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]

    found = stack.wait_for_state(run, "FAIL BATCH INFERENCE", timeout=120)
    assert "6 records failed, more than max_failed (5), 6 of them with: " in found["message"]
    assert found["message"].startswith("TooManyRecordsFailed: ")
    (reason,) = found["result"]["failure_reasons"]
    assert "takes 3 features" in reason["reason"]
    assert not target.exists()

    stack.do("runs", "update", run, "-p", "max_failed=30")
    stack.do("runs", "retry", run)

    found = stack.wait_for_state(run, "FAIL BATCH INFERENCE", timeout=120)
    assert "None of the 30 records could be predicted: The model" in found["message"]
    assert found["result"]["failed"] == 30
    assert not target.exists()


def predicting_with(stack, name, code, requirements=None):
    """A registered model whose ``predictor.py`` begins with ``code``."""
    folder = stack.home.with_name(name)
    folder.mkdir()
    joblib.dump(LogisticRegression().fit(ROWS, ROWS[:, 0] > 0), folder / "model.joblib")
    (folder / "predictor.py").write_text(
        f"{code}\n"
        "def load(model_dir, parameters): return 1\n"
        "def predict(inputs, model): return {'prediction': VALUE + inputs['a']}\n"
    )
    packages.wheel(folder, "sample", "VALUE = 40\n")
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    stack.do("model", "create", name, "--uri", str(folder), "--framework", "scikit-learn")
    return f"{name}/1"


def test_runs_share_the_environment_of_a_models_requirements(stack, tmp_path):
    given = {
        "model": predicting_with(
            stack, "required", "from sample import VALUE", "./sample-1.0-py3-none-any.whl\n"
        ),
        "input_uri": tmp_path / "in",
    }
    given["input_uri"].mkdir()
    (given["input_uri"] / "a.jsonl").write_text('{"a": 2}\n')
    before = {*(stack.home / "overlays").glob("*/modelyard-ready")}

    runs = {
        target: stack.do(
            "run", "batch-inference", *pairs({**given, "output_uri": target})
        )["flow_run_id"]
        for target in (tmp_path / "first", tmp_path / "second")
    }  # fmt: skip

    for target, run in runs.items():
        stack.wait_for_state(run, "COMPLETE", timeout=120)
        assert json.loads((target / "a.jsonl").read_text())["prediction"] == 42
    assert len({*(stack.home / "overlays").glob("*/modelyard-ready")} - before) == 1


@pytest.mark.parametrize(
    ("name", "requirements", "reason"),
    [
        (
            "hopeless",
            "--no-index\nsample==9\n",
            "The requirements of models:/hopeless/1 cannot be",
        ),
        (
            "unnamed",
            None,
            "No module named 'sample_of_none'. Name its package in the requirements",
        ),
    ],
)
def test_a_model_without_what_it_imports_predicts_nothing(
    stack, tmp_path, name, requirements, reason
):
    given = {
        "model": predicting_with(stack, name, "from sample_of_none import VALUE", requirements),
        "input_uri": tmp_path / "in",
        "output_uri": tmp_path / "out",
    }
    given["input_uri"].mkdir()
    (given["input_uri"] / "a.jsonl").write_text('{"a": 2}\n')

    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]

    found = stack.wait_for_state(run, "FAIL BATCH INFERENCE", timeout=120)
    assert reason in found["message"]
    assert not given["output_uri"].exists()


def test_a_server_predicts_in_the_model_s_place(stack, model, tmp_path):
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"x": at, "name": "n"}) + "\n" for at in range(20))
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    with line_server(max_batch_size=8).running() as server:
        given = {
            "model": model, "input_uri": tmp_path / "in", "output_uri": tmp_path / "out",
            "server_url": server.url, "server_model": "line",
        }  # fmt: skip
        run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]
        stack.wait_for_state(run, "COMPLETE", timeout=120)
        given |= {"server_model": "curve", "output_uri": tmp_path / "other"}
        run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]
        failed = stack.wait_for_state(run, "FAIL BATCH INFERENCE", timeout=120)

    found = [json.loads(line) for line in (tmp_path / "out" / "a.jsonl").open()]
    assert [one["row"] for one in found] == [at for at in range(20) if at != 13]
    assert found[2] == {"row": 2, "y": [5.0], "loud": "N"}
    assert "has no model 'curve'" in failed["message"]


def test_it_is_stopped_retried_copied_and_deleted(stack, tmp_path):
    ledger, folder, target = tmp_path / "ledger", tmp_path / "slow", tmp_path / "out"
    folder.mkdir()
    (folder / "predictor.py").write_text(
        "import time\n"
        "def load(model_dir, parameters): ...\n"
        "def predict(inputs, model):\n"
        "    time.sleep(0.02)\n"
        f"    open({str(ledger)!r}, 'a').write('%d\\n' % inputs['x'][0])\n"
        "    return {'prediction': inputs['x']}\n"
    )
    stack.do("model", "create", "slow", "--uri", str(folder), "--framework", "custom")
    (tmp_path / "in").mkdir()
    for name in "abcd":
        lines = "".join(json.dumps({"x": at}) + "\n" for at in range(1000))
        (tmp_path / "in" / f"{name}.jsonl").write_text(lines)
    given = {
        "model": "slow/1", "input_uri": tmp_path / "in", "output_uri": target, "batch_size": 10,
        "name": "slow",
    }  # fmt: skip

    run = stack.do("run", "batch-inference", *pairs(given))["flow_run_id"]
    stack.wait_for_state(run, "RUNNING")
    wait_for(lambda: ledger.exists() and ledger.read_text().count("\n") > 120, 60, "a part")
    assert stack.ask("runs", "delete", run).error["code"] == "RunGoesOn"
    assert stack.ask("model", "delete", "slow").error["code"] == "RunGoesOn"
    stack.do("runs", "stop", run)
    stack.wait_for_state(run, "STOPPED")
    asked = ledger.read_text().count("\n")
    assert not target.exists()

    stack.do("runs", "retry", run)
    stack.wait_for_state(run, "COMPLETE", timeout=120)
    assert ledger.read_text().count("\n") < 400 + asked - 90  # a file is a part
    assert json.loads((target / "manifest.json").read_text())["predicted"] == 4000

    copied = {"name": "again", "output_uri": tmp_path / "again", "batch_size": 1000}
    copy = stack.do("runs", "copy", run, *pairs(copied))["flow_run_id"]
    stack.wait_for_state(copy, "COMPLETE", timeout=120)
    assert (tmp_path / "again" / "d.jsonl").read_bytes() == (target / "d.jsonl").read_bytes()

    assert stack.do("runs", "delete", run)["deleted"]
    assert (target / "manifest.json").exists()
    assert not (stack.home / "runs" / run).exists()


def test_kills_lose_no_record_and_predict_none_again(stack, tmp_path):
    victims = {"shard", "predictor", "run"}
    soaked = Soak(stack, tmp_path, random.Random(3), None, victims, largest=35_000, seconds=1e-4)

    soaked.one(kills=3)

    assert not soaked.tally.broken
    assert soaked.tally.kills.keys() & victims


@pytest.fixture
def triton(stack, tmp_path, monkeypatch):
    """A registered model of Triton's, and Docker, whose containers are processes."""
    folder = stack.home.with_name("doubling")
    if not folder.exists():
        fake_server.triton_model(folder, "doubling")
        stack.do("model", "create", "doubling", "--uri", str(folder), "--framework", "onnx-triton")
    (tmp_path / "docker").mkdir()
    servers = fake_server.install(tmp_path / "servers")
    monkeypatch.setenv("PATH", f"{servers}{os.pathsep}{os.environ['PATH']}")
    docker_double.on_path(tmp_path / "docker", monkeypatch)
    return "doubling/1"


def test_a_triton_repository_is_served_by_a_container(stack, triton, tmp_path):
    (tmp_path / "in").mkdir()
    records = [{"x": at, "name": f"n{at}"} for at in range(50)]
    records[20]["x"], records[30]["x"] = 13, 666
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (tmp_path / "in" / "a.jsonl").write_text(lines)
    given = {
        "model": triton, "input_uri": tmp_path / "in", "output_uri": tmp_path / "out", "pods": 2,
    }  # fmt: skip

    answer = stack.do("call", "batch-inference", *pairs(given))

    assert answer["state"] == "COMPLETE"
    assert (answer["result"]["records"], answer["result"]["failed"]) == (50, 3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "a.jsonl").open()]
    rows = [at for at in range(50) if at not in (13, 20, 30)]
    assert [(one["row"], one["y"]) for one in lines] == [(at, [2 * at + 1]) for at in rows]
    assert not [one for one in (tmp_path / "docker").iterdir() if one.name.startswith("model")]


def test_a_triton_repository_without_docker_is_refused(stack, triton, tmp_path):
    (tmp_path / "docker" / "engineless").touch()
    (tmp_path / "in.jsonl").write_text('{"x": 1}\n')
    given = {"model": triton, "input_uri": tmp_path / "in.jsonl", "output_uri": tmp_path / "out"}

    answer = stack.ask("run", "batch-inference", *pairs(given))

    assert answer.code != 0
    assert "ModelNotPredictable" in answer.out + answer.err
    assert "server_url" in answer.out + answer.err
