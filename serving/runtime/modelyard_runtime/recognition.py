"""Which kind of model a folder holds, by the names and first bytes of its files.

Nothing is unpickled, which would run a stranger's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

JOBLIB = ".joblib"
PICKLES = (".pkl", ".pickle")

HEAD_BYTES = 64

# How a pickle begins, and the compressed forms that joblib writes: zlib, gzip, bz2, xz, lzma, lz4.
_PICKLED = (
    b"\x80", b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18",
)  # fmt: skip
_TORCH = (b"PK\x03\x04", b"\x80")  # a zip file, or an old pickle
_NETWORK = "model.py"  # the class of a PyTorch model, beside its weights


def is_pickled(head: bytes) -> bool:
    """Whether joblib or pickle wrote the file that begins with ``head`` (``HEAD_BYTES``)."""
    return head.startswith(_PICKLED)


class ModelFiles(Protocol):
    """A model's files."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file by its name, which is relative and has '/' between folders."""

    def top(self, *suffixes: str) -> list[str]:
        """Files beside each other at the top that end in one of ``suffixes``."""

    def open(self, name: str) -> BinaryIO:
        """The file for reading."""


class LocalFiles:
    """The files of a model in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sizes: Mapping[str, int] = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def top(self, *suffixes: str) -> list[str]:
        """Files beside each other at the top that end in one of ``suffixes``."""
        return [name for name in self.sizes if "/" not in name and name.endswith(suffixes)]

    def open(self, name: str) -> BinaryIO:
        """The file for reading."""
        return (self._folder / name).open("rb")


@dataclass(frozen=True)
class ModelKind:
    """A kind of model.

    Attributes:
        loader: The loader module's file, without its suffix.
        packages: What the loader imports, as on a package index.
        suffixes: Ends of the file that is the model; none if the whole folder is.
        matches: Whether the file, or the folder, is of this kind; given all files, the file's name
            and its first bytes.
    """

    loader: str
    packages: tuple[str, ...]
    suffixes: tuple[str, ...]
    matches: Callable[[ModelFiles, str, bytes], bool]


@dataclass(frozen=True)
class RecognizedModel:
    """A model that was recognized.

    Attributes:
        kind: Its kind.
        file: The file that is the model; "" for the whole folder.
    """

    kind: ModelKind
    file: str


def _has_network(files: ModelFiles) -> bool:
    return _NETWORK in files.sizes


_FOLDERS = (
    ModelKind(
        "saved_model", ("tensorflow",), (), lambda files, *_: "saved_model.pb" in files.sizes
    ),
    ModelKind(
        "transformers_folder", ("transformers", "torch", "safetensors"), (),
        lambda files, *_: "config.json" in files.sizes
        and bool(files.top(".safetensors"))
        and not _has_network(files),
    ),
)  # fmt: skip

_FILES = (
    ModelKind(
        "joblib_file", ("scikit-learn", "joblib"), (JOBLIB, *PICKLES),
        lambda _, __, head: is_pickled(head),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy"), (".pt", ".pth", ".pt2"),
        lambda _, __, head: head.startswith(_TORCH),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy"), (".bin",),
        lambda files, _, head: _has_network(files) and head.startswith(_TORCH),
    ),
    ModelKind(
        "torch_file", ("torch", "numpy", "safetensors"), (".safetensors",),
        lambda files, _, __: _has_network(files),
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


def recognize(files: ModelFiles) -> RecognizedModel | None:
    """The model in a folder; None if there is none of a known kind, or several.

    Of several files the one called ``model`` is the model.
    """
    for kind in _FOLDERS:
        if kind.matches(files, "", b""):
            return RecognizedModel(kind, "")
    found = [
        RecognizedModel(kind, name)
        for kind in _FILES
        for name in files.top(*kind.suffixes)
        if kind.matches(files, name, _head(files, name))
    ]
    called_model = [one for one in found if PurePosixPath(one.file).stem == "model"]
    return next((some[0] for some in (found, called_model) if len(some) == 1), None)


def _head(files: ModelFiles, name: str) -> bytes:
    with files.open(name) as file:
        return file.read(HEAD_BYTES)
