"""Promotion of versions by gates: which evaluations are judged, and what the history keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import ConflictError, ModelyardError
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
