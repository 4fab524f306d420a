"""The page of evaluations: the newest ones, and the comparison of those that are chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self
from urllib.parse import urlencode

from infra.errors import BadInputError, ModelyardError, NotFoundError, StackError
from modelyard.pages import evaluation_tables, evaluations, listing
from modelyard.pages.comparison_thread import Comparison, ComparisonThread, EvaluationFiles
from modelyard.pages.evaluation_curves import ComparedCurves, CurvesView
from modelyard.pages.listing import Ref
from modelyard.pages.servers import TrackedRun
from registry import evaluation_results, flow_kinds
from registry.evaluation_results import (
    FOLDER,
    MOST_COMPARED,
    RESULT,
    SAMPLE,
    EvaluationResultView,
)
from registry.runs import statuses
from registry.runs.run_views import RunView

_logger = logging.getLogger(__name__)
_MOST_LISTED = 30
_MOST_CHANGES = 50  # metrics of classes
_MOST_CLASSES = 30  # to choose one of
BETTER, WORSE = "better", "worse"


class ComparisonSource(Protocol):
    """Prefect and MLflow: see ``servers.Servers``."""

    def run(self, run_id: str) -> RunView | None:
        """A run."""

    def runs(self, limit: int, flow: str = "", *, tag: str = "") -> list[RunView]:
        """The newest runs."""

    def tracked(self, mlflow_run_id: str) -> TrackedRun | None:
        """A run as MLflow has it."""

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        """An artifact of a run, of at most so many bytes."""


@dataclass(frozen=True)
class ChosenEvaluations:
    """What the page compares, as its address says.

    Attributes:
        runs: The evaluations' runs; the first one is the baseline.
        of_class: The class whose curves are shown; empty for the usual ones.
    """

    runs: tuple[str, ...] = ()
    of_class: str = ""

    @classmethod
    def of(cls, runs: Sequence[str], of_class: str) -> Self:
        """Return what an address says.

        Raises:
            BadInputError: With the code ``EvaluationsNotComparable``, if it names too many.
        """
        different = tuple(dict.fromkeys(runs))
        if len(different) > MOST_COMPARED:
            raise BadInputError(
                f"{len(different)} evaluations cannot be compared.",
                f"Choose 2 to {MOST_COMPARED}.",
                code="EvaluationsNotComparable",
            )
        return cls(different, of_class)

    def address(self, *runs: str, of_class: str = "") -> str:
        """Return the page's address with other runs."""
        asked = [("run", run) for run in runs] + ([("class", of_class)] if of_class else [])
        return f"/evaluations?{urlencode(asked, errors='replace')}" if asked else "/evaluations"

    def with_run(self, run: str) -> str:
        """Return the address that compares one more; empty where there are enough."""
        return self.address(*self.runs, run) if len(self.runs) < MOST_COMPARED else ""

    def without(self, run: str) -> str:
        """Return the address that compares one less."""
        return self.address(*(one for one in self.runs if one != run))

    def based_on(self, run: str) -> str:
        """Return the address with another baseline."""
        return self.address(run, *(one for one in self.runs if one != run))

    def with_class(self, name: str) -> str:
        """Return the address with the curves of a class."""
        return f"{self.address(*self.runs, of_class=name)}#curves"


@dataclass(frozen=True)
class ListedEvaluation:
    """An evaluation in the list.

    Attributes:
        run: Its run.
        model: The model that it names.
        is_chosen: Whether it is compared.
        link: The page that compares it as well, or no longer; empty without one.
        is_alike: Whether its parameters name the data and the target of the baseline.
    """

    run: RunView
    model: str
    is_chosen: bool
    link: str
    is_alike: bool


@dataclass(frozen=True)
class ComparedEvaluation:
    """An evaluation that is compared.

    Attributes:
        run: Its run.
        model: The model version.
        evaluated: How many records it has evaluated; empty before it is known.
        verdicts: How many metrics differ from the baseline, in words; empty of the baseline.
        is_worse: Whether one of them is worse beyond chance.
        baseline: The page with it as the baseline; empty if it is that.
        without: The page without it.
    """

    run: RunView
    model: Ref | None
    evaluated: str
    verdicts: str
    is_worse: bool
    baseline: str
    without: str


