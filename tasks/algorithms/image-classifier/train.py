"""Train an image classifier; resume from a checkpoint; leave a model that can be served.

Runs as it is, or once for each process under torchrun.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import cluster as clusters
import images
import learning
import report
import settings as all_settings
import torch
from cluster import Cluster
from images import Images
from learning import Learner
from settings import Settings, TrainingError
from torch.distributed.elastic.multiprocessing.errors import get_error_handler
from torch.utils.tensorboard import SummaryWriter

_CHECKPOINT = "checkpoint.pt"
_HERE = Path(__file__).parent


@dataclass
class Progress:
    """What has been done.

    Attributes:
        history: The metrics of every epoch.
        best_epoch: The epoch of the best validation result so far; 0 before the first.
        best_weights: The network's weights after it.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def best(self) -> dict[str, float]:
        """The metrics of the best epoch."""
        return self.history[self.best_epoch - 1]

    def add(self, metrics: dict[str, float], learner: Learner) -> None:
        """Take down an epoch; of two as accurate, the one with less loss is the better."""
        self.history.append(metrics)
        if self.best_epoch == 0 or _quality(metrics) > _quality(self.best):
            self.best_epoch = self.epochs
            weights = learner.model.state_dict().items()
            self.best_weights = {name: value.detach().cpu().clone() for name, value in weights}

    def ended(self, settings: Settings) -> bool:
        """Whether enough was done, or nothing became better for long enough."""
        idle = self.epochs - self.best_epoch
        return self.epochs >= settings.epochs or 0 < settings.patience <= idle


