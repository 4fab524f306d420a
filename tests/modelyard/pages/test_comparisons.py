"""The page of evaluations: which there are, and the comparison of those that are chosen."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.errors import BadInputError, StackError
from modelyard.pages.comparison_thread import Comparison, ComparisonThread, EvaluationFiles
from tests.modelyard.pages import evaluated
from tests.modelyard.pages.conftest import World, connected
from tests.modelyard.pages.test_evaluations import HOSTILE, QUOTED, check_harmless

OLD, NEW, THIRD = (f"{number}1111111-2222-3333-4444-555555555555" for number in (1, 2, 3))
Page = Callable[..., str]


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")


def have(
    world: World, run: str, name: str, hits: float, result: dict[str, Any], curves: Any = None
) -> None:
    """Have an evaluation that is complete."""
    parameters = {"model": "churn/3", "target_field": "churned", "input_uri": "s3://data/in"}
    world.exist(run=run, name=name, flow="evaluate", state="COMPLETE", is_final=True,
                mlflow_run_id=run, parameters=parameters)  # fmt: skip
    evaluated.keep(world, {**result, "targets_sha256": "ef" * 32}, curves, run)
    evaluated.sampled(world, run, hits, classes=len(result["class_names"]))


def classified(
    world: World, run: str, name: str, hits: float, classes: Sequence[str] = ("no", "yes")
) -> None:
    names = list(classes)
    result = evaluated.classified(names, metrics=evaluated.figures(names, hits))
    have(world, run, name, hits, result, evaluated.curves(names))


@pytest.fixture
def page(client: TestClient) -> Page:
    def get(*runs: str, **more: str) -> str:
        asked = [("run", run) for run in runs] + list(more.items())
        return client.get("/evaluations", params=asked).text

    return get


class TestComparison:
    @pytest.fixture(autouse=True)
    def _two(self, world: World) -> None:
        classified(world, OLD, "old", 0.95)
        classified(world, NEW, "new", 0.6)

    def test_what_is_worse_beyond_chance_is_marked(self, page: Page) -> None:
        shown = page(OLD, NEW)

        accuracy = shown.split(">accuracy</td>")[1].split("</tr>")[0]
        assert 'data-label="old" class="value">0.9500</td>' in accuracy
        worse = '<span class="verdict" data-verdict="worse">worse</span>'
        assert f'data-label="new" class="value">0.6000 {worse}' in accuracy
        assert '<span class="about">-0.3500 (-0.' in accuracy
        assert '<span class="verdict" data-verdict="worse">regression</span>' in shown
        assert "recall/yes</td>" in shown.split("Classes that differ")[1]

    def test_the_other_way_round_it_is_better(self, page: Page) -> None:
        shown = page(NEW, OLD)

        assert 'data-verdict="better">better' in shown
        assert 'data-verdict="worse"' not in shown

    def test_the_same_is_by_chance(self, world: World, page: Page) -> None:
        classified(world, THIRD, "third", 0.95)
        shown = page(OLD, THIRD)

        assert 'data-verdict="by chance">by chance' in shown
        assert "Classes that differ" not in shown
        assert "10 metrics of classes differ by chance alone" in shown

    def test_each_is_linked_and_may_be_the_baseline_or_removed(self, page: Page) -> None:
        shown = page(OLD, NEW)

        assert f'<a href="/runs/{OLD}">old</a>' in shown
        assert '<a href="http://mlflow/#/models/churn/versions/3">churn/3</a>' in shown
        assert f'<a href="/evaluations?run={NEW}&amp;run={OLD}">Baseline</a>' in shown
        assert f'<a href="/evaluations?run={OLD}" aria-label="Remove new">Remove</a>' in shown

    def test_curves_are_laid_over_each_other(self, page: Page) -> None:
        shown = page(OLD, NEW)
        roc, precision = shown.split("<figure")[1:]

        assert roc.count("<polyline") == precision.count("<polyline") == 2
        assert "ROC: yes" in roc
        assert f'<a href="/runs/{NEW}">new</a> <span class="about">ROC AUC 0.6000, PR AUC' in shown
        assert (
            f'<a href="/evaluations?run={OLD}&amp;run={NEW}&amp;class=no#curves">no</a>' in shown
        )

    def test_a_class_may_be_chosen(self, page: Page) -> None:
        shown = page(OLD, NEW, **{"class": "no"})

        assert "Curves of no</h2>" in shown
        assert "ROC: no" in shown
        assert page(OLD, NEW, **{"class": HOSTILE}) == page(OLD, NEW)

    def test_one_without_curves_has_none(self, world: World, page: Page) -> None:
        world.artifacts[NEW, "evaluation/curves.json"] = b"{"
        assert page(OLD, NEW).count("<polyline") == 2

        del world.artifacts[OLD, "evaluation/curves.json"]
        assert "<polyline" not in page(OLD, NEW)

    def test_classes_may_be_written_otherwise(self, world: World, page: Page) -> None:
        classified(world, OLD, "old", 0.9, ("0", "1"))
        classified(world, NEW, "new", 0.6, ("0.0", "1.0"))
        shown = page(OLD, NEW, **{"class": "0"})

        assert "precision/0</td>" in shown
        assert "precision/0.0" not in shown
        assert shown.split("<figure")[1].count("<polyline") == 2


def test_regressions_are_compared_by_their_errors(world: World, page: Page) -> None:
    for run, hits in ((OLD, 0.9), (NEW, 0.1)):
        have(
            world,
            run,
            run[:1],
            hits,
            evaluated.regressed(metrics={"mae": 1 - hits}),
            evaluated.ERRORS,
        )
    shown = page(OLD, NEW)

    assert 'data-label="2" class="value">0.9 <span class="verdict" data-verdict="worse">' in shown
    errors, residuals = shown.split("<figure")[1:]
    assert errors.count("<polyline") == residuals.count("<polyline") == 2
    assert "Class of the curves" not in shown


def test_several_classes_have_the_curves_of_all_together(world: World, page: Page) -> None:
    for run in (OLD, NEW):
        classified(world, run, run[:1], 0.8, ("a", "b", "c"))

    assert "ROC: all classes together" in page(OLD, NEW)


def test_names_are_escaped(world: World, page: Page) -> None:
    for run in (OLD, NEW):
        classified(
            world, run, f"{HOSTILE}{run[:1]}", 0.9 if run == OLD else 0.4, (HOSTILE, QUOTED)
        )

    for shown in (page(OLD, NEW), page(OLD, NEW, **{"class": HOSTILE})):
        check_harmless(shown)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
        assert "precision/&lt;script&gt;" in shown


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _two(self, world: World) -> None:
        classified(world, OLD, "old", 0.9)
        classified(world, NEW, "new", 0.9)

    def test_other_data_cannot_be_compared(self, world: World, page: Page) -> None:
        data = {"uri": "", "files": [], "sha256": HOSTILE}
        evaluated.keep(
            world, evaluated.classified(["no", "yes"], data=data, targets_sha256=""), None, NEW
        )
        shown = page(OLD, NEW)

        assert "The evaluations cannot be compared: the data of old and new differ" in shown
        assert "Evaluate each model with the same files" in shown
        assert 'http-equiv="refresh"' not in shown
        check_harmless(shown)

    @pytest.mark.parametrize("sample", [None, b"", b"PK", HOSTILE.encode()])
    def test_a_damaged_sample(self, world: World, page: Page, sample: bytes | None) -> None:
        world.artifacts.pop((NEW, "evaluation/sample.npz"))
        if sample is not None:
            world.artifacts[NEW, "evaluation/sample.npz"] = sample

        assert "The evaluations cannot be compared: MLflow has other files there." in page(
            OLD, NEW
        )

    @pytest.mark.parametrize("told", [{"state": "RUNNING"}, {"mlflow_run_id": None}])
    def test_one_without_a_result(self, world: World, page: Page, told: dict[str, Any]) -> None:
        usual = {"flow": "evaluate", "state": "COMPLETE", "mlflow_run_id": NEW}
        world.exist(run=NEW, name="new", **{**usual, **told})

        assert "The evaluation new has no result." in page(OLD, NEW)

    def test_a_result_that_is_none(self, world: World, page: Page) -> None:
        world.artifacts[NEW, "evaluation/result.json"] = b"{}"

        assert "The evaluation new has no result." in page(OLD, NEW)

    def test_mlflow_is_silent(self, world: World, page: Page) -> None:
        world.deaf = True

        assert "MLflow does not answer." in page(OLD, NEW)

    @pytest.mark.parametrize(
        ("asked", "status", "said"),
        [
            ([THIRD], 404, "There is no run"),
            ([OLD, "x"], 404, "is not the id of a run"),
            ([str(uuid.UUID(int=at)) for at in range(11)], 400,
             "11 evaluations cannot be compared."),
        ],
    )  # fmt: skip
    def test_what_cannot_be_chosen(
        self, client: TestClient, asked: list[str], status: int, said: str
    ) -> None:
        answer = client.get("/evaluations", params=[("run", run) for run in asked])

        assert answer.status_code == status
        assert said in answer.text

    def test_another_run(self, world: World, client: TestClient) -> None:
        world.exist(run=THIRD, flow="train")
        answer = client.get("/evaluations", params={"run": THIRD})

        assert answer.status_code == 404
        assert "is not an evaluation" in answer.text


class TestList:
    def test_without_any_it_says_how_to_begin(self, page: Page) -> None:
        assert "There is no evaluation yet." in page()

    def test_those_of_the_same_data_are_marked(self, world: World, page: Page) -> None:
        for run, name in ((OLD, "old"), (NEW, "new"), (THIRD, "third")):
            classified(world, run, name, 0.9)
        world.known[THIRD] = world.known[THIRD].model_copy(update={"parameters": {}})
        shown = page(OLD)

        assert "One is chosen, the baseline" in shown
        assert shown.count(">same data<") == 1
        assert f'<a href="/evaluations?run={OLD}&amp;run={NEW}" aria-label="Compare new">' in shown
        assert '<a href="/evaluations" aria-label="Remove old">' in shown

    def test_one_that_runs_cannot_be_chosen(self, world: World, page: Page) -> None:
        world.exist(run=OLD, flow="evaluate", state="RUNNING")

        assert f'<a href="/runs/{OLD}">a run</a>' in page()
        assert "Compare</a>" not in page()

    def test_prefect_is_silent(self, world: World, page: Page) -> None:
        world.silent = True

        assert "Prefect does not answer." in page()

    def test_a_run_leads_to_it(self, world: World, client: TestClient) -> None:
        classified(world, OLD, "old", 0.9)

        assert f'<a href="/evaluations?run={OLD}">Compare' in client.get(f"/runs/{OLD}").text


def _metric(verdict: str, others: int = 1) -> dict[str, Any]:
    one = {"difference": 0.5, "low": 0.25, "high": 0.75, "verdict": verdict}
    return {"values": [0.5] * (others + 1), "differences": [one] * others}


def test_a_page_is_bounded(world: World) -> None:
    names = [f"{'x' * 300}{at}" for at in range(1000)]
    runs = [str(uuid.UUID(int=at)) for at in range(10)]
    for run in runs:
        classified(world, run, run, 0.9, names)
    found = {
        f"{metric}/{name}": _metric("worse", 9) for metric in ("f1", "recall") for name in names
    }
    comparison = Comparison(found, [], [{name: name for name in names}] * 10)
    world.comparing = ComparisonThread(lambda _: comparison, wait_seconds=60)
    shown = connected(world).get("/evaluations", params=[("run", run) for run in runs]).text

    assert len(shown) < 400_000
    assert "… and 1950 more" in shown
    assert "… and 970 more classes" in shown
    assert shown.count("<polyline") == 20


class TestThread:
    FOUND = Comparison({}, [], [{}, {}])

    def test_a_page_shows_that_it_is_computed(self, world: World) -> None:
        go, began = threading.Event(), threading.Event()

        def compare(_: Sequence[EvaluationFiles]) -> Comparison:
            began.set()
            assert go.wait(60)
            return self.FOUND

        world.comparing = ComparisonThread(compare, wait_seconds=0)
        for run in (OLD, NEW):
            classified(world, run, run, 0.9)
        client = connected(world)
        asked = [("run", OLD), ("run", NEW)]
        shown = client.get("/evaluations", params=asked).text

        assert '<meta http-equiv="refresh" content="2">' in shown
        assert "The differences are being computed" in shown
        assert began.wait(60)
        go.set()
        world.comparing._wait_seconds = 60
        assert 'http-equiv="refresh"' not in client.get("/evaluations", params=asked).text

    def test_it_is_computed_once(self) -> None:
        calls: list[int] = []
        thread = ComparisonThread(lambda _: self.FOUND, wait_seconds=60)

        for _ in range(3):
            assert thread.find("key", lambda: calls.append(1) or []) is self.FOUND  # type: ignore[func-returns-value]
        assert calls == [1]

    def test_old_ones_are_forgotten(self) -> None:
        thread = ComparisonThread(lambda _: self.FOUND, wait_seconds=60)
        for key in range(40):
            thread.find(key, list)

        assert len(thread._jobs) == 32

    def test_a_refusal_is_kept_but_not_that_a_server_is_silent(self) -> None:
        calls: list[str] = []

        def read(error: Exception) -> Callable[[], Sequence[EvaluationFiles]]:
            def reading() -> Sequence[EvaluationFiles]:
                calls.append(type(error).__name__)
                raise error

            return reading

        thread = ComparisonThread(lambda _: self.FOUND, wait_seconds=60)
        for error in (StackError("MLflow is away.", ""), BadInputError("No.", "")):
            for _ in range(2):
                with pytest.raises(type(error)):
                    thread.find(type(error), read(error))
        assert calls == ["StackError", "StackError", "BadInputError"]

    def test_of_many_at_once_the_last_wait_outside(self) -> None:
        go = threading.Event()

        def compare(_: Sequence[EvaluationFiles]) -> Comparison:
            assert go.wait(60)
            return self.FOUND

        thread = ComparisonThread(compare, wait_seconds=0)
        for key in range(20):
            assert thread.find(key, list) is None
        assert len(thread._jobs) <= 9
        go.set()
        thread._wait_seconds = 60
        assert thread.find(0, list) is self.FOUND
