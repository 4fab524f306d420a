"""Models that bring code for predicting: a ``predictor.py``, or a handler of TorchServe."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from modelyard_runtime.frames import Columns
from modelyard_runtime.models.base import Model, ModelError, instances, outputs


class UserPredictor(Model):
    """A folder with ``predictor.py``: ``load(model_dir, parameters)``, ``predict(inputs, model)``.

    ``predict`` gets arrays by name, and ``model`` is what ``load`` returned.
    """

    is_users_code = True

    def __init__(self, folder: Path, parameters: Mapping[str, str]) -> None:
        code = module(folder / "predictor.py")
        self._predict = _function(code, "predict")
        self._model = _function(code, "load")(str(folder), dict(parameters))

    def infer(self, inputs: Columns) -> Columns:
        """What ``predict`` returns."""
        return outputs(self._predict(dict(inputs), self._model))


class TorchHandler(Model):
    """A handler of TorchServe's: from a ``.mar``, or ``handler.py`` beside ``model.py``.

    It gets the rows themselves as ``data``, such as ``[[1.0, 2.0], [3.0, 4.0]]``.
    """

    is_users_code = True

    def __init__(self, folder: Path, archive: str = "") -> None:
        if archive:
            self._unpacked = tempfile.TemporaryDirectory(prefix="modelyard-mar-")
            with zipfile.ZipFile(folder / archive) as file:
                file.extractall(self._unpacked.name)
            folder = Path(self._unpacked.name)
            manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
        else:
            manifest = {"model": _described(folder)}
        self._context = _context(folder, manifest)
        self._handle = _handler(folder, str(manifest["model"]["handler"]), self._context)

    def infer(self, inputs: Columns) -> Columns:
        """What the handler returns."""
        return outputs(self._handle(instances(inputs), self._context))


def module(file: Path) -> ModuleType:
    """The module in ``file``, which may import what lies beside it.

    Raises:
        ModelError: If the file does not exist.
        Exception: What the module raises.
    """
    if not file.is_file():
        raise ModelError(f"The model has no {file.name}.")
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ModelError(f"{file.name} is not a Python module.")
    found = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = found
    spec.loader.exec_module(found)
    return found


def _function(code: ModuleType, name: str) -> Callable[..., Any]:
    found = getattr(code, name, None)
    if not callable(found):
        raise ModelError(f"{Path(str(code.__file__)).name} has no function {name}().")
    return found  # type: ignore[no-any-return]


def _described(folder: Path) -> dict[str, str]:
    """The manifest's ``model`` of files that were not archived."""
    weights = [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix in {".pt", ".pth", ".bin", ".safetensors"}
    ]
    return {
        "modelName": folder.name,
        "handler": "handler.py",
        **({"modelFile": "model.py"} if (folder / "model.py").is_file() else {}),
        **({"serializedFile": weights[0]} if weights else {}),
    }


def _context(folder: Path, manifest: Mapping[str, Any]) -> Any:
    """TorchServe's context, as far as handlers look at it."""
    import torch  # noqa: PLC0415 (only models of its kind have it)

    properties = {
        "model_dir": str(folder),
        "gpu_id": 0 if torch.cuda.is_available() else None,
        "batch_size": 1,
        "server_name": "modelyard",
        "server_version": "0",
        "limit_max_image_pixels": True,
    }
    return SimpleNamespace(
        manifest=manifest,
        system_properties=properties,
        model_name=str(manifest["model"].get("modelName", "model")),
        model_yaml_config={},
        metrics=SimpleNamespace(add_time=_ignore, add_counter=_ignore, add_metric=_ignore),
        get_request_id=lambda *_: "",
        get_request_header=lambda *_: None,
        set_response_content_type=_ignore,
        set_response_header=_ignore,
        set_response_status=_ignore,
    )


def _ignore(*_: object, **__: object) -> None:
    """Nobody reads it here."""


def _handler(folder: Path, name: str, context: Any) -> Callable[[Any, Any], Any]:
    """The handler's entry: a class's ``handle``, or a function of the module.

    Raises:
        ModelError: If there is none.
    """
    file, _, entry = name.partition(":")
    if not file.endswith(".py"):
        file += ".py"
    code = module(folder / file)
    classes: list[Any] = [
        found
        for found in vars(code).values()
        if inspect.isclass(found)
        and found.__module__ == code.__name__
        and callable(getattr(found, "handle", None))
    ]
    if not entry and len(classes) == 1:
        handler = classes[0]()
        handler.initialize(context)
        return handler.handle  # type: ignore[no-any-return]
    function = getattr(code, entry or "handle", None)
    if not callable(function):
        raise ModelError(
            f"{file} must have one class with a method handle(), or a function "
            f"{entry or 'handle'}(data, context)."
        )
    function(None, context)  # as TorchServe does, so that it can load its model
    return function  # type: ignore[no-any-return]
