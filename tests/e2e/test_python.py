"""The Python API on a real stack."""

import json

import pytest

from tests.e2e.stack import ALGORITHMS

pytestmark = pytest.mark.e2e

_BEGIN = f"""
import asyncio, json
import modelyard
from modelyard import Algorithm, Client, MetricPattern, Run, train

def algorithm(name):
    return Algorithm(uri={str(ALGORITHMS)!r}, entry_point=name + ".py")

def answer(**values):
    print(json.dumps(values))
"""


def answer(stack, code):
    return json.loads(stack.execute(_BEGIN + code).splitlines()[-1])


def test_a_call_that_failed_is_retried_and_resumes(stack):
    found = answer(
        stack,
        """
try:
    train("recovers", algorithm=algorithm("recovers"), metrics=[MetricPattern(name="accuracy")])
except modelyard.RunFailedError as raised:
    error = raised
result = train.retry(error.flow_run_id)
try:
    train.retry(error.flow_run_id)
except modelyard.ConflictError as raised:
    complete = raised
answer(error=error.as_dict(), complete=str(complete), run=error.flow_run_id, result=result,
       own=[result.flow_run_id, result.url, result.model_uri])
""",
    )
    run = found["run"]
    assert found["error"]["code"] == "ScriptFailed"
    assert found["result"]["metrics"] == {"accuracy": 0.5}
    assert found["own"] == [run, stack.show(run)["links"]["prefect"], "models:/recovers/1"]
    assert stack.show(run)["attempts"] == 2
    assert "COMPLETE" in found["complete"]
    refused = stack.ask("runs", "retry", run)
    assert "COMPLETE" in refused.error["message"]


def test_a_run_is_started_followed_and_read(stack):
    found = answer(
        stack,
        """
with Client() as client:
    run = train.start("followed", algorithm=algorithm("steps"), hyperparameters={"steps": 4})
    before = run.wait(0)
    lines = list(run.logs(follow=True))
    result = run.result(60)
    same = Run.find("followed")
    listed = [one.id for one in client.runs.list("train", limit=5)]
    shown = client.runs.show(run.id).to_json()
    model = client.models.show("followed")
answer(before=before, lines=lines, result=result, state=same.state, url=run.url,
       listed=run.id in listed and same.id == run.id, shown=shown["result"],
       model=model.versions[0].flow_run_id == run.id, stack=client.stack)
""",
    )
    assert found["before"] is False
    assert [line for line in found["lines"] if line.startswith("step 4")]
    assert found["result"] == found["shown"]
    assert found["state"] == "COMPLETE"
    assert found["url"].startswith(stack.link("prefect"))
    assert (found["listed"], found["model"], found["stack"]) == (True, True, "running")


def test_a_started_run_is_stopped_retried_and_reported_as_failed(stack):
    found = answer(
        stack,
        """
run = train.start(algorithm=algorithm("recovers"))
try:
    run.result()
except modelyard.RunFailedError as error:
    failed = [error.state, error.code, error.flow_run_id == run.id, "runs logs" in error.hint]
run.retry()
result = run.result()
slow = train.start(algorithm=algorithm("steps"), hyperparameters={"steps": 10000})
try:
    slow.result(0.1)
except TimeoutError as error:
    late = str(error)
next(line for line in slow.logs(follow=True) if line.startswith("step"))
stopped = slow.stop()
answer(failed=failed, result=result, late=slow.id in late, stopped=stopped.state)
""",
    )
    assert found["failed"] == ["FAIL TRAIN", "ScriptFailed", True, True]
    assert set(found["result"]) == {"mlflow_run_id", "model_uri", "metrics"}
    assert found["late"] is True
    assert found["stopped"] == "STOPPED"


def test_coroutines_call_it_directly_and_in_threads(stack, tmp_path):
    pipeline = ALGORITHMS.parents[2] / "examples" / "pipelines" / "hello.yaml"
    found = answer(
        stack,
        f"""
async def main():
    client = Client()
    uploaded = client.pipelines.upload(modelyard_path({str(pipeline)!r}), "from-a-coroutine")
    said = modelyard.pipeline_run(pipeline="from-a-coroutine", arguments={{"recipient": "all"}})
    both = await asyncio.gather(*(
        asyncio.to_thread(train, algorithm=algorithm("steps"), hyperparameters={{"steps": steps}})
        for steps in (1, 2)
    ))
    client.pipelines.delete("from-a-coroutine")
    return uploaded.name, said, len({{one.flow_run_id for one in both}})

from pathlib import Path as modelyard_path
name, said, both = asyncio.run(main())
answer(name=name, said=said, both=both)
""",
    )
    assert found["name"] == "from-a-coroutine"
    assert {task["state"] for task in found["said"]["tasks"]} == {"SUCCEEDED"}
    assert found["both"] == 2


def test_a_users_own_flow_has_it_as_a_subflow(stack):
    found = answer(
        stack,
        """
from prefect import flow
from prefect.runtime import flow_run

@flow
def mine():
    return flow_run.id, train(algorithm=algorithm("steps"), hyperparameters={"steps": 1})

@flow
async def ours():
    return flow_run.id, await asyncio.to_thread(
        train, algorithm=algorithm("steps"), hyperparameters={"steps": 1}
    )

with Client():
    runs = [mine(), asyncio.run(ours())]
answer(runs=[[parent, result.flow_run_id] for parent, result in runs])
""",
    )
    for parent, child in found["runs"]:
        task = stack.prefect(f"flow_runs/{child}")["parent_task_run_id"]
        assert stack.prefect(f"task_runs/{task}")["flow_run_id"] == parent
