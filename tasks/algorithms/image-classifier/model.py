"""The network, and how an image becomes what it takes.

This file is left beside the weights, and serves the model as it trained it. It holds one class,
and that is made without arguments, as TorchServe wants it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

# Expansion, then channels and residual blocks of each stage; every stage after the first halves
# the image. An expansion of 4 means bottleneck blocks, whose output has four times their channels.
ARCHITECTURES = {
    "small": (1, ((32, 1), (64, 1), (128, 1))),
    "resnet18": (1, ((64, 2), (128, 2), (256, 2), (512, 2))),
    "resnet34": (1, ((64, 3), (128, 4), (256, 6), (512, 3))),
    "resnet50": (4, ((64, 3), (128, 4), (256, 6), (512, 3))),
}
_LARGE = 96  # pixels; larger images are quartered before the first stage


def pixels(image: Image.Image, config: Mapping[str, Any]) -> np.ndarray:
    """``image`` upright, scaled and cut to the square that the network takes.

    Returns:
        uint8 of shape (channels, image_size, image_size).
    """
    size, channels = config["image_size"], config["channels"]
    mode = "RGB" if channels == 3 else "L"
    image.draft(mode, (size, size))  # a large JPEG is decoded at a fraction of its size
    if image.mode.startswith("I;16"):  # which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    upright = ImageOps.exif_transpose(image).convert(mode)
    fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(size, size, channels).transpose(2, 0, 1)


class Classifier(nn.Module):
    """A residual network (He et al., 2016), which halves the image in a block's 3 x 3 convolution.

    Args:
        config: ``architecture``, ``image_size``, ``channels`` and ``classes``; left out, it is
            read from the ``config.json`` beside this file.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        config = config or json.loads(Path(__file__).with_name("config.json").read_text())
        expansion, stages = ARCHITECTURES[config["architecture"]]
        width = stages[0][0]
        self.stem = _stem(config["channels"], width, large=config["image_size"] > _LARGE)
        self.bodies, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        for number, (channels, depth) in enumerate(stages):
            for block in range(depth):
                stride = 2 if number > 0 and block == 0 else 1
                body = _body if expansion == 1 else _bottleneck
                self.bodies.append(body(width, channels, stride))
                self.shortcuts.append(_shortcut(width, channels * expansion, stride))
                width = channels * expansion
        self.head = nn.Linear(width, len(config["classes"]))

    def forward(self, images: Tensor) -> Tensor:
        """Scores before the softmax, (n, classes), of uint8 images (n, channels, size, size)."""
        features: Tensor = self.stem((images.float() / 255 - 0.5) / 0.25)
        for body, shortcut in zip(self.bodies, self.shortcuts, strict=True):
            features = torch.relu(body(features) + shortcut(features))
        scores: Tensor = self.head(features.mean((2, 3)))
        return scores


def _stem(channels: int, width: int, *, large: bool) -> nn.Sequential:
    if large:
        return nn.Sequential(
            *_convolution(channels, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
    return nn.Sequential(*_convolution(channels, width, 3, 1), nn.ReLU())


def _body(before: int, after: int, stride: int) -> nn.Sequential:
    first = _convolution(before, after, 3, stride)
    return _passing_on(*first, nn.ReLU(), *_convolution(after, after, 3, 1))


def _bottleneck(before: int, inner: int, stride: int) -> nn.Sequential:
    reduce, middle = _convolution(before, inner, 1, 1), _convolution(inner, inner, 3, stride)
    expand = _convolution(inner, inner * 4, 1, 1)
    return _passing_on(*reduce, nn.ReLU(), *middle, nn.ReLU(), *expand)


def _passing_on(*layers: Any) -> nn.Sequential:
    nn.init.zeros_(layers[-1].weight)  # a new block passes its input on: depth does no harm then
    return nn.Sequential(*layers)


def _shortcut(before: int, after: int, stride: int) -> nn.Module:
    if before == after and stride == 1:
        return nn.Identity()
    return nn.Sequential(*_convolution(before, after, 1, stride))


def _convolution(before: int, after: int, kernel: int, stride: int) -> list[Any]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after)]
