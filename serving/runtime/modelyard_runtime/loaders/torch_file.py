"""Loads a PyTorch model: TorchScript, an ExportedProgram, a module, or weights with model.py."""

from __future__ import annotations

import importlib.util
import inspect
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def _load_pyfunc(path: str) -> Any:
    """The model, as MLflow calls it."""
    return TorchModel(_network(Path(path)))


def _network(path: Path) -> Any:
    """The network in the file.

    Raises:
        TypeError: If the file has weights without their network.
    """
    members = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if any(name.endswith("/constants.pkl") for name in members):
        return torch.jit.load(path, map_location="cpu").eval()
    if any(name.rpartition("/")[2] in _EXPORTED for name in members):
        return torch.export.load(path).module()
    code = path.with_name("model.py")
    if code.is_file():
        network = _only_class(code)()
        network.load_state_dict(_weights(path))
        return network.eval()
    loaded = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(loaded, torch.nn.Module):
        raise TypeError(
            f"{path} holds a {type(loaded).__name__}: weights without their network. Leave the "
            "network's class in a model.py beside them, or save the model with torch.jit.save or "
            "torch.export.save."
        )
    return loaded.eval()


_EXPORTED = frozenset({"archive_format", "serialized_exported_program.json"})


def _weights(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415 (only where it is needed)

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _only_class(code: Path) -> Any:
    """The one network in ``model.py`` that is made without arguments, as TorchServe wants it.

    Raises:
        TypeError: If there is none, or there are several.
    """
    # Not by the name "model", which another model's file may have too.
    spec = importlib.util.spec_from_file_location(f"model_{abs(hash(code))}", code)
    if spec is None or spec.loader is None:
        raise ImportError(f"{code} is not a Python module.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    classes = [
        found
        for found in vars(module).values()
        if inspect.isclass(found)
        and issubclass(found, torch.nn.Module)
        and found.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise TypeError(f"{code} defines {len(classes)} networks; it must define exactly one.")
    return classes[0]


class TorchModel:
    """Takes arrays and data frames, and gives arrays."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """The network's output: an array, or a list or dict of arrays."""
        with torch.no_grad():
            return _to_arrays(self._network(_to_tensor(data), **(params or {})))

    def get_raw_model(self) -> Any:
        """The network itself."""
        return self._network


def _to_tensor(data: Any) -> Any:
    """A tensor: float32 of a data frame or of floats, as networks want it; else as it is."""
    if isinstance(data, torch.Tensor):
        return data
    if hasattr(data, "to_numpy"):
        return torch.tensor(data.to_numpy(dtype=np.float32))
    array = np.asarray(data)
    return torch.tensor(array.astype(np.float32) if array.dtype == np.float64 else array)


def _to_arrays(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.detach().cpu().numpy()
    if isinstance(output, Mapping):
        return {name: _to_arrays(value) for name, value in output.items()}
    if isinstance(output, list | tuple):
        return [_to_arrays(value) for value in output]
    return output
