"""Serves the model: images in, classes out.

A handler as TorchServe loads it, but what it is handed are the request's ``instances`` themselves.
Each is an image: a file's bytes, in base64 or as they are, or rows of pixels from 0 to 255, of
numbers (grey) or of lists of channels.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


class ImageClassifierHandler:
    """Answers each image with its class and the probability of every class."""

    def initialize(self, context: Any) -> None:
        """Load the model that lies in the context's ``model_dir``."""
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        gpu = properties.get("gpu_id")
        on_gpu = gpu is not None and torch.cuda.is_available()
        self.device = torch.device(f"cuda:{gpu}" if on_gpu else "cpu")
        self.config = json.loads((folder / "config.json").read_text())
        self.classes = json.loads((folder / "classes.json").read_text())
        self.structure = _module(folder / "model.py")
        self.model = self.structure.Classifier(self.config)
        weights = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
        self.model.load_state_dict(weights)
        self.model.to(self.device).eval()
        self.initialized = True

    def handle(self, data: Sequence[Any], context: Any) -> list[dict[str, Any]]:
        """Answer the instances of one request."""
        return self.postprocess(self.inference(self.preprocess(data)))

    def preprocess(self, data: Sequence[Any]) -> Tensor:
        """The instances as the network takes them: uint8, (n, channels, size, size).

        Raises:
            ValueError: If one is no image; the message says which, counted from 0.
        """
        images = []
        for number, instance in enumerate(data):
            try:
                images.append(self.structure.pixels(_image(instance), self.config))
            except (ValueError, TypeError, OSError, SyntaxError) as error:
                raise ValueError(f"Instance {number} is not an image: {error}") from error
        return torch.from_numpy(np.stack(images)).to(self.device)

    def inference(self, data: Tensor) -> Tensor:
        """Probabilities, (n, classes)."""
        with torch.inference_mode():
            return torch.softmax(self.model(data), dim=1)

    def postprocess(self, data: Tensor) -> list[dict[str, Any]]:
        """One answer for each instance; ``probabilities`` in the order of ``classes.json``."""
        return [
            {"prediction": self.classes[int(np.argmax(row))], "probabilities": row}
            for row in data.tolist()
        ]


def _module(path: Path) -> ModuleType:
    """The module in that file; not by its name, which another model may have too."""
    spec = importlib.util.spec_from_file_location(f"model_{abs(hash(path))}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _image(instance: Any) -> Image.Image:
    if isinstance(instance, Mapping):  # {"b64": ...}, or a row of TorchServe's own
        instance = next(
            (instance[key] for key in ("b64", "data", "body") if key in instance), None
        )
    if isinstance(instance, str):
        try:
            instance = base64.b64decode(instance, validate=True)
        except binascii.Error as error:
            raise ValueError("the string is not base64") from error
    if isinstance(instance, bytes | bytearray):
        try:
            return Image.open(io.BytesIO(instance))
        except UnidentifiedImageError as error:
            raise ValueError("the bytes are of no known image format") from error
    return _of_rows(instance)


def _of_rows(instance: Any) -> Image.Image:
    rows = np.asarray(instance, dtype=np.float32)
    if rows.ndim == 3 and rows.shape[2] == 1:
        rows = rows[:, :, 0]
    if rows.size == 0 or not (rows.ndim == 2 or (rows.ndim == 3 and rows.shape[2] == 3)):
        raise ValueError(
            f"its shape is {rows.shape}, not (height, width) with or without 3 channels"
        )
    if not (rows.min() >= 0 and rows.max() <= 255):
        raise ValueError("its pixels are not from 0 to 255")
    return Image.fromarray(rows.round().astype(np.uint8))