def _quality(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["val_accuracy"], -metrics["val_loss"]


def train(settings: Settings, cluster: Cluster) -> None:
    """The whole training.

    Raises:
        TrainingError: If it cannot be done, in a sentence.
    """
    learning.be_repeatable()
    validation = os.environ.get("EM_DATASET_VALIDATION")
    config, train_samples, validation_samples = images.load(
        _dataset("EM_DATASET_TRAIN"), Path(validation) if validation else None, settings, cluster
    )
    test = _test_images(config, settings, cluster)
    cluster.say(
        f"{len(train_samples)} training and {len(validation_samples)} validation images of "
        f"{len(config['classes'])} classes, on {cluster.world} x {cluster.device.type}"
    )
    learner = Learner(
        settings, cluster, config,
        Images(train_samples, config, settings.workers),
        Images(validation_samples, config, settings.workers),
    )  # fmt: skip
    fixed = {**config, "optimizer": settings.optimizer}
    progress = resume(learner, fixed, cluster)
    run_epochs(learner, progress, fixed, settings, cluster)
    learner.model.load_state_dict(progress.best_weights)
    confusions = {"confusion_matrix": learner.validate()[1]}
    tested: dict[str, float] = {}
    if test is not None:
        tested, confusions["test_confusion_matrix"] = learner.test(test)
    if cluster.leads:
        best = progress.best
        print(
            f"best_epoch={progress.best_epoch} best_val_loss={best['val_loss']:.4f} "
            f"best_val_accuracy={best['val_accuracy']:.4f}",
            flush=True,
        )
        if tested:
            print(*(f"{name}={value:.4f}" for name, value in tested.items()), flush=True)
        leave_model(Path(os.environ["EM_MODEL_DIR"]), config, progress, tested)
        matrices = {
            name: report.confusion(counts, config["classes"])
            for name, counts in confusions.items()
        }
        report.log({"curves": report.curves(progress.history), **matrices})


def _test_images(config: dict[str, Any], settings: Settings, cluster: Cluster) -> Images | None:
    """The images of the data set 'test', if it is given; read before the training."""
    folder = os.environ.get("EM_DATASET_TEST")
    if not folder:
        return None
    samples = images.load_held("test", Path(folder), config, cluster, settings.workers)
    cluster.say(f"{len(samples)} test images")
    return Images(samples, config, settings.workers)


def run_epochs(
    learner: Learner,
    progress: Progress,
    fixed: dict[str, Any],
    settings: Settings,
    cluster: Cluster,
) -> None:
    """Train epoch after epoch; print, draw and keep each."""
    board = None
    if cluster.leads:
        board = SummaryWriter(os.environ["EM_TENSORBOARD_LOG_DIR"], purge_step=progress.epochs + 1)
    while not progress.ended(settings):
        metrics = learner.epoch(progress.epochs + 1)
        metrics |= learner.validate()[0]
        progress.add(metrics, learner)
        if board is not None:
            print(
                "epoch={0} loss={loss:.4f} accuracy={accuracy:.4f} val_loss={val_loss:.4f} "
                "val_accuracy={val_accuracy:.4f} val_precision={val_precision:.4f} "
                "val_recall={val_recall:.4f} val_f1={val_f1:.4f} "
                "images_per_second={images_per_second:.1f}".format(progress.epochs, **metrics),
                flush=True,
            )
            for name, value in metrics.items():
                board.add_scalar(name, value, progress.epochs)
            board.flush()
            save(learner, progress, fixed)
    if board is not None:
        board.close()


def save(learner: Learner, progress: Progress, fixed: dict[str, Any]) -> None:
    """Write the checkpoint, over the one before it."""
    kept = {"fixed": fixed, "learner": learner.state(), "progress": vars(progress)}
    write(kept, Path(os.environ["EM_CHECKPOINT_DIR"], _CHECKPOINT))


def write(value: Any, path: Path) -> None:
    """Write ``value`` whole, or leave what was there.

    Raises:
        OSError: If it does not fit.
    """
    buffer = io.BytesIO()  # torch.save to a full disk raises something that does not say so
    torch.save(value, buffer)
    partial = path.with_name(f".{path.name}.partial")  # hidden: not copied anywhere
    try:
        with partial.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def resume(learner: Learner, fixed: dict[str, Any], cluster: Cluster) -> Progress:
    """Go on from the checkpoint that was given, if any; process 0 reads it for all.

    Raises:
        TrainingError: If it is none, or one of another network.
    """
    found = cluster.share(_checkpoint(fixed) if cluster.leads else None)
    if found is None:
        return Progress()
    if isinstance(found, str):
        raise TrainingError(found)
    learner.restore(found["learner"])
    progress = Progress(**found["progress"])
    cluster.say(f"resumed after epoch {progress.epochs}")
    return progress


def _checkpoint(fixed: dict[str, Any]) -> dict[str, Any] | str | None:
    """The checkpoint, or None if there is none, or what is wrong with it."""
    folder = os.environ.get("EM_CHECKPOINT_INPUT_DIR")
    if not folder:
        return None
    path = Path(folder, _CHECKPOINT)
    if not path.exists():
        print(f"there is no {_CHECKPOINT} in {folder}; beginning anew", flush=True)
        return None
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        other = [name for name, value in fixed.items() if found["fixed"][name] != value]
    except Exception:  # noqa: BLE001 (whatever unpickling a strange file raises)
        return f"{path} is not a checkpoint of this algorithm."
    if other:
        name = other[0]
        return (
            f"The checkpoint {path} was made with {name} {found['fixed'][name]}, and this "
            f"training is of {name} {fixed[name]}. Begin without it, or train as it was made."
        )
    return found


def leave_model(
    folder: Path, config: dict[str, Any], progress: Progress, tested: dict[str, float]
) -> None:
    """Write what serving needs: structure, handler, weights, classes and requirements."""
    for name in ("model.py", "handler.py"):
        shutil.copyfile(_HERE / name, folder / name)
    write(progress.best_weights, folder / "model.pt")
    described = {**config, "epoch": progress.best_epoch, "metrics": progress.best | tested}
    (folder / "config.json").write_text(json.dumps(described, indent=2, ensure_ascii=False))
    (folder / "classes.json").write_text(json.dumps(config["classes"], ensure_ascii=False))
    versions = (f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "pillow"))
    (folder / "requirements.txt").write_text("\n".join(versions) + "\n")


def _dataset(variable: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        raise TrainingError("There is no data set 'train'.")
    return Path(folder)


def main() -> None:
    """Train; what goes wrong is one sentence on standard error, and exit status 1."""
    try:
        with clusters.joined() as cluster:
            train(all_settings.read(), cluster)
    except TrainingError as error:
        _fail(error)
    except torch.OutOfMemoryError:
        _fail(TrainingError("The GPU's memory is too small. Lower batch_size or image_size."))
    except OSError as error:
        _fail(TrainingError(f"A file could not be read or written: {error}."))


def _fail(error: TrainingError) -> NoReturn:
    # torchrun ends all processes when the first one fails, which may not be the one that prints;
    # what is recorded stands in torchrun's own last lines.
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        get_error_handler().record_exception(error)
    if os.environ.get("RANK", "0") == "0":
        print(error, file=sys.stderr, flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
