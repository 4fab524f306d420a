"""The work of an evaluation: its files are read one after another, and its results written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from infra import storage
from infra.errors import BadInputError, NotFoundError, RunFailedError
from infra.storage import Store
from registry.evaluation_results import CURVES, RESULT, SAMPLE
from registry.flow_kinds import EVALUATE
from tasks.batch_inference import input_files, output_files, planning
from tasks.batch_inference.input_files import InputFile
from tasks.evaluation import joined_records, output_fields, plots, row_sample
from tasks.evaluation.evaluation_request import PREDICTIONS, Evaluation
from tasks.evaluation.figures import CheckOver
from tasks.evaluation.scoring import Scorer, Scores
from tasks.evaluation.slicing import SliceNumbers

_BLOCK = 2**20


@dataclass(frozen=True)
class EvaluationFolders:
    """Folders of an evaluation, which its attempts share.

    Attributes:
        root: The folder that holds the others.
    """

    root: Path

    @property
    def input(self) -> Path:
        """An input file that cannot be read in place."""
        return self.root / "input"

    @property
    def predictions(self) -> Path:
        """Predictions that cannot be read in place."""
        return self.root / "predictions"

    @property
    def sorting(self) -> Path:
        """Runs of sorted scores."""
        return self.root / "sorting"

    @property
    def output(self) -> Path:
        """The results, before they are published."""
        return self.root / "evaluation"


def select(request: Evaluation) -> list[InputFile]:
    """The files to evaluate with.

    Raises:
        BadInputError: With the code ``InputEmpty``.
    """
    found = storage.store(request.input_uri)
    return input_files.select(found, [f"*{request.suffix}"], [])


def check_first_file(
    request: Evaluation, files: Sequence[InputFile], folders: EvaluationFolders
) -> None:
    """Refuse data without the target, or with too many slices, before anything is predicted.

    Raises:
        BadInputError: With the code ``TargetMissing`` or ``SliceFieldMissing``.
        RunFailedError: With the code ``SlicesTooMany``, if the first records have too many; if
            later ones do, that is found behind the predictions.
    """
    place = storage.store(request.input_uri).in_place()
    # Of a storage the first file alone, which is fetched for it.
    for file in files[: None if place is not None else 1]:
        path = _local(request, file, folders)
        joined_records.check_fields(path, file.name, request)
        if request.slice_field and file is files[0]:
            values = joined_records.first_values(path, request.slice_field, request)
            SliceNumbers(request.slice_field).numbers(values, len(values))


def _local(request: Evaluation, file: InputFile, folders: EvaluationFolders) -> Path:
    store = storage.store(request.input_uri)
    return planning.path_of(input_files.local(store, [file], folders.input), file.name)


def score(
    request: Evaluation,
    files: Sequence[InputFile],
    folders: EvaluationFolders,
    predictions: PredictedFiles,
    check_over: CheckOver,
    report: Callable[[int], object],
) -> tuple[Scores, dict[str, Any]]:
    """Score the predictions of all files.

    Args:
        request: The evaluation.
        files: The input's files.
        folders: The run's folders.
        predictions: The predictions; see :func:`predicted`.
        check_over: Called often; raises to end it.
        report: Called often, with how many records were scored so far.

    Returns:
        The scores, and the data: each file's ``name``, ``bytes`` and ``sha256``.

    Raises:
        BadInputError: With the code ``OutputFieldMissing``.
        DiskFullError: If there is no room for sorted scores.
        RunFailedError: With a code of its own for each fault of the data.
    """
    _check_outputs(request, files, folders)
    folders.sorting.mkdir(parents=True, exist_ok=True)
    place = storage.store(request.place(PREDICTIONS))
    data = []
    with Scorer(request, folders.sorting, check_over, predictions.rows) as scorer:
        for file in files:
            path = _local(request, file, folders)
            results = _fetched(place, request, file, folders)
            joined = joined_records.read(path, results, file.name, request)
            scorer.add(file.name, joined, report)
            if _sha256(results, check_over) != predictions.checksums.get(file.name):
                raise _others_results(request)
            digest = _sha256(path, check_over)
            data.append({"name": file.name, "bytes": file.size, "sha256": digest})
            for staged, folder in ((path, folders.input), (results, folders.predictions)):
                if staged.is_relative_to(folder):
                    staged.unlink()
        scores = scorer.scores()
    return scores, {"files": data, "sha256": _combined(data)}


def _check_outputs(
    request: Evaluation, files: Sequence[InputFile], folders: EvaluationFolders
) -> None:
    """Refuse results that lack a field which is read, by the first of them."""
    predictions = storage.store(request.place(PREDICTIONS))
    for file in files:
        results = _fetched(predictions, request, file, folders)
        outputs = joined_records.first_outputs(results)
        if outputs is not None:
            output_fields.check(request, outputs, f"the first result of {file.name}")
            return


@dataclass(frozen=True)
class PredictedFiles:
    """Predictions of a data set.

    Attributes:
        rows: How many records it has.
        checksums: SHA-256 of the predictions of each input file, by its name.
    """

    rows: int
    checksums: Mapping[str, str]


def predicted(request: Evaluation, inference: str) -> PredictedFiles:
    """The predictions, of the manifest of a batch inference.

    Raises:
        RunFailedError: With the code ``ResultsDamaged``, if they are those of another run.
    """
    place = request.place(PREDICTIONS).rstrip("/")
    try:
        manifest = json.loads(storage.store(f"{place}/{output_files.MANIFEST}").read(""))
    except NotFoundError:
        raise _others_results(request) from None
    if manifest["flow_run_id"] != inference:
        raise _others_results(request)
    checksums = {str(file["input"]): str(file["sha256"]) for file in manifest["files"]}
    return PredictedFiles(int(manifest["rows"]), checksums)


def check_unchanged(
    request: Evaluation, files: Sequence[InputFile], folders: EvaluationFolders
) -> None:
    """Refuse input that is not what it was when the run first looked: it would be predicted anew.

    Of a storage names and sizes are compared, of files the times of their last change as well.

    Raises:
        BadInputError: With the code ``InputChanged``.
    """
    place = storage.store(request.input_uri).in_place()
    now = []
    for file in files:
        status = planning.path_of(place, file.name).stat() if place is not None else None
        now.append([file.name, file.size, status.st_mtime_ns if status else 0])
    seen = folders.root / "evaluated-input.json"
    if not seen.exists():
        partial = seen.with_suffix(".partial")
        partial.write_text(json.dumps(now))
        partial.replace(seen)
    elif json.loads(seen.read_text()) != now:
        raise BadInputError(
            f"The input {request.input_uri} was changed since the evaluation began.",
            "Start a new evaluation: the predictions are those of other data.",
            code="InputChanged",
        )


def _others_results(request: Evaluation) -> RunFailedError:
    return RunFailedError(
        f"The predictions in {request.place(PREDICTIONS)} are not those of the evaluation's own "
        "batch inference any more.",
        "Another run has published there: start a new evaluation, with an output of its own.",
        state=EVALUATE.failure,
        code="ResultsDamaged",
    )


def _fetched(
    predictions: Store, request: Evaluation, file: InputFile, folders: EvaluationFolders
) -> Path:
    """The output file of the batch inference for an input file."""
    name = output_files.name_of(file.name, request.input_format)
    place = predictions.in_place()
    if place is not None:
        path = place / name
    else:
        path = folders.predictions / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.store(f"{predictions.uri.rstrip('/')}/{name}").fetch(path)
    if not path.exists():
        raise RunFailedError(
            f"The predictions of {file.name} are missing: {predictions.uri}/{name}.",
            "Leave the results to the run while it evaluates; start a new evaluation.",
            state=EVALUATE.failure,
            code="ResultsDamaged",
        )
    return path


def _sha256(path: Path, check_over: CheckOver) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            check_over()
            digest.update(block)
    return digest.hexdigest()


def _combined(data: Sequence[Mapping[str, Any]]) -> str:
    named = [[one["name"], one["sha256"]] for one in data]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def write(
    scores: Scores, described: Mapping[str, Any], request: Evaluation, folder: Path
) -> dict[str, Any]:
    """Write an evaluation's results to ``folder``; the main one.

    Args:
        scores: What was found.
        described: What the result says beside them.
        request: The evaluation.
        folder: A folder, which is made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        **described,
        "task": request.task,
        "class_names": request.class_names,
        "target_field": request.target_field,
        "targets_sha256": scores.targets_sha256,
        "counts": scores.counts.as_json(),
        "examples": [one.to_json() for one in scores.counts.examples],
        "unseen_targets": dict(scores.counts.unseen.most_common()),
        "remarks": scores.counts.sentences(),
        **scores.overall,
        "intervals": scores.intervals,
        "slice_field": request.slice_field or None,
        "slices": scores.slices,
    }
    (folder / RESULT).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    if scores.curves:
        (folder / CURVES).write_bytes(orjson.dumps(scores.curves) + b"\n")
    for name, page in plots.plots(result, scores.curves).items():
        (folder / name).write_text(page)
    row_sample.write(scores.sample, folder / SAMPLE)
    return result
