from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks import provided
from tests.tasks.algorithms.conftest import Load
from tests.tasks.algorithms.shapes import COLOURS, draw_all

torch = pytest.importorskip("torch")

NAME = "image-classifier"
QUICK = {"image_size": 16, "epochs": 10, "batch_size": 8, "learning_rate": 0.005, "workers": 2}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_all(tmp_path_factory.mktemp("shapes"), 20)


@pytest.fixture
def images(load: Load) -> ModuleType:
    return load(NAME, "images")


@pytest.fixture
def settings(load: Load) -> Any:
    return replace(load(NAME, "settings").read(), **QUICK)


@pytest.fixture
def alone(load: Load) -> Any:
    return load(NAME, "cluster").Cluster(0, 1, torch.device("cpu"))


def _remove(folder: Path, keep: int) -> None:
    for path in sorted(folder.rglob("*.*"))[keep:]:
        path.unlink()


def _break(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        path.write_bytes(b"broken")


def _move_away(root: Path) -> None:
    for name in ("square", "triangle"):
        (root / name).rename(root / f".{name}")


class TestImages:
    def test_a_share_of_every_class_is_held_back(self, images: ModuleType, shapes: Path) -> None:
        samples = images.samples_of(shapes, sorted(COLOURS))

        train, held = images.divide(samples, 0.2, 7)

        assert Counter(label for _, label in held) == {0: 4, 1: 4, 2: 4}
        assert sorted([*train, *held]) == sorted(samples)
        assert images.divide(samples, 0.2, 7) == (train, held)
        assert images.divide(samples, 0.2, 8) != (train, held)

    def test_a_validation_set_is_used_whole(
        self, images: ModuleType, settings: Any, alone: Any, shapes: Path, tmp_path: Path
    ) -> None:
        config, train, held = images.load(shapes, draw_all(tmp_path, 3, 50), settings, alone)

        assert config["classes"] == ["circle", "square", "triangle"]
        assert (len(train), len(held)) == (60, 9)

    def test_a_few_broken_images_are_skipped(
        self, images: ModuleType, settings: Any, alone: Any, tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        draw_all(tmp_path, 10)
        whole = (tmp_path / "square" / "8.png").read_bytes()
        (tmp_path / "square" / "cut.png").write_bytes(whole[:60])
        (tmp_path / "square" / "empty.jpg").touch()
        (tmp_path / ".hidden").mkdir()

        _, train, held = images.load(tmp_path, None, settings, alone)

        assert len(train) + len(held) == 30
        assert "2 of 32 images cannot be read" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda root: _remove(root / "square", keep=1), "'square' has 1 readable images"),
            (lambda root: _remove(root / "square", keep=0), "'square' has 0 readable images"),
            (lambda root: _break(root / "square"), "6 of 18 images cannot be read, such as"),
            (_move_away, "has 1 class folders"),
        ],
    )
    def test_what_cannot_be_trained_on_is_refused(
        self, images: ModuleType, settings: Any, alone: Any, tmp_path: Path,
        spoil: Callable[[Path], None], message: str,
    ) -> None:  # fmt: skip
        spoil(draw_all(tmp_path, 6))

        with pytest.raises(images.TrainingError, match=message):
            images.load(tmp_path, None, settings, alone)

    def test_a_class_that_is_only_in_the_validation_set_is_refused(
        self, images: ModuleType, settings: Any, alone: Any, shapes: Path, tmp_path: Path
    ) -> None:
        draw_all(tmp_path, 1)
        (tmp_path / "star").mkdir()

        with pytest.raises(images.TrainingError, match="has a class that 'train' has not: 'star'"):
            images.load(shapes, tmp_path, settings, alone)

    @pytest.mark.parametrize(
        ("more", "message"),
        [("star", "'test' has a class that 'train' has not: 'star'"),
         ("", "'test' has no readable image")],
    )  # fmt: skip
    def test_a_test_set_that_does_not_fit_is_refused_before_the_training(
        self, load: Load, settings: Any, alone: Any, shapes: Path, tmp_path: Path, more: str,
        message: str, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        (tmp_path / "test" / more).mkdir(parents=True)
        monkeypatch.setenv("EM_DATASET_TRAIN", str(shapes))
        monkeypatch.setenv("EM_DATASET_TEST", str(tmp_path / "test"))
        train = load(NAME, "train")

        with pytest.raises(train.TrainingError, match=message):
            train.train(settings, alone)

    def test_a_validation_set_without_images_is_refused(
        self, images: ModuleType, settings: Any, alone: Any, shapes: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(images.TrainingError, match="'validation' has no readable image"):
            images.load(shapes, tmp_path, settings, alone)

    def test_a_batch_is_decoded_once_where_it_fits(
        self, images: ModuleType, settings: Any, alone: Any, shapes: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        config, train, _ = images.load(shapes, None, settings, alone)
        kept = images.Images(train, config, 2)
        monkeypatch.setattr(images, "_CACHE_BYTES", 100)
        read = images.Images(train, config, 2)
        first, labels = kept.__getitems__([3, 0])
        monkeypatch.setattr(images.Image, "open", None)

        again, _ = kept.__getitems__([3, 0])

        assert first.shape == (2, 3, 16, 16)
        assert labels.tolist() == [train[3][1], train[0][1]]
        assert torch.equal(first, again)
        with pytest.raises(TypeError):
            read.__getitems__([3, 0])


class TestNetwork:
    @pytest.mark.parametrize("architecture", ["small", "resnet18", "resnet34"])
    @pytest.mark.parametrize(("size", "channels"), [(16, 1), (128, 3)])
    def test_every_depth_takes_every_size(
        self, load: Load, architecture: str, size: int, channels: int
    ) -> None:
        config = {
            "architecture": architecture, "image_size": size, "channels": channels,
            "classes": ["a", "b"],
        }  # fmt: skip
        network = load(NAME, "model").Classifier(config)
        batch = torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)

        assert network(batch).shape == (2, 2)

    def test_the_deepest_is_resnet_50_as_others_count_it(self, load: Load) -> None:
        """25 557 032 parameters for images of 224 pixels and a thousand classes."""
        config = {
            "architecture": "resnet50", "image_size": 224, "channels": 3,
            "classes": [str(number) for number in range(1000)],
        }  # fmt: skip
        with torch.device("meta"):
            network = load(NAME, "model").Classifier(config)

        assert sum(one.numel() for one in network.parameters()) == 25_557_032
        convolutions = [one for one in network.modules() if isinstance(one, torch.nn.Conv2d)]
        halving = [one.kernel_size for one in convolutions if one.stride == (2, 2)]
        assert len(convolutions) == 53
        assert halving == [(7, 7), *[(3, 3)] * 3, *[(1, 1)] * 3]  # bodies, then shortcuts

    def test_its_depths_are_those_declared(self, load: Load) -> None:
        declared = {one.name: one for one in provided.load(NAME).hyperparameters}

        assert tuple(load(NAME, "model").ARCHITECTURES) == declared["architecture"].values

    def test_sixteen_bits_are_not_cut_off(self, load: Load) -> None:
        image = Image.fromarray(np.full((20, 20), 128 * 256, np.uint16))

        found = load(NAME, "model").pixels(image, {"image_size": 16, "channels": 1})

        assert found.shape == (1, 16, 16)
        assert np.unique(found).tolist() == [128]


class TestQuality:
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_scikit_learns(self, load: Load, seed: int) -> None:
        """Class 4 occurs nowhere, class 3 is never predicted."""
        chance = np.random.default_rng(seed)
        truth, said = chance.integers(0, 4, 40), chance.integers(0, 3, 40)
        counts = confusion_matrix(truth, said, labels=range(5))

        expected = precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
        found = load(NAME, "learning").quality(counts)
        assert found["accuracy"] == pytest.approx(np.mean(truth == said))
        assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(
            list(expected[:3])
        )


class TestLearning:
    def test_augmented_images_are_shifted_and_flipped(self, load: Load) -> None:
        learning = load(NAME, "learning")
        left = torch.zeros(64, 1, 16, 16, dtype=torch.uint8)
        left[:, :, 8, 5] = 1

        found = learning.augmented(left, torch.Generator().manual_seed(0))

        again = learning.augmented(left, torch.Generator().manual_seed(0))
        places = {tuple(place[1:].tolist()) for place in found[:, 0].nonzero()}
        columns = {column for _, column in places}
        assert torch.equal(found, again)
        assert found.sum() == 64
        assert {row for row, _ in places} == set(range(6, 11))
        assert columns == {3, 4, 5, 6, 7} | {8, 9, 10, 11, 12}

    def test_the_learning_rate_rises_and_falls(self, load: Load) -> None:
        schedule = load(NAME, "learning").schedule

        shares = [schedule(epoch / 10, 1.0, 5) for epoch in range(51)]

        assert shares[0] == pytest.approx(0.01)
        assert shares[10] == 1
        assert shares[:11] == sorted(shares[:11])
        assert shares[10:] == sorted(shares[10:], reverse=True)
        assert shares[-1] == pytest.approx(0)
        assert schedule(0, 0, 5) == 1
        assert schedule(7, 9, 5) < 1

    def test_every_epoch_has_its_own_order(
        self, load: Load, images: ModuleType, settings: Any, alone: Any, shapes: Path
    ) -> None:
        config, train, held = images.load(shapes, None, settings, alone)
        sets = images.Images(train, config, 2), images.Images(held, config, 2)

        def orders(*epochs: int) -> list[list[int]]:
            learner = load(NAME, "learning").Learner(settings, alone, config, *sets)
            found = []
            for epoch in epochs:
                learner.epoch(epoch)
                found.append(list(learner._sampler))
            return found

        first, second = orders(1, 2)
        assert sorted(first) == sorted(second) == list(range(len(train)))
        assert first != second
        assert orders(2) == [second]

    def test_a_loss_that_is_no_number_ends_it(
        self, load: Load, images: ModuleType, settings: Any, alone: Any, shapes: Path
    ) -> None:
        config, train, held = images.load(shapes, None, settings, alone)
        wild = replace(settings, optimizer="sgd", learning_rate=1e12, warmup_epochs=0)
        learner = load(NAME, "learning").Learner(
            wild, alone, config, images.Images(train, config, 2), images.Images(held, config, 2)
        )

        with pytest.raises(images.TrainingError, match=r"The loss became .* learning rate"):
            for epoch in (1, 2, 3):
                learner.epoch(epoch)

    def test_without_progress_it_ends_early(self, load: Load, settings: Any) -> None:
        train = load(NAME, "train")
        learner = SimpleNamespace(model=torch.nn.Linear(1, 1))
        progress = train.Progress()
        for accuracy, loss in [(0.5, 1.0), (0.5, 0.9), (0.4, 0.1), (0.5, 0.9)]:
            progress.add({"val_accuracy": accuracy, "val_loss": loss}, learner)

        assert progress.best_epoch == 2
        assert progress.ended(replace(settings, patience=2))
        assert not progress.ended(replace(settings, patience=3))
        assert not progress.ended(replace(settings, patience=0))
        assert progress.ended(replace(settings, patience=0, epochs=4))


class TestResume:
    FIXED = {"architecture": "small", "classes": ["a", "b"]}

    @pytest.fixture
    def given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("EM_CHECKPOINT_INPUT_DIR", str(tmp_path))
        return tmp_path / "checkpoint.pt"

    def test_of_nothing_it_begins_anew(
        self, load: Load, given: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert load(NAME, "train")._checkpoint(self.FIXED) is None
        assert "beginning anew" in capsys.readouterr().out

    @pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04broken"])
    def test_of_what_is_no_checkpoint_it_refuses(
        self, load: Load, given: Path, alone: Any, content: bytes
    ) -> None:
        given.write_bytes(content)
        train = load(NAME, "train")

        with pytest.raises(train.TrainingError, match="is not a checkpoint of this algorithm"):
            train.resume(None, self.FIXED, alone)

    def test_of_another_network_it_refuses(self, load: Load, given: Path, alone: Any) -> None:
        train = load(NAME, "train")
        train.write({"fixed": {**self.FIXED, "architecture": "resnet18"}}, given)

        with pytest.raises(train.TrainingError, match=r"with architecture resnet18, and .* small"):
            train.resume(None, self.FIXED, alone)

    def test_a_checkpoint_is_written_whole_or_not_at_all(
        self, load: Load, given: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = load(NAME, "train")
        train.write({"epoch": 1}, given)

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(train.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            train.write({"epoch": 2}, given)

        assert torch.load(given) == {"epoch": 1}
        assert list(given.parent.iterdir()) == [given]


class TestMain:
    def test_what_is_wrong_is_one_sentence(
        self, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        monkeypatch.setenv("EM_DATASET_TRAIN", str(tmp_path))

        with pytest.raises(SystemExit) as raised:
            load(NAME, "train").main()

        assert raised.value.code == 1
        assert capsys.readouterr() == (
            "",
            "The data set 'train' has 0 class folders, and needs two at least. Put the images of "
            "each class into a folder named as the class.\n",
        )

    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (OSError(28, "No space left on device"), "A file could not be read or written: [Err"),
            (torch.OutOfMemoryError("CUDA out of memory"), "The GPU's memory is too small."),
        ],
    )
    def test_so_is_what_the_machine_has_not(
        self, load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        error: Exception, sentence: str,
    ) -> None:  # fmt: skip
        train = load(NAME, "train")

        def failing(*_: Any) -> None:
            raise error

        monkeypatch.setattr(train, "train", failing)
        with pytest.raises(SystemExit):
            train.main()

        assert capsys.readouterr().err.startswith(sentence)

    def test_under_torchrun_it_is_recorded_and_printed_by_one(
        self, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        train = load(NAME, "train")
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))

        with pytest.raises(SystemExit):
            train._fail(train.TrainingError("Too few images."))

        assert capsys.readouterr().err == ""
        assert "Too few images." in (tmp_path / "error.json").read_text()


def test_plots_that_cannot_be_logged_cost_only_themselves(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = load(NAME, "report")
    figures = {"confusion_matrix": report.confusion(np.eye(40, dtype=int), list("a" * 40))}
    report.log(figures)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    report.log(figures)

    assert capsys.readouterr().err.count("the plots could not be logged to MLflow") == 1
