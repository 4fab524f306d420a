"""What one can look at of a pipeline run, on the real stack, and what becomes of it."""

import json

import pytest

from tests.e2e.stack import wait_for
from tests.pipelines import corpus

pytestmark = pytest.mark.e2e


class Prefect:
    """Prefect's API, as its UI uses it."""

    def __init__(self, stack, run):
        self.stack, self.run = stack, run

    def ask(self, path, **body):
        return self.stack.prefect(path, body or None)

    def graph(self):
        nodes = [node for _, node in self.ask(f"flow_runs/{self.run}/graph-v2")["nodes"]]
        names = {node["id"]: node["label"] for node in nodes}
        return {
            node["label"]: {
                "state": node["state_type"],
                "after": sorted(names[one["id"]] for one in node["parents"]),
                "in": [names[one["id"]] for one in node["encapsulating"]],
            }
            for node in nodes
        }

    def task_runs(self):
        found = self.ask("task_runs/filter", flow_runs={"id": {"any_": [self.run]}}, limit=100)
        return {one["name"]: one for one in found}

    def artifacts(self):
        return self.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [self.run]}})

    def lines(self, task_run):
        of = {"task_run_id": {"any_": [task_run["id"]]}}
        return [line["message"] for line in self.ask("logs/filter", logs=of, limit=200)]


@pytest.fixture(scope="module")
def shown(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown")
    path = folder / "pipeline.yaml"
    path.write_bytes(corpus.compiled("shown"))
    return stack.do("pipeline", "run", str(path), "-p", f"folder={folder}")


def in_mlflow(stack, mlflow_run_id):
    return json.loads(
        stack.execute(f"""
import json
from flows.connection import connected
from registry.tracking import client, files_of
with connected():
    run = client().get_run("{mlflow_run_id}")
    files = dict(files_of(client().repository(run.info.run_id)))
    steps = sorted(one.step for one in client().get_metric_history(run.info.run_id, "fit/loss"))
    print(json.dumps([run.data.metrics, run.data.tags, files, steps]))
""")
    )


def test_a_run_is_shown_in_prefect_and_in_mlflow(stack, shown):
    assert shown["outputs"] == {"Output": 0.75}
    prefect = Prefect(stack, shown["flow_run_id"])
    known = {task["name"] for task in shown["tasks"]} - {f"for-loop-1/{n}" for n in range(3)}
    wait_for(
        lambda: known == prefect.graph().keys()
        and all(one["state"] == "COMPLETED" for one in prefect.graph().values()),
        60, "all task runs to be on record",
    )  # fmt: skip
    graph, runs = prefect.graph(), prefect.task_runs()
    assert graph["inner/read"]["in"] == ["inner"]
    assert graph["inner/read"]["after"] == ["inner/write"]
    assert graph["for-loop-1/2/fit"]["in"] == ["for-loop-1"]
    assert graph["report"] == {"state": "COMPLETED", "after": ["measure"], "in": []}
    assert runs["condition-2"]["state"]["name"] == "Skipped"
    assert runs["condition-2"]["state"]["message"] == "Its condition is false."
    assert runs["succeed-second"]["run_count"] == 2
    assert runs["measure"]["state"]["message"] == "Output = 0.75"
    fit = runs["for-loop-1/1/fit"]
    wait_for(
        lambda: "for-loop-1/1/fit | fitting with 0.2" in prefect.lines(fit), 30, "the task's line"
    )

    found = prefect.artifacts()
    by_key = {one["key"]: one for one in found if one["key"]}
    assert by_key.keys() == {
        "mlflow-run", "pipeline-graph", "progress", "tasks", "artifacts", "outputs",
    }  # fmt: skip
    assert by_key["progress"]["data"] == 100.0
    assert "condition-2" in by_key["tasks"]["data"]
    reports = [one["data"] for one in found if one["task_run_id"] == runs["report"]["id"]]
    assert any("It went **well**" in text for text in reports)

    shown_again = stack.show(shown["flow_run_id"])
    metrics, tags, files, steps = in_mlflow(stack, shown_again["result"]["mlflow_run_id"])
    assert {
        "system/cpu_time_seconds",
        "system/for-loop-1/1/fit/cpu_time_seconds",
    } <= metrics.keys()
    assert {name for name in metrics if not name.startswith("system/")} == {
        "measure/scores/accuracy", "measure/scores/classes", "measure/more/seconds _", "fit/loss",
    }  # fmt: skip
    assert steps == [0, 1, 2]
    assert tags["modelyard.output.Output"] == "0.75"
    assert files.keys() >= {
        "artifacts.json", "outputs.json", "logs/pipeline.log", "plots/classify/whole-roc.png",
        "plots/classify/sliced-confusion-matrix-2.png", "plots/classify/whole.json",
        "reports/report/page.html", "reports/report/text.md",
        "artifacts/for-loop-1/0/fit/model/weights", "artifacts/inner/write/data",
    }  # fmt: skip


def cleaned(stack, days):
    code = "import json; from flows.pipeline_cleanup import pipeline_artifacts_cleanup as clean\n"
    return json.loads(
        stack.execute(f"{code}print(json.dumps(clean(days={days})))").splitlines()[-1]
    )


def test_old_artifacts_go_and_then_the_run(stack, shown):
    run = shown["flow_run_id"]
    assert stack.show(run)["state"] == "COMPLETE"
    folder = stack.home / "runs" / run
    schedules = {row["name"]: row for row in stack.do("schedule", "list")}
    assert schedules["pipeline-artifacts-cleanup"]["deployment"] == "pipeline-artifacts-cleanup"

    assert cleaned(stack, days=1)["runs"] == 0
    assert (folder / "artifacts").exists()
    gone = cleaned(stack, days=0.000001)
    assert gone["runs"] >= 1
    assert gone["mlflow_files"] >= 9
    assert not (folder / "artifacts").exists()
    assert (folder / "pipeline.log").exists()
    shown_again = stack.show(run)
    assert "remove-artifacts" in [deed["verb"] for deed in shown_again["history"]]
    _, _, files, _ = in_mlflow(stack, shown_again["result"]["mlflow_run_id"])
    assert "plots/classify/whole-roc.png" in files
    assert not any(name.startswith(("artifacts/", "reports/")) for name in files)

    prefect = Prefect(stack, run)
    stack.do("runs", "delete", run)
    assert not folder.exists()
    assert prefect.artifacts() == []
