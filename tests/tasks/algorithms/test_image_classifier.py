from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from infra.storage import store
from registry import frameworks
from tasks import provided
from tests.tasks.algorithms.conftest import Board, Done, Load, Trainer
from tests.tasks.algorithms.shapes import COLOURS, draw_all, drawn
from tuning.event_files import EventFileReader
from tuning.metrics import MetricCollector

pytestmark = pytest.mark.integration

torch = pytest.importorskip("torch")

NAME = "image-classifier"
QUICK = {"image_size": 16, "epochs": 10, "batch_size": 8, "learning_rate": 0.005, "workers": 2}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_all(tmp_path_factory.mktemp("shapes"), 20)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test set: 15 images of which the training has none."""
    return draw_all(tmp_path_factory.mktemp("unseen"), 5, 60)


@pytest.fixture(scope="module")
def board_of_run(board: Callable[[], Board]) -> Board:
    return board()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory, shapes: Path, unseen: Path) -> Trainer:
    data = {"train": shapes, "test": unseen}
    return Trainer(tmp_path_factory.mktemp("home"), NAME, data, QUICK)


@pytest.fixture(scope="module")
def trained(trainer: Trainer, board_of_run: Board) -> Done:
    """The same training that others interrupt or divide, run through once."""
    done = trainer.run(**board_of_run.env)
    assert done.code == 0, done.error
    return done


@pytest.fixture
def handler(trained: Done, trainer: Trainer, load: Load) -> Any:
    """The handler that the training left, in a process that has no TorchServe."""
    found = load(NAME, "handler").ImageClassifierHandler()
    context = SimpleNamespace(
        system_properties={"model_dir": str(trainer.run_dir.model), "gpu_id": None}, manifest={}
    )
    found.initialize(context)
    return found


def as_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def weights(trainer: Trainer) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(trainer.run_dir.model / "model.pt", weights_only=True)
    return found


def without_speed(reports: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {key: value for key, value in report.items() if key != "images_per_second"}
        for report in reports
    ]


def validated(load: Load, shapes: Path, trainer: Trainer) -> float:
    """The loss of the model that was left, over the images that were held back."""
    images, cluster = load(NAME, "images"), load(NAME, "cluster")
    settings = replace(load(NAME, "settings").read(), **QUICK)
    alone = cluster.Cluster(0, 1, torch.device("cpu"))
    config, train, held = images.load(shapes, None, settings, alone)
    learner = load(NAME, "learning").Learner(
        settings, alone, config, images.Images(train, config, 1), images.Images(held, config, 1)
    )
    learner.model.load_state_dict(weights(trainer))
    return float(learner.validate()[0]["val_loss"])


class TestTraining:
    def test_it_learns(self, trained: Done) -> None:
        reports = trained.reports("epoch")

        assert [report["epoch"] for report in reports] == list(range(1, 11))
        assert reports[-1]["val_accuracy"] >= 0.8
        assert reports[-1]["loss"] < reports[0]["loss"] / 2

    def test_every_declared_metric_is_found_in_its_lines(self, trained: Done) -> None:
        algorithm = provided.load(NAME)
        collector = MetricCollector(algorithm.metric_patterns())
        found = Counter(name for line in trained.lines for name, _ in _pairs(collector, line))

        scores = ("loss", "accuracy", "precision", "recall", "f1")
        every_epoch = {"loss", "accuracy", "images_per_second", *(f"val_{one}" for one in scores)}
        once = {"best_val_loss", "best_val_accuracy", *(f"test_{one}" for one in scores)}
        assert found == Counter({**dict.fromkeys(every_epoch, 10), **dict.fromkeys(once, 1)})
        assert {metric.name for metric in algorithm.metrics} == every_epoch | once

    def test_the_curves_are_in_tensorboard(self, trained: Done, trainer: Trainer) -> None:
        found = [
            (one.step, one.value)
            for one in EventFileReader(trainer.run_dir.tensorboard).poll()
            if one.name == "val_loss"
        ]

        expected = [(report["epoch"], report["val_loss"]) for report in trained.reports("epoch")]
        assert found == [(step, pytest.approx(value, abs=1e-4)) for step, value in expected]

    def test_the_plots_are_in_mlflow(self, trained: Done, board_of_run: Board) -> None:
        plots = sorted((board_of_run.artifacts / "plots").iterdir())

        assert [path.name for path in plots] == [
            "confusion_matrix.png", "curves.png", "test_confusion_matrix.png"
        ]  # fmt: skip
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)

    def test_the_model_is_of_the_best_epoch(self, trained: Done, trainer: Trainer) -> None:
        config = json.loads((trainer.run_dir.model / "config.json").read_text())
        reports = trained.reports("epoch")
        best = max(reports, key=lambda one: (one["val_accuracy"], -one["val_loss"]))

        assert config["epoch"] == best["epoch"]
        assert config["metrics"]["val_accuracy"] == pytest.approx(best["val_accuracy"], abs=1e-4)
        assert trained.reports("best_epoch")[0]["best_val_loss"] == best["val_loss"]
        assert {path.name for path in trainer.run_dir.model.iterdir()} == {
            "model.py", "handler.py", "model.pt", "config.json", "classes.json",
            "requirements.txt",
        }  # fmt: skip
        frameworks.check("pytorch", store(str(trainer.run_dir.model)), "shapes")

    def test_the_model_that_is_left_is_what_was_tested(
        self, trained: Done, trainer: Trainer, handler: Any, unseen: Path
    ) -> None:
        """By what serves it, over the images of the test set."""
        truth, said = [], []
        for path in sorted(unseen.rglob("*.*")):
            if path.suffix != ".txt":
                truth.append(path.relative_to(unseen).parts[0])
                (answer,) = handler.handle([path.read_bytes()], None)
                said.append(answer["prediction"])
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, said, average="macro", zero_division=0
        )

        (found,) = trained.reports("test_loss")
        config = json.loads((trainer.run_dir.model / "config.json").read_text())
        expected = {
            "test_accuracy": np.mean(np.array(truth) == np.array(said)),
            "test_precision": precision, "test_recall": recall, "test_f1": f1,
        }  # fmt: skip
        assert "15 test images" in trained.lines
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert config["metrics"]["test_f1"] == pytest.approx(f1)
        assert trained.lines.index("15 test images") < 2  # before the training

    def test_killed_and_resumed_it_ends_as_if_it_had_not_been(
        self, trained: Done, trainer: Trainer, shapes: Path, tmp_path: Path
    ) -> None:
        interrupted = Trainer(tmp_path, NAME, {"train": shapes}, QUICK)
        interrupted.killed_after("epoch=3 ")
        checkpoint = torch.load(
            interrupted.run_dir.checkpoints / "checkpoint.pt", weights_only=True
        )
        done_before = len(checkpoint["progress"]["history"])

        resumed = interrupted.run(retried=True)

        assert resumed.code == 0, resumed.error
        assert done_before >= 2
        assert f"resumed after epoch {done_before}" in resumed.lines
        expected = trained.reports("epoch")[done_before:]
        assert without_speed(resumed.reports("epoch")) == without_speed(expected)
        for name, value in weights(trainer).items():
            assert torch.equal(weights(interrupted)[name], value), name

    @pytest.mark.soak
    def test_two_processes_train_one_model(
        self, trained: Done, trainer: Trainer, shapes: Path, tmp_path: Path, load: Load
    ) -> None:
        both = Trainer(tmp_path, NAME, {"train": shapes}, {**QUICK, "epochs": 4})
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")

        done = both.run(launcher=launcher)

        assert done.code == 0, done.error
        reports, alone = done.reports("epoch"), trained.reports("epoch")
        assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
        assert reports[0].keys() == alone[0].keys()
        assert reports[-1]["loss"] < reports[0]["loss"]
        assert len(done.reports("best_epoch")) == 1
        assert weights(both).keys() == weights(trainer).keys()
        assert len(list(both.run_dir.tensorboard.iterdir())) == 1
        shares = (report["val_accuracy"] * 12 for report in reports)  # of all 12, by both
        assert all(share == pytest.approx(round(share), abs=1e-2) for share in shares)
        assert validated(load, shapes, both) == pytest.approx(
            done.reports("best_epoch")[0]["best_val_loss"], abs=2e-4
        )


def _pairs(collector: MetricCollector, line: str) -> list[tuple[str, float]]:
    return [(one.name, one.value) for one in collector.collect(line)]


class TestHandler:
    def test_the_file_makes_the_model_without_arguments(
        self, trained: Done, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, load: Load
    ) -> None:
        """As TorchServe has it: one class in the file, and weights that fit it."""
        module = load(NAME, "handler")._module(trainer.run_dir.model / "model.py")
        classes = [
            one for one in vars(module).values()
            if isinstance(one, type) and one.__module__ == module.__name__
        ]  # fmt: skip

        (network,) = classes
        network().load_state_dict(weights(trainer))

    def test_it_tells_the_classes_apart(self, handler: Any) -> None:
        instances = [as_base64(drawn(shape, seed)) for shape in COLOURS for seed in range(90, 96)]

        answers = handler.handle(instances, None)

        right = [shape for shape in COLOURS for _ in range(6)]
        hits = [
            answer["prediction"] == shape for answer, shape in zip(answers, right, strict=True)
        ]
        assert sum(hits) / len(hits) >= 0.8
        for answer in answers:
            assert sum(answer["probabilities"]) == pytest.approx(1)
            best = int(np.argmax(answer["probabilities"]))
            assert answer["prediction"] == sorted(COLOURS)[best]

    def test_an_image_may_come_in_many_forms(self, handler: Any) -> None:
        image = drawn("square", 99)
        text = as_base64(image)
        forms = [
            text, {"b64": text}, base64.b64decode(text), {"data": base64.b64decode(text)},
            {"body": bytearray(base64.b64decode(text))}, np.asarray(image).tolist(),
        ]  # fmt: skip

        answers = handler.handle(forms, None)

        assert len(answers) == len(forms)
        for answer in answers[1:]:
            assert answer["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-5)

    def test_grey_rows_are_an_image_too(self, handler: Any) -> None:
        rows = np.asarray(drawn("circle", 1).convert("L"))

        flat, deep = handler.handle([rows.tolist(), rows[:, :, None].tolist()], None)

        assert flat["probabilities"] == pytest.approx(deep["probabilities"], abs=1e-5)

    @pytest.mark.parametrize(
        ("instance", "why"),
        [
            ("not base64!", "the string is not base64"),
            (base64.b64encode(b"text").decode(), "no known image format"),
            ([1.0, 2.0], r"its shape is \(2,\)"),
            ([[0, 256]], "not from 0 to 255"),
            ([[0, float("nan")]], "not from 0 to 255"),
            ([[1, 2], [3]], "inhomogeneous"),
            ([], "its shape is"),
            (None, "shape"),
            ({"image": "x"}, "shape"),
        ],
    )
    def test_what_is_no_image_is_named(self, handler: Any, instance: Any, why: str) -> None:
        with pytest.raises(ValueError, match=f"Instance 1 is not an image: .*{why}"):
            handler.handle([as_base64(drawn("circle", 1)), instance], None)
