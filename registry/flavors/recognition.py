"""Which kind of model a folder holds, by the names and first bytes of its files.

Nothing is unpickled, which would run a stranger's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from registry.frameworks import scikit_learn
from registry.frameworks.layout import Layout

_HEAD_BYTES = 64

_TORCH = (b"PK\x03\x04", b"\x80")  # a zip file, or an old pickle
_NETWORK = "model.py"  # the class of a PyTorch model, beside its weights


@dataclass(frozen=True)
class ModelKind:
    """A kind of model.

    Attributes:
        loader: The loader module's file, without its suffix.
        packages: What the loader imports, as on a package index.
        suffixes: Ends of the file that is the model; none if the whole folder is.
        matches: Whether the file, or the folder's layout, is of this kind; given the layout, the
            file's name and its first bytes.
    """

    loader: str
    packages: tuple[str, ...]
    suffixes: tuple[str, ...]
    matches: Callable[[Layout, str, bytes], bool]


@dataclass(frozen=True)
class RecognizedModel:
    """A model that was recognized.

    Attributes:
        kind: Its kind.
        file: The file that is the model; "" for the whole folder.
    """

    kind: ModelKind
    file: str


def _has_network(layout: Layout) -> bool:
    return _NETWORK in layout.sizes


_FOLDERS = (
    ModelKind(
        "saved_model", ("tensorflow",), (), lambda layout, *_: "saved_model.pb" in layout.sizes
    ),
    ModelKind(
        "transformers_folder", ("transformers", "torch", "safetensors"), (),
        lambda layout, *_: "config.json" in layout.sizes
        and bool(layout.top(".safetensors"))
        and not _has_network(layout),
    ),
)  # fmt: skip

_FILES = (
    ModelKind(
        "joblib_file", ("scikit-learn", "joblib"), (scikit_learn.JOBLIB, *scikit_learn.PICKLES),
        lambda _, __, head: scikit_learn.is_pickled(head),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy"), (".pt", ".pth", ".pt2"),
        lambda _, __, head: head.startswith(_TORCH),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy"), (".bin",),
        lambda layout, _, head: _has_network(layout) and head.startswith(_TORCH),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy", "safetensors"), (".safetensors",),
        lambda layout, _, __: _has_network(layout),
    ),
    ModelKind("onnx_file", ("onnxruntime", "numpy"), (".onnx",), lambda *_: True),
    ModelKind(
        "xgboost_file", ("xgboost",), (".json", ".ubj", ".xgb"),
        lambda _, __, head: head.startswith(b"{") and b"learner" in head,
    ),
    ModelKind(
        "lightgbm_file", ("lightgbm",), (".txt", ".lgb", ".lgbm", ".model"),
        lambda _, __, head: head.startswith(b"tree\n"),
    ),
    ModelKind(
        "catboost_file", ("catboost",), (".cbm",), lambda _, __, head: head.startswith(b"CBM1")
    ),
)  # fmt: skip


def recognize(layout: Layout) -> RecognizedModel | None:
    """The model in a folder; None if there is none of a known kind, or several.

    Of several files the one called ``model`` is the model.
    """
    for kind in _FOLDERS:
        if kind.matches(layout, "", b""):
            return RecognizedModel(kind, "")
    found = [
        RecognizedModel(kind, name)
        for kind in _FILES
        for name in layout.top(*kind.suffixes)
        if kind.matches(layout, name, _head(layout, name))
    ]
    called_model = [one for one in found if PurePosixPath(one.file).stem == "model"]
    return next((some[0] for some in (found, called_model) if len(some) == 1), None)


def _head(layout: Layout, name: str) -> bytes:
    with layout.open(name) as file:
        return file.read(_HEAD_BYTES)
