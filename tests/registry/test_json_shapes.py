"""The keys and types that ``--json`` prints of runs, tunings, models and pipelines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.states import Completed, Failed, Pending

from flows.flow_results import EvaluationResult, ResultItem
from registry import batch_inference_results, history
from registry.batch_inference_results import MANIFEST_TAG, REASONS_TAG
from registry.evaluation_results import FOLDER, RESULT, RESULT_TAG
from registry.models import model_aliases, models
from registry.models.models import ServingSpec
from registry.pipelines import pipeline_nodes, pipelines
from registry.pipelines.pipeline_nodes import ROOT, PipelineNode
from registry.runs import run_attempts, runs
from registry.runs.run_attempts import RetriedAttempt
from registry.tunings import trials, tunings
from tests.printed_json import printed, shape
from tests.registry.fake_runs import PrefectClient, new_id, opening
from tests.registry.tuned import Tuning, row

pytestmark = pytest.mark.usefixtures("mlflow")

Capsys = pytest.CaptureFixture[str]

ROW = {
    "id": "str", "name": "str", "flow": "str", "state": "str", "detail": "str",
    "created": "NoneType", "started": "NoneType", "ended": "NoneType", "seconds": "float",
}  # fmt: skip
SHOWN = {
    **ROW, "message": "str", "user": "NoneType", "schedule": "NoneType", "slot": "NoneType",
    "attempts": "int", "waiting": "str", "parameters": {}, "result": "NoneType",
    "links": {"prefect": "str"}, "history": [],
}  # fmt: skip
DEED = {"at": "str", "user": "str", "verb": "str", "detail": {}}


RESULT_FILE = {
    "model": "models:/m/1", "task": "classification", "class_names": ["a", "b/c"],
    "target_field": "y", "counts": {"records": 3, "evaluated": 2}, "records": 2,
    "data": {"uri": "/in", "files": [], "sha256": "0" * 64},
    "metrics": {"accuracy": 0.5, "f1/b/c": None}, "undefined": {"f1/b/c": "Neither."},
}  # fmt: skip


def evaluation_items() -> list[str]:
    """What a caller in Python finds in the result of an evaluation, in the documented order."""
    return [name for name, one in vars(EvaluationResult).items() if isinstance(one, ResultItem)]


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> PrefectClient:
    return PrefectClient.installed(monkeypatch)


class TestRuns:
    def test_a_plain_one(self, prefect: PrefectClient, capsys: Capsys) -> None:
        run = prefect.add("train", "r", state=Failed(message="[Odd] no luck"))

        assert [shape(printed(capsys, runs.list_all()))] == [[ROW]]
        shown = printed(capsys, runs.show(run))
        assert shape(shown) == SHOWN
        assert list(shown)[-4:] == ["parameters", "result", "links", "history"]  # the long ones
        assert shape(printed(capsys, runs.brief(run))) == {
            "flow_run_id": "str", "name": "str", "state": "str", "links": {"prefect": "str"},
        }  # fmt: skip

    def test_one_with_everything(
        self, prefect: PrefectClient, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = prefect.add("train", "r", state=Pending())
        prefect.attempts.begin(run, "")
        prefect.attempts.record_waiting(run, 1, "for 8 GPUs")
        mlflow_run_id = runs.tracking.open_run(opening(new_id(), "x"), retried=False).run_id
        prefect.label(run, mlflow_run_id)
        found = prefect.runs[UUID(run)]
        found.labels |= {runs.USER_LABEL: "me", runs.SLOT_LABEL: "2026-01-02T03:04:05Z"}
        found.created = found.start_time = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        found.end_time = datetime(2026, 1, 2, tzinfo=UTC)
        found.estimated_run_time = timedelta(seconds=1.25)
        found.parameters = {"a": float("1"), "b": [None]}
        retried = [RetriedAttempt(1, "No pod.", begun=False)]
        monkeypatch.setattr(run_attempts, "retried", lambda _: retried)
        history.record("run", run, "stop")

        listed = printed(capsys, runs.list_all())[0]
        shown = printed(capsys, runs.show(run))

        times = {"created": "str", "started": "str", "ended": "str"}
        assert shape(listed) == {**ROW, **times, "waiting": "str"}
        assert listed["created"] == shown["created"] == "2026-01-02T03:04:05.000006+00:00"
        assert listed["ended"] == "2026-01-02T00:00:00+00:00"
        assert listed["seconds"] == 1.2
        assert shape(shown) == {
            **SHOWN, **times, "user": "str", "slot": "str", "retried": ["str"],
            "parameters": {"a": "float", "b": ["NoneType"]},
            "result": {"mlflow_run_id": "str", "model_uri": "NoneType", "metrics": {}},
            "links": {"prefect": "str", "mlflow": "str"}, "history": [DEED],
        }  # fmt: skip
        assert (shown["message"], shown["attempts"]) == ("for 8 GPUs", 1)

    def test_of_a_batch_inference(self, prefect: PrefectClient, capsys: Capsys) -> None:
        run = prefect.add("batch-inference", "b")
        tracked = runs.tracking.open_run(opening(run, "x"), retried=False).run_id
        prefect.label(run, tracked)
        mlflow = runs.tracking.client()
        reasons = [{"reason": "late", "count": 2, "file": "a.jsonl", "row": 7}] * 900
        mlflow.set_tag(tracked, REASONS_TAG, batch_inference_results.reasons_tag(reasons))
        mlflow.set_tag(tracked, MANIFEST_TAG, "/out/manifest.json")

        result = printed(capsys, runs.show(run))["result"]
        assert shape({**result, "failure_reasons": result["failure_reasons"][:1]}) == {
            "mlflow_run_id": "str", "records": "int", "failed": "int", "manifest_uri": "str",
            "failure_reasons": [{"count": "int", "reason": "str", "file": "str", "row": "int"}],
            "metrics": {},
        }  # fmt: skip
        assert 50 < len(result["failure_reasons"]) < 200  # as many as a tag of MLflow holds

    def test_of_an_evaluation(
        self, prefect: PrefectClient, capsys: Capsys, tmp_path: Path
    ) -> None:
        run = prefect.add("evaluate", "e")
        tracked = runs.tracking.open_run(opening(run, "x"), retried=False).run_id
        prefect.label(run, tracked)
        wanted = {"mlflow_run_id": "str", "metrics": {}, "undefined": {}, "counts": {}}

        begun = printed(capsys, runs.show(run))["result"]
        assert shape(begun) == {**wanted, "result_uri": "NoneType"}
        (tmp_path / RESULT).write_text(json.dumps(RESULT_FILE))
        mlflow = runs.tracking.client()
        mlflow.log_artifact(tracked, str(tmp_path / RESULT), FOLDER)
        mlflow.set_tag(tracked, RESULT_TAG, "/out/evaluation/result.json")
        result = printed(capsys, runs.show(run))["result"]

        assert result == {
            "mlflow_run_id": tracked, "metrics": RESULT_FILE["metrics"],
            "undefined": RESULT_FILE["undefined"], "counts": RESULT_FILE["counts"],
            "result_uri": "/out/evaluation/result.json",
        }  # fmt: skip
        assert list(result) == list(evaluation_items())

    def test_of_a_pipeline(self, prefect: PrefectClient, capsys: Capsys) -> None:
        run = prefect.add("pipeline-run", "p")
        prefect.label(run, runs.tracking.open_run(opening(run, "x"), retried=False).run_id)
        outputs = {"parameters": {"a": 1}}
        root = PipelineNode(run, ROOT, "p", "dag", "SUCCEEDED", outputs=outputs)
        pipeline_nodes.put([root, PipelineNode(run, "t", "t", "task", "RUNNING")])

        assert shape(printed(capsys, runs.show(run))["result"]) == {
            "mlflow_run_id": "str", "outputs": {"a": "int"},
            "tasks": [{"name": "str", "title": "str", "state": "str", "reason": "str"}],
        }  # fmt: skip


class TestTunings:
    BEST = {"number": "int", "parameters": {"lr": "float"}, "mlflow_run_id": "NoneType"}
    TRIAL = {**BEST, "state": "str", "attempts": "int"}

    def test_of_one_objective(
        self, prefect: PrefectClient, name: str, tmp_path: Path, capsys: Capsys
    ) -> None:
        tuning = Tuning(prefect, name, tmp_path, state=Completed())
        tunings.mark_objectives(tuning.run_id, ["loss"])
        assert printed(capsys, runs.show(tuning.id))["result"] == {
            "mlflow_run_id": tuning.run_id, "best": None, "model_uri": None, "trials": [],
        }  # fmt: skip
        empty = printed(capsys, runs.list_all())[0]
        assert (empty["trials"], empty["best"]) == ({"done": 0, "running": 0, "failed": 0}, None)

        trials.save(
            tuning.id,
            row(0, flow_run_id="f", reason="Odd."), row(1, values=None), row(2, state="KILLED"),
        )  # fmt: skip
        tunings.mark_best(tuning.run_id, [0])
        listed = printed(capsys, runs.list_all())[0]

        assert shape(printed(capsys, runs.show(tuning.id))["result"]) == {
            "mlflow_run_id": "str",
            "best": {**self.BEST, "value": "float"},
            "model_uri": "NoneType",
            "trials": [
                {**self.TRIAL, "value": "float", "flow_run_id": "str", "reason": "str"},
                {**self.TRIAL, "value": "NoneType"},
                {**self.TRIAL, "value": "float"},
            ],
        }  # fmt: skip
        assert listed["trials"] == {"done": 2, "running": 0, "failed": 0, "stopped": 1}
        assert shape({**listed, "trials": {}}) == {**ROW, "trials": {}, "best": "float"}

    def test_of_several(
        self, prefect: PrefectClient, name: str, tmp_path: Path, capsys: Capsys
    ) -> None:
        tuning = Tuning(prefect, name, tmp_path)
        tunings.mark_objectives(tuning.run_id, ["loss", "size"])
        trials.save(tuning.id, row(0, values=(0.5, float("nan"))))
        tunings.mark_best(tuning.run_id, [0])
        found = printed(capsys, runs.show(tuning.id))["result"]

        assert (found["best"], found["front"][0]["value"]) == (None, [0.5, None])
        assert list(found) == ["mlflow_run_id", "best", "front", "model_uri", "trials"]


VERSION = {
    "version": "int", "uri": "str", "state": "str", "description": "str", "framework": "str",
    "framework_version": "str", "source_uri": "NoneType", "parameters": {"model_id": "str"},
    "aliases": ["str"], "run_name": "NoneType", "flow_run_id": "NoneType",
    "mlflow_run_id": "NoneType", "created": "int", "deletion_error": "NoneType",
}  # fmt: skip


def test_models(name: str, capsys: Capsys) -> None:
    made = models.create(
        name, ServingSpec("huggingface", "", {"model_id": "a/b"}), description="d"
    )
    assert shape(printed(capsys, made)) == {**VERSION, "aliases": []}

    model_aliases.point(name, "champion", 1)
    models.client().set_registered_model_alias(name, "outside", "1")
    found: dict[str, Any] = printed(capsys, models.show(name))
    (listed,) = [one for one in printed(capsys, models.list_all()) if one["name"] == name]

    assert [deed["verb"] for deed in found.pop("history")] == ["create", "alias"]
    assert shape(found) == {
        "name": "str", "description": "str", "state": "str",
        "aliases": {"champion": "int", "outside": "int"},
        "aliases_changed_outside": [{"alias": "str", "known": "NoneType", "actual": "int"}],
        "versions": [VERSION],
    }  # fmt: skip
    assert shape(listed) == {
        "name": "str", "description": "str", "state": "str", "framework": "str",
        "framework_version": "str", "newest_version": "int",
        "aliases": {"champion": "int", "outside": "int"}, "source_uri": "NoneType",
        "flow_run_id": "NoneType", "updated": "int",
    }  # fmt: skip
    moves = printed(capsys, model_aliases.moves(name))
    assert shape(moves[0]) == {
        "at": "str", "user": "str", "alias": "str", "from": "NoneType", "to": "int", "why": "str",
    }  # fmt: skip


def test_a_model_without_versions(name: str, capsys: Capsys) -> None:
    models.client().create_registered_model(name)
    (listed,) = [one for one in printed(capsys, models.list_all()) if one["name"] == name]

    assert (listed["framework"], listed["framework_version"], listed["newest_version"]) == (
        None, None, None,
    )  # fmt: skip
    assert printed(capsys, models.show(name))["versions"] == []


def test_pipelines(name: str, capsys: Capsys) -> None:
    pipelines.add(name, b"one", "p.yaml", "digest" * 9)
    pipelines.add(name, b"two", "p.yaml", "other" * 9, about="second")
    row = {
        "name": "str", "state": "str", "version": "int", "versions": "int", "description": "str",
        "created": "str", "created_by": "str", "changed": "str", "changed_by": "str",
        "error": "str",
    }  # fmt: skip
    version = {
        "version": "int", "state": "str", "description": "str", "file": "str", "digest": "str",
        "created": "str", "created_by": "str",
    }  # fmt: skip
    listed = [one for one in printed(capsys, pipelines.list_all()) if one["name"] == name]
    shown = printed(capsys, pipelines.show(f"{name}:1"))

    assert shape(listed) == [row]
    assert (listed[0]["version"], listed[0]["versions"]) == (2, 2)
    assert len(shown["versions"][0]["digest"]) == 12
    assert shape(printed(capsys, pipelines.versions(name))) == [version]
    assert shape({**shown, "history": []}) == {
        **row, "versions": [version], "deployment": "str", "history": [],
    }  # fmt: skip
    assert printed(capsys, pipelines.describe(name, "new"))["description"] == "new"