@dataclass(frozen=True)
class ComparedCell:
    """A metric of an evaluation beside that of the baseline.

    Attributes:
        value: Its value.
        difference: Its difference from the baseline; empty if that is unknown.
        interval: The 95 % interval of the difference; empty if that is unknown.
        verdict: ``better``, ``worse``, ``by chance`` or ``unknown``.
    """

    value: str
    difference: str
    interval: str
    verdict: str


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of all evaluations.

    Attributes:
        name: Its name.
        baseline: Its value in the first evaluation.
        cells: The others.
    """

    name: str
    baseline: str
    cells: Sequence[ComparedCell]


@dataclass(frozen=True)
class ComparisonView:
    """A comparison.

    Attributes:
        evaluations: What is compared, the baseline first.
        metrics: The metrics of all records.
        changes: Metrics of classes that differ beyond chance, those first that are worse.
        unlisted: How many more of them there are.
        unchanged: How many metrics of classes do not.
        remarks: What to know of it.
        notice: Why there are no differences; empty if there are.
        is_computing: Whether they will be there soon.
        curves: The curves of all; None without any.
        classes: Classes to choose curves of.
        unlisted_classes: How many more there are.
    """

    evaluations: Sequence[ComparedEvaluation]
    metrics: Sequence[ComparedMetric] = ()
    changes: Sequence[ComparedMetric] = ()
    unlisted: int = 0
    unchanged: int = 0
    remarks: Sequence[str] = ()
    notice: str = ""
    is_computing: bool = False
    curves: CurvesView | None = None
    classes: Sequence[Ref] = ()
    unlisted_classes: int = 0


@dataclass(frozen=True)
class EvaluationsPageView:
    """The page of evaluations.

    Attributes:
        comparison: The comparison; None if fewer than two are chosen.
        rows: The newest evaluations.
        notice: Why they are not listed; empty if they are.
        is_choosing: Whether one is chosen, and another is wanted.
    """

    comparison: ComparisonView | None
    rows: Sequence[ListedEvaluation]
    notice: str
    is_choosing: bool


def of(
    source: ComparisonSource, thread: ComparisonThread, chosen: ChosenEvaluations
) -> EvaluationsPageView:
    """Return the page of evaluations.

    Args:
        source: Prefect and MLflow.
        thread: What compares.
        chosen: What is compared.

    Raises:
        NotFoundError: If a run does not exist, or is not an evaluation.
        StackError: If Prefect does not answer while evaluations are chosen.
    """
    runs = [_evaluation(source, run_id) for run_id in chosen.runs]
    notice, listed = "", []
    try:
        listed = source.runs(_MOST_LISTED, flow_kinds.EVALUATE.name)
    except StackError as error:
        notice = error.message
    return EvaluationsPageView(
        comparison=_compared(source, thread, chosen, runs) if len(runs) > 1 else None,
        rows=[_listed(run, chosen, runs) for run in listed],
        notice=notice,
        is_choosing=len(runs) == 1,
    )


def _evaluation(source: ComparisonSource, run_id: str) -> RunView:
    run = source.run(run_id)
    if run is None or run.flow != flow_kinds.EVALUATE.name:
        raise NotFoundError(
            f"The run {run_id} is not an evaluation." if run else f"There is no run {run_id}.",
            "The page of evaluations lists those there are, and modelyard evaluation list.",
            code="EvaluationMissing",
        )
    return run


_OF_DATA = ("task", "target_field", "input_uri")


def _listed(
    run: RunView, chosen: ChosenEvaluations, compared: Sequence[RunView]
) -> ListedEvaluation:
    is_chosen = run.id in chosen.runs
    link = ""
    if is_chosen:
        link = chosen.without(run.id)
    elif run.state == statuses.COMPLETE:
        link = chosen.with_run(run.id)
    first = compared[0].parameters if compared else {}
    return ListedEvaluation(
        run=run,
        model=listing.shortened(str(run.parameters.get("model") or "")),
        is_chosen=is_chosen,
        link=link,
        is_alike=bool(first)
        and all(run.parameters.get(name) == first.get(name) for name in _OF_DATA),
    )


@dataclass(frozen=True)
class _Read:
    """An evaluation whose result was read."""

    run: RunView
    model: Ref | None
    content: bytes
    result: EvaluationResultView

    @classmethod
    def of(cls, source: ComparisonSource, run: RunView) -> Self:
        """Read a result.

        Raises:
            NotFoundError: With the code ``EvaluationMissing``, if there is none.
            StackError: If MLflow does not answer.
        """
        content = tracked = None
        if run.mlflow_run_id and run.state == statuses.COMPLETE:
            path = f"{FOLDER}/{RESULT}"
            content = source.artifact(run.mlflow_run_id, path, evaluations.MOST_BYTES)
            tracked = source.tracked(run.mlflow_run_id)
        try:
            result = evaluation_results.result(content or b"")
            return cls(run, evaluations.model(run, tracked), content or b"", result)
        except ValueError:
            raise NotFoundError(
                f"The evaluation {listing.title(run)} has no result.",
                "One that is COMPLETE has.",
                code="EvaluationMissing",
            ) from None


def _compared(
    source: ComparisonSource,
    thread: ComparisonThread,
    chosen: ChosenEvaluations,
    runs: Sequence[RunView],
) -> ComparisonView:
    try:
        read = [_Read.of(source, run) for run in runs]
    except ModelyardError as error:
        return ComparisonView([_row(run, chosen) for run in runs], notice=str(error))
    key = tuple((run.mlflow_run_id, run.name) for run in runs)
    notice, found = "", None
    try:
        found = thread.find(key, lambda: [_files(source, one) for one in read])
    except ModelyardError as error:
        notice = listing.shortened(error.message)
        if error.hint:
            notice = f"{notice} {error.hint}"
    if found is None:
        rows = [_row(one.run, chosen, one) for one in read]
        return ComparisonView(rows, notice=notice, is_computing=not notice)
    return _view(source, chosen, read, found)


def _files(source: ComparisonSource, one: _Read) -> EvaluationFiles:
    assert one.run.mlflow_run_id is not None
    path = f"{FOLDER}/{SAMPLE}"
    sample = source.artifact(one.run.mlflow_run_id, path, evaluations.MOST_BYTES)
    return EvaluationFiles(one.run.id, listing.title(one.run), one.content, sample or b"")


def _view(
    source: ComparisonSource,
    chosen: ChosenEvaluations,
    read: Sequence[_Read],
    found: Comparison,
) -> ComparisonView:
    first = read[0].result
    everything = {
        name: _metric(first.task, name, metric) for name, metric in found.metrics.items()
    }
    of_classes = [row for name, row in everything.items() if "/" in name]
    changed = sorted(filter(_is_changed, of_classes), key=_is_worse, reverse=True)
    rows = [row for name, row in everything.items() if "/" not in name]
    classes = first.class_names[:_MOST_CLASSES]
    return ComparisonView(
        evaluations=[
            _row(one.run, chosen, one, [row.cells[at - 1] for row in rows if at])
            for at, one in enumerate(read)
        ],
        metrics=rows,
        changes=changed[:_MOST_CHANGES],
        unlisted=max(0, len(changed) - _MOST_CHANGES),
        unchanged=len(of_classes) - len(changed),
        remarks=found.remarks,
        curves=_curves(source, chosen, read, found),
        classes=[
            Ref(evaluation_tables.name_of(name), chosen.with_class(name)) for name in classes
        ],
        unlisted_classes=len(first.class_names) - len(classes),
    )


def _row(
    run: RunView,
    chosen: ChosenEvaluations,
    read: _Read | None = None,
    cells: Sequence[ComparedCell] = (),
) -> ComparedEvaluation:
    counts = {verdict: sum(cell.verdict == verdict for cell in cells) for verdict in _VERDICTS}
    return ComparedEvaluation(
        run=run,
        model=read.model if read else None,
        evaluated=f"{read.result.counts.get('evaluated', 0):,}" if read else "",
        verdicts=", ".join(f"{many} {verdict}" for verdict, many in counts.items() if many),
        is_worse=counts[WORSE] > 0,
        baseline=chosen.based_on(run.id) if run.id != chosen.runs[0] else "",
        without=chosen.without(run.id),
    )


_VERDICTS = (WORSE, BETTER, "by chance", "unknown")


def _metric(task: str, name: str, found: Mapping[str, Any]) -> ComparedMetric:
    values = [evaluation_tables.number(task, value) for value in found["values"]]
    cells = [
        _cell(task, value, one)
        for value, one in zip(values[1:], found["differences"], strict=True)
    ]
    return ComparedMetric(evaluation_tables.name_of(name), values[0], cells)


def _cell(task: str, value: str, found: Mapping[str, Any]) -> ComparedCell:
    def signed(number: float | None) -> str:
        if number is None:
            return ""
        return f"{number:+.4f}" if task == "classification" else f"{number:+.5g}"

    low, high = signed(found["low"]), signed(found["high"])
    interval = f"{low} to {high}" if low else ""
    return ComparedCell(value, signed(found["difference"]), interval, found["verdict"])


def _is_changed(row: ComparedMetric) -> bool:
    return any(cell.verdict in {BETTER, WORSE} for cell in row.cells)


def _is_worse(row: ComparedMetric) -> bool:
    return any(cell.verdict == WORSE for cell in row.cells)


def _curves(
    source: ComparisonSource,
    chosen: ChosenEvaluations,
    read: Sequence[_Read],
    found: Comparison,
) -> CurvesView | None:
    made = ComparedCurves(chosen.of_class if chosen.of_class in found.names[0] else "")
    for one, names in zip(read, found.names, strict=True):
        assert one.run.mlflow_run_id is not None
        try:
            curves = evaluations.read_curves(source, one.run.mlflow_run_id)
        except (StackError, ValueError) as error:
            _logger.warning("The curves of %s cannot be shown: %s", one.run.id, error)
            continue
        if curves is not None:
            page = f"/runs/{one.run.id}"
            made.add(listing.title(one.run), page, one.result, curves, names)
    return made.view(chosen.address(*chosen.runs))
