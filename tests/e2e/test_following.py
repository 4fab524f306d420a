"""A training that is followed, found and compared by the command, on a real stack."""

import json
import signal
import subprocess

import pytest

from tests.e2e.stack import MODELYARD, flags
from tests.e2e.test_pipelines import written

pytestmark = pytest.mark.e2e


def test_a_training_is_followed_watched_found_and_compared(stack, tmp_path):
    asked = {"experiment": "followed", "metrics": [{"name": "loss"}]}
    first = stack.start("steps", name="followed one", hyperparameters={"steps": 2}, **asked)
    watched = stack.ask("runs", "watch", first)
    assert (watched.code, watched.json["state"]) == (0, "COMPLETE")

    hyperparameters = {"steps": 1000, "seconds": 0.05}
    second = stack.start("steps", name="followed two", hyperparameters=hyperparameters, **asked)
    follower = subprocess.Popen(
        [MODELYARD, "runs", "logs", second, "-f", "--json"],
        env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = iter(follower.stdout.readline, "")
    next(line for line in lines if json.loads(line)["line"].startswith("step 2 "))
    state = stack.show(second)["state"]
    interrupted = subprocess.Popen(
        [MODELYARD, "runs", "watch", second],
        env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "RUNNING" in interrupted.stdout.readline()
    interrupted.send_signal(signal.SIGINT)
    _, told = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130
    assert f"modelyard runs stop {second}" in told

    assert stack.do("runs", "stop", second)["state"] == "STOPPED"
    assert (state, follower.wait(60)) == ("RUNNING", 0)  # it was live, and ended with the run
    last = [json.loads(line)["line"] for line in lines][-1]
    log = stack.do("runs", "logs", second)
    assert log[0] == "step 1 loss=1.0000"
    assert last in log[-3:]

    # The file is gone where a machine does not keep it; MLflow has a copy.
    file = stack.home / "runs" / first / "train.log"
    whole = stack.do("runs", "logs", first)
    assert file.exists()
    file.unlink()
    assert stack.do("runs", "logs", first) == whole == [
        "step 1 loss=1.0000", "step 2 loss=0.5000",
    ]  # fmt: skip

    def listed(*filters):
        return [row["name"] for row in stack.do("runs", "list", *filters)]

    assert listed("--experiment", "followed") == ["followed two", "followed one"]
    assert listed("--name", "FOLLOWED", "--state", "stopped") == ["followed two"]
    assert listed("--experiment", "followed", "--state", "COMPLETE", "-n", "1") == ["followed one"]
    assert listed("--name", "followed", "--since", "1h", "--tag", "training") == [
        "followed two", "followed one",
    ]  # fmt: skip
    assert listed("--name", "followed", "--since", "2100-01-01") == []
    assert listed("--name", "followed", "--tag", "nobody's") == []
    assert stack.ask("runs", "list", "--state", "DONE").error["code"] == "StateUnknown"
    assert stack.ask("runs", "list", "--experiment", "none").error["code"] == "NotFound"

    plot = tmp_path / "plot.svg"
    compared = stack.do("runs", "compare", first, "followed two", "--plot", str(plot))
    assert compared["parameters"]["hyperparameters.steps"] == [2, 1000]
    assert compared["metrics"]["loss"][0] == 0.5
    assert "</svg>" in plot.read_text()


def test_a_pipeline_need_not_be_waited_for(stack, tmp_path):
    started = stack.do("pipeline", "run", written(tmp_path, "adding"), "-p", "a=1", "--no-watch")
    assert sorted(started) == ["flow_run_id", "links", "name", "state"]

    answer = stack.ask("runs", "watch", started["flow_run_id"])
    assert (answer.code, answer.json["state"]) == (0, "COMPLETE")


def test_a_run_fails_in_words_that_are_shown_once(stack):
    done = subprocess.run(
        [MODELYARD, "run", "train", "--watch", *flags("fails", {"name": "fails once"})],
        env=stack.env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("ScriptFailed") == 1, done.stdout
    assert "Finished in state" not in done.stdout
