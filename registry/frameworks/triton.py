"""Triton: a model folder with ``config.pbtxt`` and numbered versions, or a repository of one.

The layout is the one of a model in Triton's model repository.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from registry.frameworks import onnx, pytorch, tensorflow
from registry.frameworks.layout import Layout, refused

_CONFIG = "config.pbtxt"
_VERSION = re.compile(r"[1-9]\d*")
_STRING = r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'"
# What matters in a text of protobuf's: comments and other strings are skipped as a whole.
_TOKEN = re.compile(
    rf"#[^\n]*|(?P<open>[{{\[<])|(?P<close>[}}\]>])|(?P<key>\w+)\s*:\s*(?P<value>{_STRING})|{_STRING}"
)


@dataclass(frozen=True)
class TritonBackend:
    """What Triton loads a model with.

    Attributes:
        names: How ``config.pbtxt`` may call its platform or backend.
        file: The model in a version's folder.
        check: Looks at that.
    """

    names: frozenset[str]
    file: str
    check: Callable[[Layout, str], None]


@dataclass(frozen=True)
class TritonPlacement:
    """How a server finds a model in its files.

    Attributes:
        name: The model's name there, which is its folder's in the repository.
        is_repository: Whether the files are the repository, and else the model's own folder.
    """

    name: str
    is_repository: bool


def checker(kind: TritonBackend) -> Callable[[Layout, str], None]:
    """The check of one of the kinds below.

    It raises ``BadInputError`` with ``TritonConfigMissing``, ``TritonBackendDiffers``,
    ``TritonVersionMissing``, ``TritonModelMissing``, or what the kind's own check raises.
    """

    def check(layout: Layout, name: str) -> None:
        root = _root(layout)
        stated = _stated(layout.text(root + _CONFIG))
        for key in ("platform", "backend"):
            if stated.get(key) and stated[key] not in kind.names:
                raise refused(
                    "TritonBackendDiffers",
                    f"{root}{_CONFIG} at {layout.uri} has the {key} {stated[key]!r}.",
                    f"This framework's are {', '.join(sorted(kind.names))}: choose the framework "
                    "that fits, or correct the file.",
                )
        file = stated.get("default_model_filename") or kind.file
        for version in _versions(layout, root):
            kind.check(layout, f"{root}{version}/{file}")

    return check


def placement(layout: Layout, name: str) -> TritonPlacement:
    """How a server finds a model in its files.

    Args:
        layout: The files.
        name: The registered model's name, under which a model's own folder is served whose
            configuration gives none.

    Raises:
        BadInputError: ``TritonConfigMissing``, or ``TritonNameInvalid``.
    """
    if root := _root(layout):
        return TritonPlacement(root.removesuffix("/"), is_repository=True)
    found = _stated(layout.text(_CONFIG)).get("name") or name
    if "/" in found or found in {".", ".."}:
        raise refused(
            "TritonNameInvalid",
            f"{_CONFIG} at {layout.uri} has the name {found[:100]!r}, which no folder can have.",
            "Correct the name, or leave it out.",
        )
    return TritonPlacement(found, is_repository=False)


def _stated(text: str) -> dict[str, str]:
    """The texts that a configuration gives at its top, by their fields."""
    depth, found = 0, {}
    for token in _TOKEN.finditer(text):
        depth += bool(token["open"]) - bool(token["close"])
        if token["key"] and depth == 0:
            found[token["key"]] = token["value"][1:-1]
    return found


def _root(layout: Layout) -> str:
    """The model's folder: "" where the URI is it, else the only one that has a configuration."""
    if _CONFIG in layout.sizes:
        return ""
    folders = [
        file.removesuffix(_CONFIG)
        for file in layout.sizes
        if file.count("/") == 1 and file.endswith(f"/{_CONFIG}")
    ]
    if len(folders) == 1:
        return folders[0]
    found = f"there are {len(folders)}" if folders else "there is none"
    raise refused(
        "TritonConfigMissing",
        f"A model for Triton has one {_CONFIG}, and {found} at {layout.uri}.",
        f"Give the folder that holds {_CONFIG}, or a folder with one such folder in it.",
    )


def _versions(layout: Layout, root: str) -> list[str]:
    names = (file.removeprefix(root) for file in layout.sizes if file.startswith(root))
    heads = {name.partition("/")[0] for name in names if "/" in name}
    found = sorted((head for head in heads if _VERSION.fullmatch(head)), key=int)
    if not found:
        raise refused(
            "TritonVersionMissing",
            f"There is no numbered version folder beside {root}{_CONFIG} at {layout.uri}.",
            "Put the model into a folder called 1.",
        )
    return found


def _missing(layout: Layout, path: str) -> Exception:
    return refused(
        "TritonModelMissing",
        f"There is no {path} at {layout.uri}.",
        "Put the model there under that name.",
    )


def _check_saved_model(layout: Layout, path: str) -> None:
    if not layout.below(path):
        raise _missing(layout, f"{path}/saved_model.pb")
    tensorflow.check_saved_model(layout, f"{path}/")


def _check_torch_script(layout: Layout, path: str) -> None:
    if path not in layout.sizes:
        raise _missing(layout, path)
    try:
        with layout.open(path) as file, zipfile.ZipFile(file) as packed:
            scripted = pytorch.is_scripted(packed.namelist())
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise refused(
            "TorchScriptMalformed", f"{path} at {layout.uri} is not a zip file.", "Save it again."
        ) from error
    if not scripted:
        raise refused(
            "TorchScriptMalformed",
            f"{path} at {layout.uri} holds weights without their model.",
            "Save the model with torch.jit.save, not with torch.save.",
        )


def _check_onnx(layout: Layout, path: str) -> None:
    if path not in layout.sizes:
        raise _missing(layout, path)
    onnx.check_model(layout, path)


TENSORFLOW = TritonBackend(
    frozenset({"tensorflow", "tensorflow_savedmodel"}), "model.savedmodel", _check_saved_model
)
PYTORCH = TritonBackend(
    frozenset({"pytorch", "pytorch_libtorch", "libtorch"}), "model.pt", _check_torch_script
)
ONNX = TritonBackend(
    frozenset({"onnxruntime", "onnxruntime_onnx", "onnx"}), "model.onnx", _check_onnx
)
