from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from infra.storage import store
from registry import frameworks
from tasks import provided
from tests.tasks.algorithms.conftest import Board, Done, Load, Trainer
from tuning.event_files import EventFileReader
from tuning.metrics import MetricCollector

pytestmark = pytest.mark.integration

NAME = "gradient-boosting"
QUICK = {
    "target": "species", "iterations": 60, "report_every": 5, "max_leaf_nodes": 4,
    "max_features": 0.5, "patience": 0, "ignored_columns": "row",
}  # fmt: skip

Change = Callable[[pd.DataFrame], pd.DataFrame]


def flowers() -> pd.DataFrame:
    """Iris with a column of texts, values missing in both kinds, and one that says nothing."""
    found = load_iris(as_frame=True)
    frame = found.frame.rename(columns=lambda name: name.replace(" (cm)", ""))
    frame["species"] = found.target_names[frame.pop("target")]
    frame["petals"] = np.where(frame.pop("petal length") > 4.8, "long", "short").astype(object)
    frame.loc[::7, "petals"] = None
    frame.loc[::11, "sepal width"] = np.nan
    frame.insert(0, "row", range(len(frame)))
    return frame


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flowers in two files, with their columns in different orders."""
    folder = tmp_path_factory.mktemp("flowers")
    frame = flowers()
    frame[::2].to_csv(folder / "even.csv", index=False)
    frame[1::2][frame.columns[::-1]].to_parquet(folder / "odd.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Trainer:
    return Trainer(tmp_path_factory.mktemp("home"), NAME, {"train": data}, QUICK)


@pytest.fixture(scope="module")
def trained(trainer: Trainer) -> Done:
    """The training that another interrupts, run through once."""
    done = trainer.run()
    assert done.code == 0, done.error
    return done


@pytest.fixture(scope="module")
def pipeline(trained: Done, trainer: Trainer) -> Any:
    return joblib.load(trainer.run_dir.model / "model.joblib")


class TestTraining:
    def test_it_learns(self, trained: Done) -> None:
        reports = trained.reports("iteration")

        assert [report["iteration"] for report in reports] == list(range(5, 61, 5))
        assert reports[-1]["accuracy"] >= 0.85
        assert reports[-1]["train_loss"] < reports[0]["train_loss"] / 2

    def test_every_declared_metric_of_its_task_is_found(self, trained: Done) -> None:
        algorithm = provided.load(NAME)
        collector = MetricCollector(algorithm.metric_patterns())
        found = Counter(one.name for line in trained.lines for one in collector.collect(line))

        every_time = ("train_loss", "validation_loss", "accuracy", "f1")
        assert found == Counter({**dict.fromkeys(every_time, 12), "best_validation_loss": 1})

    def test_the_curves_are_in_tensorboard(self, trained: Done, trainer: Trainer) -> None:
        found = [
            (one.step, one.value)
            for one in EventFileReader(trainer.run_dir.tensorboard).poll()
            if one.name == "f1"
        ]

        expected = [(report["iteration"], report["f1"]) for report in trained.reports("iteration")]
        assert found == [(step, pytest.approx(value, abs=1e-4)) for step, value in expected]

    def test_what_it_leaves_is_described(
        self, trained: Done, trainer: Trainer, pipeline: Any
    ) -> None:
        found = json.loads((trainer.run_dir.model / "config.json").read_text())

        assert {path.name for path in trainer.run_dir.model.iterdir()} == {
            "model.joblib", "config.json",
        }  # fmt: skip
        frameworks.check("scikit-learn", store(str(trainer.run_dir.model)), "flowers")
        assert (found["task"], found["target"]) == ("classification", "species")
        assert found["classes"] == ["setosa", "versicolor", "virginica"]
        assert [(column["name"], column["kind"]) for column in found["columns"]] == [
            ("sepal length", "number"), ("sepal width", "number"), ("petal width", "number"),
            ("petals", "category"),
        ]  # fmt: skip
        assert max(found["importances"], key=found["importances"].get) == "petal width"
        best = min(trained.reports("iteration"), key=lambda one: one["validation_loss"])
        assert found["metrics"]["iteration"] == best["iteration"] < 60
        assert pipeline["model"].n_iter_ == best["iteration"]

    def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
        self, trained: Done, pipeline: Any, data: Path, tmp_path: Path
    ) -> None:
        interrupted = Trainer(tmp_path, NAME, {"train": data}, QUICK)
        interrupted.killed_after("iteration=15 ")
        checkpoint = joblib.load(interrupted.run_dir.checkpoints / "checkpoint.joblib")
        reports_before = len(checkpoint["progress"]["history"])

        resumed = interrupted.run(retried=True)

        assert resumed.code == 0, resumed.error
        assert reports_before >= 2
        assert f"resumed after iteration {5 * reports_before}" in resumed.lines
        expected = trained.reports("iteration")[reports_before:]
        assert resumed.reports("iteration") == expected
        rows = flowers()
        again = joblib.load(interrupted.run_dir.model / "model.joblib")
        assert np.array_equal(again.predict_proba(rows), pipeline.predict_proba(rows))


class TestPipeline:
    def test_it_takes_a_frame_by_its_names(self, pipeline: Any) -> None:
        frame = flowers()

        found = pipeline.predict(frame[frame.columns[::-1]])

        assert (found == frame["species"]).mean() >= 0.9
        assert isinstance(found[0], str)

    @pytest.mark.filterwarnings("ignore:X does not have valid feature names")
    def test_it_takes_rows_by_their_order(self, pipeline: Any) -> None:
        frame = flowers().drop(columns=["row", "species"])
        rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()

        found = pipeline.predict_proba(rows)

        assert np.array_equal(found, pipeline.predict_proba(frame))

    def test_a_category_that_it_never_saw_is_a_missing_one(self, pipeline: Any) -> None:
        frame = flowers().head(2)

        strange, missing = (
            pipeline.predict_proba(frame.assign(petals=value)) for value in ("middling", None)
        )

        assert np.array_equal(strange, missing)


@pytest.fixture
def train(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script's module, with folders of its own and no MLflow."""
    for name in ("model", "checkpoint", "tensorboard"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EM_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("EM_CHECKPOINT_DIR", str(tmp_path / "checkpoint"))
    monkeypatch.setenv("EM_TENSORBOARD_LOG_DIR", str(tmp_path / "tensorboard"))
    return load(NAME, "train")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def asked(train: Path, validation: Path | None = None, **hyperparameters: Any) -> None:
        monkeypatch.setenv("EM_DATASET_TRAIN", str(train))
        if validation:
            monkeypatch.setenv("EM_DATASET_VALIDATION", str(validation))
        completed = provided.load(NAME).complete(hyperparameters)
        monkeypatch.setenv("EM_HPS", json.dumps(completed))

    return asked


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """Writes a data set of one CSV file."""

    def written(frame: pd.DataFrame, name: str = "data") -> Path:
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "rows.csv", index=False)
        return tmp_path / name

    return written


