"""Complete evaluations, read from their MLflow runs, and gates between two versions of a model."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from infra.errors import ConflictError, NotFoundError
from infra.mlflow import MlflowException
from registry import evaluations, tracking
from registry.evaluation_results import (
    CURVES,
    EVALUATED_TAG,
    FOLDER,
    RESULT,
    SAMPLE,
    EvaluationComparisonView,
    EvaluationResultView,
)
from registry.evaluations import KIND, EvaluationView
from registry.models import model_aliases, models
from registry.runs import runs
from registry.runs.run_views import RunView
from tasks.evaluation import comparison, gate, row_sample
from tasks.evaluation.comparison import EvaluationRecord
from tasks.evaluation.gate import GateVerdict

# Fewer records are no ground for a decision.
_FEWEST = 30
_MOST_TRIED = 20
_REFERENCE = re.compile(r"(models:/|)([^/@]+)([/@].+)")


def find(key: str) -> EvaluationRecord:
    """A complete evaluation by the id or the name of its run.

    Raises:
        NotFoundError: If there is no such run; with the code ``EvaluationMissing``, if it is not
            an evaluation, or has no result.
        ConflictError: If several runs have the name.
    """
    run = runs.show(key)
    if run.flow != KIND:
        raise _missing(f"The run {key!r} is not an evaluation.")
    if run.mlflow_run_id is None:
        raise _missing(f"The evaluation {run.name!r} has no result: it is {run.state}.")
    return read(run.mlflow_run_id, run.name)


def read(mlflow_run_id: str, name: str = "") -> EvaluationRecord:
    """A complete evaluation by its MLflow run; ``name`` is its run's, if that is known.

    Raises:
        NotFoundError: With the code ``EvaluationMissing``, if it has no result.
    """
    client = tracking.client()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = client.get_run(mlflow_run_id)
            client.download_artifacts(mlflow_run_id, FOLDER, folder)
            place = next(Path(folder).rglob(RESULT)).parent
        except (MlflowException, StopIteration, OSError) as error:
            raise _missing(f"The evaluation {name or mlflow_run_id} has no result.") from error
        result: dict[str, Any] = json.loads((place / RESULT).read_bytes())
        result["model"] = run.data.tags.get(EVALUATED_TAG, result["model"])  # as it is called now
        curves = place / CURVES
        return EvaluationRecord(
            str(result["flow_run_id"]),
            name or run.info.run_name,
            result,
            json.loads(curves.read_bytes()) if curves.exists() else {},
            row_sample.read(place / SAMPLE),
        )


def _missing(message: str) -> NotFoundError:
    return NotFoundError(
        message,
        "modelyard evaluation list lists the evaluations; one that is COMPLETE has a result.",
        code="EvaluationMissing",
    )


def list_all(limit: int = 50) -> list[EvaluationView]:
    """List evaluations, newest first; ``limit`` of them at most."""
    return [
        EvaluationView(
            id=run.id,
            name=run.name,
            model=_model_now(run),
            task=str(run.parameters.get("task", "classification")),
            state=run.state,
            started=run.started,
        )
        for run in runs.list_all(flow=KIND, limit=limit)
    ]


def _model_now(run: RunView) -> str:
    """The model that a run was given, by the name that it has now."""
    given = str(run.parameters.get("model", ""))
    found = _REFERENCE.fullmatch(given)
    if found is None or run.created is None:
        return given
    return f"{found[1]}{model_aliases.current_name(found[2], run.created)}{found[3]}"


def show(key: str) -> EvaluationResultView:
    """The result of a complete evaluation, by the id or the name of its run.

    Raises:
        NotFoundError: With the code ``EvaluationMissing``, if it has none.
    """
    return EvaluationResultView.model_validate(find(key).result)


def compare(keys: Sequence[str]) -> EvaluationComparisonView:
    """Compare evaluations by the ids or names of their runs; see :func:`comparison.compare`.

    Raises:
        ModelyardError: If one is missing, or they are not comparable.
    """
    return comparison.compare([find(key) for key in keys])


def promote(
    name: str, version: int, alias: str, rules: Sequence[str] = (), why: str = ""
) -> dict[str, Any]:
    """Point an alias at a version, if its evaluation passes every rule.

    Args:
        name: The model's name.
        version: The version.
        alias: The alias.
        rules: Rules such as ``roc_auc >= old + 0.01``, where ``old`` is the version to which the
            alias points; without any, the alias is moved.
        why: A reason for the history.

    Returns:
        ``{"alias", "from", "to", "gate"}``.

    Raises:
        BadInputError: With the code ``GateInvalid``.
        NotFoundError: If there is no such version, or no evaluation of it.
        ConflictError: ``GateNotPassed``, also where there is nothing to compare with;
            ``EvaluationsNotComparable``; ``AliasMoved``.
    """
    parsed = [gate.parse(rule) for rule in rules]
    if not parsed:
        return {**model_aliases.point(name, alias, version, why), "gate": None}
    new = models.resolve(f"models:/{name}/{version}").uri
    before = model_aliases.target(name, alias, why)
    needs_old = any(rule.needs_old for rule in parsed)
    if before == version:
        raise ConflictError(
            f"The alias {alias} points to {new} already.",
            "Give another version.",
            code="AliasMoved",
        )
    versions = [version, *([before] if needs_old and before is not None else [])]
    records = _records(name, versions)
    found = comparison.sides(records)
    other = found[1] if len(found) > 1 else None
    unfit = _unfit(*records)
    verdicts = [gate.judge(rule, found[0], other) for rule in parsed]
    if unfit:
        verdicts = [replace(one, passed=False, reason=unfit) for one in verdicts]
    detail = _detail(records, verdicts)
    if not detail["passed"]:
        model_aliases.record_refusal(before, name, alias, version, why, detail)
        reasons = " ".join(one.reason for one in verdicts if not one.passed)
        raise ConflictError(
            f"{new} does not pass the gate of {name}@{alias}: {reasons}",
            "The alias stays. Evaluate a better version; or move it without a gate: modelyard "
            f"model alias {name} {alias} {version}.",
            code="GateNotPassed",
        )
    moved = model_aliases.point_from(before, name, alias, version, why, detail)
    return {**moved, "gate": detail}


def _unfit(new: EvaluationRecord, old: EvaluationRecord | None = None) -> str:
    """Why a new version passes no rule, whatever its metrics are; "" if it may.

    Metrics are of the records that a model has predicted, so one that fails on the hard ones must
    not gain by it; and of few records, the draws of the bootstrap know too little.
    """
    evaluated = int(new.result["counts"]["evaluated"])
    if evaluated < _FEWEST:
        return f"Only {evaluated} records were evaluated, and a gate takes {_FEWEST}."
    lost = _unpredicted(new)
    before = _unpredicted(old) if old else 0
    if lost <= before:
        return ""
    than = f", and {before} by the old side" if old else ""
    return f"{lost} of {new.result['counts']['records']} records were not predicted{than}."


def _unpredicted(record: EvaluationRecord) -> int:
    counts = record.result["counts"]
    return int(counts["failed"]) + int(counts["missing_predictions"])


def _detail(
    records: Sequence[EvaluationRecord], verdicts: Sequence[GateVerdict]
) -> dict[str, Any]:
    """What the history keeps of a gate."""
    return {
        "passed": all(one.passed for one in verdicts),
        "rules": [one.to_json() for one in verdicts],
        "evaluations": [record.run_id for record in records],
        "models": [record.model for record in records],
    }


def _records(name: str, versions: Sequence[int]) -> list[EvaluationRecord]:
    """The newest evaluation of the new version, and the old one's newest of the same data.

    Raises:
        NotFoundError: With the code ``EvaluationMissing``.
        ConflictError: With the code ``EvaluationsNotComparable``.
    """
    found = [_newest(name, version) for version in versions]
    pairs = product(found[0][:1], *found[1:])
    chosen = next((pair for pair in pairs if not comparison.differences(pair)), None)
    if chosen is None:
        chosen = tuple(some[0] for some in found)
        comparison.check_comparable(chosen)
    return list(chosen)


def _newest(name: str, version: int) -> list[EvaluationRecord]:
    ids = evaluations.of_model(name, version)[:_MOST_TRIED]
    if not ids:
        raise NotFoundError(
            f"models:/{name}/{version} has no evaluation that is complete.",
            f"Evaluate it: modelyard run evaluate -p model={name}/{version} ...",
            code="EvaluationMissing",
        )
    return [read(one) for one in ids]
