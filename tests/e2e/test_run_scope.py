"""A script's credential, on a real stack: MLflow's client works, for its own run alone."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.stack import flags

pytestmark = pytest.mark.e2e


def train(stack, algorithm, **hyperparameters):
    asked = {"name": f"scoped-{algorithm}", "hyperparameters": hyperparameters}
    return stack.ask("run", "train", "--watch", *flags(algorithm, asked))


def test_a_script_uses_mlflow_as_ever_and_reaches_its_own_run_alone(stack):
    other = train(stack, "steps", steps=1).json["result"]["mlflow_run_id"]

    answer = train(stack, "tracks", other=other)

    assert answer.json["state"] == "COMPLETE", answer.out
    own = answer.json["result"]["mlflow_run_id"]
    (log,) = Path(stack.home, "artifacts").glob(f"*/{own}/artifacts/logs/train.log")
    refused = json.loads(re.search("^REFUSED (.*)$", log.read_text(), re.MULTILINE)[1])
    assert len(refused) == 10
    assert not [what for what, why in refused.items() if own not in why], refused
    run = stack.mlflow(f"runs/get?run_id={own}")["run"]["data"]
    assert {"by_hand", "a", "b"} <= {one["key"] for one in run["metrics"]}
    other = stack.mlflow(f"runs/get?run_id={other}")["run"]
    assert other["info"]["lifecycle_stage"] == "active"
    assert "stolen" not in json.dumps(other)