class TestRegression:
    @pytest.fixture
    def patients(self, files: Callable[..., Path]) -> tuple[Path, Path]:
        frame = load_diabetes(as_frame=True, scaled=False).frame
        return files(frame[:350], "early"), files(frame[350:], "late")

    @pytest.mark.filterwarnings("ignore:X does not have valid feature names")
    @pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "poisson"])
    def test_it_learns_from_a_validation_set_too(
        self, train: ModuleType, ask: Callable[..., None], patients: tuple[Path, Path],
        tmp_path: Path, capsys: pytest.CaptureFixture[str], loss: str,
    ) -> None:  # fmt: skip
        ask(
            *patients, target="target", iterations=30, loss=loss, max_leaf_nodes=8,
            categorical_columns="sex",
        )  # fmt: skip

        train.main()

        printed = capsys.readouterr().out.splitlines()
        found = json.loads((tmp_path / "model" / "config.json").read_text())
        assert printed[0] == (
            "regression of target: 350 training and 92 validation rows, 10 columns, of which 1 "
            "are categories"
        )
        assert found["metrics"].keys() == {
            "iteration", "train_loss", "validation_loss", "rmse", "mae", "r2",
        }  # fmt: skip
        assert found["metrics"]["r2"] > 0.3
        assert found["classes"] is None
        model = joblib.load(tmp_path / "model" / "model.joblib")
        assert model.predict([[59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.9, 87]])[0] > 100

    def test_its_plots_are_in_mlflow(
        self, train: ModuleType, ask: Callable[..., None], patients: tuple[Path, Path],
        board: Callable[[], Board], monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        run = board()
        for name, value in run.env.items():
            monkeypatch.setenv(name, value)
        ask(*patients, target="target", iterations=10)

        train.main()

        plots = sorted((run.artifacts / "plots").iterdir())
        assert [path.name for path in plots] == ["feature_importance.png", "residuals.png"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)

    def test_without_progress_it_ends_early(
        self, train: ModuleType, ask: Callable[..., None], patients: tuple[Path, Path],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        ask(*patients, target="target", iterations=5000, patience=20, learning_rate=0.5)

        train.main()

        *_, last, best = capsys.readouterr().out.splitlines()
        end = int(last.split()[0].partition("=")[2])
        kept = int(best.split()[0].partition("=")[2])
        assert end == kept + 20

    def test_residuals_are_drawn_over_predictions(self, load: Load) -> None:
        report = load(NAME, "report")
        values = np.arange(5.0)

        figure = report.residuals(values, values + 1)

        assert np.asarray(figure.axes[0].collections[0].get_offsets())[:, 1].tolist() == [-1] * 5


class TestTask:
    @pytest.mark.parametrize(
        ("values", "task", "classes"),
        [
            (["a", "b"], "classification", {"a", "b"}),
            ([True, False], "classification", {True, False}),
            ([0.0, 1.0], "classification", {0, 1}),
            ([0.5, 1.0], "regression", None),
            (list(range(20)), "classification", set(range(20))),
            (list(range(21)), "regression", None),
        ],
    )
    def test_it_follows_from_the_target(
        self, load: Load, files: Callable[..., Path], values: list[Any], task: str,
        classes: set[Any] | None,
    ) -> None:  # fmt: skip
        count = 10 * len(values)
        frame = pd.DataFrame({"x": range(count), "y": [*values] * 10})
        settings = load(NAME, "settings").Settings(**provided.load(NAME).complete({"target": "y"}))

        table, held = load(NAME, "table").load(files(frame), None, settings)

        assert (table.task, len(table) + len(held)) == (task, count)
        if classes is not None:
            assert set(table.target.tolist()) == set(held.target.tolist()) == classes
            assert {type(value) for value in table.target.tolist()} == {type(min(classes))}

    def test_balanced_classes_weigh_the_same(self, load: Load, data: Path) -> None:
        boosting, tables = load(NAME, "boosting"), load(NAME, "table")
        given = provided.load(NAME).complete({**QUICK, "class_weight": "balanced"})
        settings = load(NAME, "settings").Settings(**given)
        table, _ = tables.load(data, None, settings)

        assert boosting.estimator(settings, table).class_weight == "balanced"
        weightless = replace(settings, class_weight="none")
        assert boosting.estimator(weightless, table).class_weight is None


class TestColumns:
    def test_each_kind_is_a_number_or_a_category(
        self, load: Load, tmp_path: Path, data: Path
    ) -> None:
        frame = pd.DataFrame(
            {
                "whole": [1, 2] * 10,
                "nullable": pd.array([1, None] * 10, dtype="Int64"),
                "yes": [True, False] * 10,
                "maybe": [True, None] * 10,
                "text": ["a", None] * 10,
                "declared": pd.Categorical(["u", "v"] * 10),
                "code": [7, 8] * 10,
                "y": ["p", "q"] * 10,
            }
        )
        frame.to_parquet(tmp_path / "rows.parquet")
        given = provided.load(NAME).complete({"target": "y", "categorical_columns": "code"})
        boosting, tables = load(NAME, "boosting"), load(NAME, "table")

        table, _ = tables.load(tmp_path, None, load(NAME, "settings").Settings(**given))

        assert table.categories == ("text", "declared", "code")
        encoded = boosting.encoder(table).fit_transform(table.features).astype(float)
        assert np.nanmin(encoded, axis=0).tolist() == [0, 0, 0, 1, 1, 0, 1]
        assert np.isnan(encoded).any(axis=0).tolist() == [
            True, False, False, False, True, False, True,
        ]  # fmt: skip

    def test_there_may_be_many_categories(
        self, train: ModuleType, ask: Callable[..., None], files: Callable[..., Path],
        tmp_path: Path,
    ) -> None:  # fmt: skip
        numbers = np.arange(2000)
        frame = pd.DataFrame({"code": [f"c{one % 900}" for one in numbers], "y": numbers % 900})
        ask(files(frame), target="y", task="regression", iterations=10)

        train.main()

        model = joblib.load(tmp_path / "model" / "model.joblib")
        assert np.isfinite(model.predict(frame)).all()
        assert len(model["columns"].named_transformers_["categories"].categories_[0]) > 255


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _change(**columns: Any) -> Callable[[Path], None]:
    return lambda folder: flowers().assign(**columns).to_csv(folder / "rows.csv", index=False)


def _parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda folder: flowers().assign(**columns).to_parquet(folder / "rows.parquet")


HEADER = b"row,petals,species\n"


class TestBadData:
    @pytest.mark.parametrize(
        ("make", "changes", "sentence"),
        [
            (lambda _: None, {}, "'train' has no file that ends in .csv or .parquet."),
            (_write("a.csv", b""), {}, "The file a.csv is empty."),
            (_write("a.csv", HEADER), {}, "'train' has no row with a 'species'."),
            (_write("a.csv", b"species\n" + b"a\nb\n" * 9), {"ignored_columns": ""},
             "There is no column beside 'species' to learn from."),
            (_write("a.csv", b"a,a,species\n1,2,x\n"), {}, "a.csv has the column 'a' twice."),
            (_write("a.csv", b"a,species\n" + b"1,2,3\n" * 20), {},
             "a.csv has rows with more fields than its header."),
            (_write("a.csv", b",,species\n1,2,3\n"), {}, "several columns without a name."),
            (_write("a.csv", b"a,b\n1,2\n1,2,3\n"), {}, "The file a.csv cannot be read: "),
            (_write("a.csv", b"a,b\n\xff\xfe,2\n"), {}, "The file a.csv cannot be read: "),
            (_write("a.parquet", b"PAR1"), {}, "The file a.parquet cannot be read: "),
            (_change(), {"target": "colour"}, "has no column 'colour' to predict. Its columns are"
             " row, sepal length, "),
            (_change(), {"delimiter": "semicolon"}, "has no column 'species' to predict."),
            (_change(), {"ignored_columns": "rwo"}, "There is no column 'rwo' to ignore"),
            (_change(species="setosa"), {}, "'species' has one class only: setosa."),
            (_change(species=None), {}, "'train' has no row with a 'species'."),
            (_change(row=None), {"ignored_columns": ""}, "'row' has no value in any row."),
            (_change(), {"target": "sepal length", "task": "classification"},
             "of 'sepal length' has one row only, and needs two. If the column holds a quantity"),
            (_change(), {"task": "regression"}, "'species' holds no numbers"),
            (_change(n=[-1, *range(149)]), {"target": "n", "loss": "poisson"}, "needs counts"),
            (_change(n=[np.inf, *range(149)]), {"target": "n"}, "'n' holds an infinite value."),
            (lambda folder: flowers().head(5).to_csv(folder / "a.csv"), {}, "has 5 rows, and"),
            (_parquet(day=pd.Timestamp(0)), {}, "'day' holds values of the types Timestamp,"),
            (lambda folder: (_change()(folder), _parquet(extra=1)(folder)), {},
             "rows.csv and rows.parquet of the data set 'train' have different columns: 'extra'"),
            (lambda folder: (_change(petals=1.5)(folder), _parquet()(folder)), {},
             "'petals' holds values of the types float and str,"),
        ],
    )  # fmt: skip
    def test_it_is_one_sentence(
        self, train: ModuleType, ask: Callable[..., None], tmp_path: Path,
        make: Callable[[Path], Any], changes: dict[str, Any], sentence: str,
    ) -> None:  # fmt: skip
        (tmp_path / "data").mkdir()
        make(tmp_path / "data")
        ask(tmp_path / "data", **{**QUICK, **changes})

        with pytest.raises(SystemExit) as raised:
            train.main()

        assert isinstance(raised.value.code, str)  # which Python prints on standard error
        assert sentence in raised.value.code
        assert "\n" not in raised.value.code
        assert not any((tmp_path / "model").iterdir())

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda frame: frame.drop(columns="petals"), "'validation' has no column 'petals'."),
            (lambda frame: frame.assign(petals=1), "'petals' has strings in one of the data sets"),
            (lambda frame: frame.assign(species="rose"), "a class that 'train' has not: rose."),
            (lambda frame: frame.drop(columns="species"), "'validation' has no column 'species'"),
        ],
    )
    def test_a_validation_set_must_be_alike(
        self, train: ModuleType, ask: Callable[..., None], files: Callable[..., Path],
        data: Path, change: Change, sentence: str,
    ) -> None:  # fmt: skip
        ask(data, files(change(flowers())), **QUICK)

        with pytest.raises(SystemExit) as raised:
            train.main()

        assert sentence in str(raised.value.code)

    def test_a_target_must_be_named(
        self, train: ModuleType, ask: Callable[..., None], data: Path
    ) -> None:
        ask(data, target="")

        with pytest.raises(SystemExit) as raised:
            train.main()

        assert raised.value.code == "The hyperparameter 'target' must name the column to predict."


