"""Promotion of versions by gates: which evaluations are judged, and what the history keeps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.errors import ConflictError, ModelyardError, NotFoundError
from registry.evaluation_results import EVALUATED_TAG
from registry.runs.run_views import RunView
from tasks.evaluation import evaluation_records
from tests.tasks.evaluation.test_comparison import record

Done = list[Any]


@pytest.fixture
def done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    """What is written; version 1, which has the alias, is worse than version 2."""
    made = {"one": record(tmp_path, "m", 0.5), "two": record(tmp_path, "m", 1.5, 3)}
    found: Done = []
    module = evaluation_records
    monkeypatch.setattr(module, "read", lambda key: made[key])
    of = {1: ["one"], 2: ["two"], 3: []}
    monkeypatch.setattr(module.evaluations, "of_model", lambda _, version: of[version])
    monkeypatch.setattr(module.models, "resolve", lambda uri: type("V", (), {"uri": uri}))
    aliases = module.model_aliases
    monkeypatch.setattr(aliases, "target", lambda *_: 1)

    def write(name: str) -> Any:
        return lambda *args: found.append((name, *args)) or {"to": 2}

    for name in ("point", "point_from", "record_refusal"):
        monkeypatch.setattr(aliases, name, write(name))
    return found


def test_a_version_that_passes_takes_the_alias(done: Done) -> None:
    found = evaluation_records.promote("m", 2, "best", ["roc_auc >= old + 0.01"], "why not")

    assert found["gate"]["passed"]
    (written,) = done
    assert written[:6] == ("point_from", 1, "m", "best", 2, "why not")
    assert written[6]["rules"][0]["new"] > written[6]["rules"][0]["old"]
    assert written[6]["evaluations"] == ["m", "m"]


def test_one_rule_that_is_not_passed_refuses_it(done: Done) -> None:
    with pytest.raises(ConflictError) as raised:
        evaluation_records.promote("m", 2, "best", ["f1 > old", "roc_auc > old + 0.4"])

    assert raised.value.code == "GateNotPassed"
    assert "roc_auc is" in raised.value.message
    assert "f1 is" not in raised.value.message
    (written,) = done
    assert written[0] == "record_refusal"
    assert [one["passed"] for one in written[6]["rules"]] == [True, False]


@pytest.mark.parametrize(
    ("version", "rule", "code"),
    [
        (1, "f1 > old", "AliasMoved"),
        (3, "f1 > old", "EvaluationMissing"),
        (2, "f1 is better", "GateInvalid"),
    ],
)
def test_faults(done: Done, version: int, rule: str, code: str) -> None:
    with pytest.raises(ModelyardError) as raised:
        evaluation_records.promote("m", version, "best", [rule])

    assert raised.value.code == code
    assert not done


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ("train", "The run 'mine' is not an evaluation."),
        ("evaluate", "The evaluation 'mine' has no result: it is CREATE FAILED."),
    ],
)
def test_a_run_without_a_result_is_told(
    monkeypatch: pytest.MonkeyPatch, flow: str, message: str
) -> None:
    run = SimpleNamespace(flow=flow, name="mine", state="CREATE FAILED", mlflow_run_id=None)
    monkeypatch.setattr(evaluation_records.runs, "show", lambda key: run)

    with pytest.raises(NotFoundError) as raised:
        evaluation_records.find("mine")

    assert raised.value.code == "EvaluationMissing"
    assert raised.value.message == message


def test_without_a_gate_the_alias_is_moved(done: Done) -> None:
    assert evaluation_records.promote("m", 2, "best")["gate"] is None
    assert done == [("point", "m", "best", 2, "")]


def test_without_an_old_version_a_relative_rule_is_not_passed(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_records.model_aliases, "target", lambda *_: None)

    with pytest.raises(ConflictError, match="There is no old side"):
        evaluation_records.promote("m", 2, "best", ["f1 > old"])
    assert evaluation_records.promote("m", 2, "best", ["f1 > 0.5"])["gate"]["passed"]


@pytest.mark.parametrize(
    ("counts", "rule", "told"),
    [
        ({"failed": 50}, "f1 > old", "50 of 400 records were not predicted, and 0 by the old"),
        ({"missing_predictions": 3}, "f1 > 0.1", "3 of 400 records were not predicted"),
        ({"evaluated": 29}, "f1 > 0.1", "Only 29 records were evaluated"),
    ],
)
def test_a_version_that_leaves_records_out_does_not_gain_by_it(
    done: Done, monkeypatch: pytest.MonkeyPatch, counts: dict[str, int], rule: str, told: str
) -> None:
    read = evaluation_records.read

    def lossy(key: str) -> Any:
        found = read(key)
        if key == "two":
            changed = {**found.result["counts"], "records": 400, **counts}
            found = replace(found, result={**found.result, "counts": changed})
        return found

    monkeypatch.setattr(evaluation_records, "read", lossy)
    with pytest.raises(ConflictError) as raised:
        evaluation_records.promote("m", 2, "best", [rule])

    assert raised.value.code == "GateNotPassed"
    assert told in raised.value.message


def test_the_newest_evaluation_of_the_new_version_is_judged(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = evaluation_records.read

    def elsewhere(key: str) -> Any:
        found = read("two" if key == "newest" else key)
        if key == "newest":
            found = replace(found, result={**found.result, "data": {"sha256": "e" * 64}})
        return found

    of = {1: ["one"], 2: ["newest", "two"]}
    monkeypatch.setattr(evaluation_records, "read", elsewhere)
    monkeypatch.setattr(evaluation_records.evaluations, "of_model", lambda _, version: of[version])
    with pytest.raises(ConflictError) as raised:
        evaluation_records.promote("m", 2, "best", ["f1 > old"])

    assert raised.value.code == "EvaluationsNotComparable"


def test_a_renamed_model_is_called_by_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, "kept", 1)  # models:/kept/1
    run = SimpleNamespace(
        info=SimpleNamespace(run_name="judged"),
        data=SimpleNamespace(tags={EVALUATED_TAG: "models:/renamed/1"}),
    )

    class Client:
        def get_run(self, _: str) -> Any:
            return run

        def download_artifacts(self, _: str, folder: str, into: str) -> None:
            shutil.copytree(tmp_path / "kept", Path(into) / folder)

    monkeypatch.setattr(evaluation_records.tracking, "client", Client)

    found = evaluation_records.read("m")

    assert (found.name, found.model) == ("judged", "models:/renamed/1")
    run.data.tags.clear()
    assert evaluation_records.read("m", "asked").model == "models:/kept/1"


@pytest.mark.parametrize(
    ("given", "shown"),
    [("old/3", "new/3"), ("old@best", "new@best"), ("models:/old/3", "models:/new/3"),
     ("other/1", "other/1"), ("", "")],
)  # fmt: skip
def test_a_list_has_the_new_names_as_well(
    monkeypatch: pytest.MonkeyPatch, given: str, shown: str
) -> None:
    run = RunView(
        id="r", name="judged", flow="evaluate", state="COMPLETE", created=datetime.now(UTC),
        parameters={"model": given},
    )  # fmt: skip
    monkeypatch.setattr(evaluation_records.runs, "list_all", lambda **_: [run])
    monkeypatch.setattr(
        evaluation_records.model_aliases, "current_name",
        lambda name, _: "new" if name == "old" else name,
    )  # fmt: skip

    (found,) = evaluation_records.list_all()

    assert found.model == shown
