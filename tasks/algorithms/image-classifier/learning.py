"""The network while it learns: epochs of training, validation, and its state between them."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cluster import Cluster
from images import Images
from model import Classifier
from settings import Settings, TrainingError
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

_MOMENTUM = 0.9


def be_repeatable() -> None:
    """Have the same seed give the same model, on a GPU too where its operations can."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


class Learner:
    """The network, its optimizer, and the data that it learns from.

    What is random in an epoch follows from the seed and the epoch's number alone, so a training
    that was interrupted goes on as if it had not been.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        config: dict[str, Any],
        training: Images,
        validation: Images,
    ) -> None:
        self._settings, self._cluster = settings, cluster
        torch.manual_seed(settings.seed)
        self.model = Classifier(config).to(cluster.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._learning: nn.Module = self.model
        if cluster.world > 1:
            gpus = [cluster.device] if cluster.device.type == "cuda" else None
            self._learning = DistributedDataParallel(self.model, device_ids=gpus)
        self._optimizer = _optimizer(self.model, settings)
        self._half = _half(settings, cluster.device)
        self._scaler = torch.amp.GradScaler(
            cluster.device.type, enabled=self._half is torch.float16
        )
        self._sampler: DistributedSampler[Any] = DistributedSampler(
            training, cluster.world, cluster.rank, seed=settings.seed
        )
        self._training = self._loader(training, self._sampler)
        self._validation = self._held(validation)

    def _held(self, images: Images) -> DataLoader[tuple[Tensor, Tensor]]:
        # Not the training's sampler, which repeats images until all processes have as many.
        share = range(self._cluster.rank, len(images), self._cluster.world)
        return self._loader(images, share)

    def _loader(self, images: Images, sampler: Any) -> DataLoader[tuple[Tensor, Tensor]]:
        # `Images` reads a batch at a time with threads of its own; worker processes would only
        # keep it from remembering what is decoded.
        return DataLoader(
            images,
            batch_size=math.ceil(self._settings.batch_size / self._cluster.world),
            sampler=sampler,
            collate_fn=_as_it_is,
            pin_memory=self._cluster.device.type == "cuda",
        )

    def epoch(self, number: int) -> dict[str, float]:
        """Learn from every training image once.

        Raises:
            TrainingError: If the loss is no number any more.
        """
        begun = time.perf_counter()
        self._sampler.set_epoch(number)
        generator = _generator(self._settings.seed, number, self._cluster.rank)
        self._learning.train()
        sums = torch.zeros(3, dtype=torch.float64, device=self._cluster.device)
        for step, batch in enumerate(self._training):
            images, labels = self._moved(batch)
            if self._settings.augmentation:
                images = augmented(images, generator)
            self._set_rate((number - 1) + step / len(self._training))
            with self._precision():
                scores = self._learning(images)
                loss = F.cross_entropy(
                    scores.float(), labels, label_smoothing=self._settings.label_smoothing
                )
            self._optimizer.zero_grad()
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimizer)
            self._scaler.update()
            sums[0] += loss.detach() * len(labels)
            sums[1] += (scores.argmax(1) == labels).sum()
            sums[2] += len(labels)
        loss_sum, right_sum, count = self._cluster.total(sums).tolist()
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"The loss became {loss_sum} in epoch {number}. Most likely the learning rate of "
                f"{self._settings.learning_rate:g} is too high."
            )
        return {
            "loss": loss_sum / count,
            "accuracy": right_sum / count,
            "images_per_second": count / (time.perf_counter() - begun),
        }

    def validate(self) -> tuple[dict[str, float], np.ndarray]:
        """Metrics ``val_...`` over the validation images, and how often what was taken for what.

        Returns:
            The metrics, and counts of shape (classes, classes): true class, predicted class.
        """
        return self._evaluate(self._validation, "val")

    def test(self, images: Images) -> tuple[dict[str, float], np.ndarray]:
        """Metrics ``test_...`` over other images, and counts; as :meth:`validate`."""
        return self._evaluate(self._held(images), "test")

    @torch.inference_mode()
    def _evaluate(
        self, held: DataLoader[tuple[Tensor, Tensor]], prefix: str
    ) -> tuple[dict[str, float], np.ndarray]:
        self._cluster.spread(self.model.buffers())  # each process has seen other batches
        self.model.eval()
        classes = self.model.head.out_features
        confusion = torch.zeros(classes**2, dtype=torch.int64, device=self._cluster.device)
        loss = torch.zeros(1, dtype=torch.float64, device=self._cluster.device)
        for batch in held:
            images, labels = self._moved(batch)
            with self._precision():
                scores = self.model(images)
            loss += F.cross_entropy(scores.float(), labels, reduction="sum")
            pairs = labels * classes + scores.argmax(1)
            confusion += torch.bincount(pairs, minlength=classes**2)
        counts = self._cluster.total(confusion).reshape(classes, classes).cpu().numpy()
        total = self._cluster.total(loss).item()
        metrics = {"loss": total / counts.sum(), **quality(counts)}
        return {f"{prefix}_{name}": float(value) for name, value in metrics.items()}, counts

    def state(self) -> dict[str, Any]:
        """What must be kept to go on after the last epoch."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from an earlier :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _moved(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = (part.to(self._cluster.device, non_blocking=True) for part in batch)
        return images.contiguous(memory_format=torch.channels_last), labels

    def _precision(self) -> torch.autocast:
        kind = self._cluster.device.type
        return torch.autocast(kind, dtype=self._half, enabled=self._half is not None)

    def _set_rate(self, epochs_done: float) -> None:
        rate = self._settings.learning_rate * schedule(
            epochs_done, self._settings.warmup_epochs, self._settings.epochs
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate


def quality(counts: np.ndarray) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 as means over the classes that occur.

    Args:
        counts: Of shape (classes, classes): true class, predicted class. A class that is never
            predicted has a precision of 0.
    """
    right, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    occurs = actual + predicted > 0
    shares = {
        "precision": right / np.maximum(predicted, 1),
        "recall": right / np.maximum(actual, 1),
        "f1": 2 * right / np.maximum(actual + predicted, 1),
    }
    means = {name: float(share[occurs].mean()) for name, share in shares.items()}
    return {"accuracy": float(right.sum() / counts.sum()), **means}


def schedule(epochs_done: float, warmup: float, epochs: float) -> float:
    """The share of the learning rate: a line from a hundredth up to 1, then a cosine to 0."""
    if epochs_done < warmup:
        return 0.01 + 0.99 * epochs_done / warmup
    progress = (epochs_done - warmup) / max(epochs - warmup, 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped, or not, and shifted by up to an eighth; the edges are drawn out."""
    count, _, _, size = images.shape
    most = size // 8
    shifts = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
    rows, columns = (torch.arange(size) + shifts).clamp(0, size - 1)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    each = torch.arange(count, device=images.device)
    pixels = images.permute(0, 2, 3, 1)[each[:, None, None], rows[:, :, None], columns[:, None]]
    return pixels.permute(0, 3, 1, 2)


def _as_it_is(batch: Any) -> Any:
    return batch


def _generator(*numbers: int) -> torch.Generator:
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)


def _half(settings: Settings, device: torch.device) -> torch.dtype | None:
    """The 16-bit type to compute in, or None for 32 bits throughout."""
    if device.type != "cuda" or not settings.mixed_precision:
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.ndim > 1]},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            groups, settings.learning_rate, _MOMENTUM,
            weight_decay=settings.weight_decay, nesterov=True,
        )  # fmt: skip
    return torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)