class TestResume:
    FIXED = {"target": "species", "data": "1"}

    @pytest.fixture
    def given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "given").mkdir()
        monkeypatch.setenv("EM_CHECKPOINT_INPUT_DIR", str(tmp_path / "given"))
        return tmp_path / "given" / "checkpoint.joblib"

    def test_of_nothing_it_begins_anew(
        self, train: ModuleType, given: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.resume(self.FIXED) is None
        assert "beginning anew" in capsys.readouterr().out

    @pytest.mark.parametrize("content", [b"", b"broken"])
    def test_of_what_is_no_checkpoint_it_refuses(
        self, train: ModuleType, given: Path, content: bytes
    ) -> None:
        given.write_bytes(content)

        with pytest.raises(train.TrainingError, match="is not a checkpoint of this algorithm"):
            train.resume(self.FIXED)

    def test_of_other_data_it_refuses(self, train: ModuleType, given: Path) -> None:
        train.write({"fixed": {**self.FIXED, "data": "2"}, "progress": {"model": None}}, given)

        with pytest.raises(train.TrainingError, match="was made with another data"):
            train.resume(self.FIXED)

    def test_a_checkpoint_is_written_whole_or_not_at_all(
        self, train: ModuleType, given: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train.write({"iteration": 1}, given)

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(train.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            train.write({"iteration": 2}, given)

        assert joblib.load(given) == {"iteration": 1}
        assert list(given.parent.iterdir()) == [given]
