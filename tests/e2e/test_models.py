"""Models on the real stack, from the training to the last byte."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import joblib
import pytest

from tests.e2e.stack import flags

pytestmark = pytest.mark.e2e


@pytest.fixture
def trained(stack):
    """Trains a model of scikit-learn under a name; the run's id."""

    def train(name, algorithm="fits"):
        asked = flags(algorithm, {"name": name})
        answer = stack.ask("run", "train", *asked, "--watch")
        return answer.json["flow_run_id"]

    return train


def files(stack, version):
    """What the artifacts' folder holds of a version's files."""
    folder = Path(stack.home, "artifacts", version["source_uri"].split("mlflow-artifacts:/")[1])
    return sorted(path.name for path in folder.rglob("*"))


def test_a_model_s_life(stack, trained):
    run = trained("life")
    first = stack.do("model", "show", "life")["versions"][0]
    assert (first["state"], first["framework"], first["run_name"]) == ("ACTIVE", None, "life")
    assert first["flow_run_id"] == run

    error = stack.ask("model", "update", "life", "--version", "1", "--framework", "onnx").error
    assert error["code"] == "OnnxMissing"
    stack.do("model", "update", "life", "--version", "1", "--framework", "scikit-learn",
             "--framework-version", "1.9", "-p", "modelFormat=joblib")  # fmt: skip
    stack.do("model", "update", "life", "--description", "A straight line.")
    second = stack.do("model", "create", "--run", run, "--framework", "Scikit-learn", "-p", "n=2")
    assert second["uri"] == "models:/life/2"

    stack.do("model", "alias", "life", "champion", "1", "--reason", "the first")
    between = datetime.now(UTC).isoformat()
    stack.do("model", "alias", "life", "champion", "2", "--reason", "better")
    moves = stack.do("model", "aliases", "life", "--alias", "champion")
    assert [(move["from"], move["to"], move["why"]) for move in moves] == [
        (None, 1, "the first"), (1, 2, "better"),
    ]  # fmt: skip
    then = stack.do("model", "aliases", "life", "--alias", "champion", "--at", between)
    assert (then["version"], then["certain"]) == (1, True)

    listed = next(model for model in stack.do("model", "list") if model["name"] == "life")
    assert (listed["state"], listed["description"]) == ("ACTIVE", "A straight line.")
    assert (listed["newest_version"], listed["aliases"]) == (2, {"champion": 2})

    stack.do("model", "update", "life", "--name", "line")
    assert stack.show("life")["result"]["model_uri"] == "models:/line/2"
    stack.do("runs", "update", run, "--name", "renamed run")
    assert stack.do("model", "show", "line")["versions"][0]["run_name"] == "renamed run"

    assert stack.ask("model", "delete", "line").error["code"] == "ModelInUse"
    assert stack.ask("runs", "delete", run).error["code"] == "HasModel"
    stack.do("model", "delete", "line", "--version", "1")
    assert "model.joblib" in files(stack, first)
    stack.do("model", "unalias", "line", "champion", "--reason", "withdrawn")
    stack.do("model", "delete", "line")
    assert files(stack, first) == []
    assert stack.ask("model", "show", "line").error["code"] == "NotFound"
    assert stack.show(run)["result"]["model_uri"] is None
    error = stack.ask("model", "create", "--run", run, "--framework", "scikit-learn").error
    assert error["code"] == "RunHasNoModel"
    stack.do("runs", "delete", run)


def test_a_model_that_is_retrained_is_loaded_by_mlflow(stack):
    for name in ("monday", "tuesday"):
        asked = flags("fits", {"name": name, "model": {"name": "weekly"}})
        result = stack.ask("run", "train", *asked, "--watch").json["result"]
    assert result["model_uri"] == "models:/weekly/2"
    versions = stack.do("model", "show", "weekly")["versions"]
    assert [one["run_name"] for one in versions] == ["tuesday", "monday"]

    code = (
        "import sys, mlflow\n"
        "model = mlflow.pyfunc.load_model('models:/weekly/2')\n"
        "print(model.predict([[3.0]]).shape, 'registry' in sys.modules)\n"
    )
    env = {**os.environ, **stack.do("env")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], env=env, capture_output=True, text=True
    )
    assert done.stdout == "(1,) False\n", done.stderr

    asked = flags("fits", {"name": "wednesday", "model": {"register": "never"}})
    result = stack.ask("run", "train", *asked, "--watch").json["result"]
    assert result["model_uri"] is None
    assert stack.ask("model", "show", "wednesday").error["code"] == "NotFound"


def test_a_model_of_one_s_own_files(stack, tmp_path):
    joblib.dump({"a": 1}, tmp_path / "model.joblib")
    made = stack.do("model", "create", "own", "--uri", str(tmp_path), "--framework", "sklearn",
                    "-p", "api_key=secret:mine")  # fmt: skip

    assert (made["source_uri"], made["parameters"]) == (str(tmp_path), {"api_key": "secret:mine"})
    stack.do("model", "delete", "own")
    assert (tmp_path / "model.joblib").exists()


def test_only_a_complete_run_becomes_a_model(stack, trained):
    run = trained("no model", "fails")

    error = stack.ask("model", "create", "--run", run, "--framework", "scikit-learn").error

    assert error["code"] == "RunNotComplete"
    assert "FAIL TRAIN" in error["message"]


def test_a_refused_secret_is_told_nowhere(stack):
    answer = stack.ask("model", "create", "hub", "--framework", "huggingface",
                       "-p", "model_id=a/b", "-p", "hf_token=canary-8271")  # fmt: skip

    assert answer.error["code"] == "SecretInPlainText"
    assert "canary" not in answer.out + answer.err
