"""PyTorch: an archive of torch-model-archiver, the files that it would be made of, or a network.

The archive's format: https://github.com/pytorch/serve/blob/master/model-archiver/README.md.
"""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

from modelyard_runtime.recognition import recognize

from registry.frameworks.layout import Layout, only, refused

_ARCHIVE = ".mar"
_MANIFEST = "MAR-INF/MANIFEST.json"
_LONGEST_MANIFEST = 2**20
_SCRIPTS = ("model.py", "handler.py")
_SERVED = ("serializedFile", "modelFile", "handler")  # a manifest names one of these
_WEIGHTS = (".pt", ".pth", ".bin")
_SAVED = (b"PK\x03\x04", b"\x80")  # how torch.save begins: a zip file, or an old pickle
_LOADER = "torch_file"  # the runtime's

# Members of the zip files that have a network's operations beside its weights, below their root:
# of torch.jit.save, and of torch.export.save since PyTorch 2.8 and before.
_SCRIPTED = re.compile(r"[^/]+/constants\.pkl")
_EXPORTED = re.compile(r"[^/]+/models/[^/]+\.json|([^/]+/)?serialized_exported_program\.json")

# What zipfile raises of broken, encrypted and foreign archives.
_NO_ZIP = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)


def check(layout: Layout, name: str) -> None:
    """Refuse what TorchServe could not serve under ``name``.

    Raises:
        BadInputError: ``ArchiveAmbiguous``, ``ArchiveMalformed``, ``ArchiveNameDiffers``;
            ``PytorchFilesMissing``; ``WeightsMissing``, ``WeightsAmbiguous``,
            ``WeightsMalformed``.
    """
    archives = layout.top(_ARCHIVE)
    if archives:
        archive = only(layout, archives, suffixes=(_ARCHIVE,), kind="Archive")
        _check_archive(layout, archive, name)
    else:
        _check_files(layout)


def is_scripted(members: Iterable[str]) -> bool:
    """Whether ``torch.jit.save`` wrote the zip file with these members."""
    return any(_SCRIPTED.fullmatch(member) for member in members)


def _is_whole_network(layout: Layout) -> bool:
    """Whether the runtime loads a file that needs no code: TorchScript, or an ExportedProgram.

    Raises:
        BadInputError: With the code ``WeightsMalformed``, if the zip file is incomplete.
    """
    found = recognize(layout)
    if found is None or found.kind.loader != _LOADER:
        return False
    with layout.open(found.file) as file:
        if not file.read(len(_SAVED[0])).startswith(_SAVED[0]):
            return False  # an old pickle
        try:
            with zipfile.ZipFile(file) as packed:
                members = packed.namelist()
        except _NO_ZIP as error:
            raise _unsaved(layout, found.file) from error
    return is_scripted(members) or any(_EXPORTED.fullmatch(member) for member in members)


def _check_files(layout: Layout) -> None:
    whole = _is_whole_network(layout)
    # A network that needs no code may have a handler, but not an empty one.
    missing = [script for script in _SCRIPTS if not layout.sizes.get(script, whole)]
    if missing:
        raise refused(
            "PytorchFilesMissing",
            f"There is no {_ARCHIVE} file and no whole network at {layout.uri}, and "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing or empty.",
            layout.elsewhere(_ARCHIVE, f"/{_SCRIPTS[0]}")
            or "Save the model with torch.jit.save or torch.export.save, pack it with "
            "torch-model-archiver, or put model.py, handler.py and the weights (.pt, .pth or "
            ".bin) there: what torch.save writes does not have the model's class.",
        )
    if whole:
        return
    weights = only(layout, layout.top(*_WEIGHTS), suffixes=_WEIGHTS, kind="Weights")
    with layout.open(weights) as file:
        head = file.read(max(map(len, _SAVED)))
    if not head.startswith(_SAVED):
        raise _unsaved(layout, weights)


def _unsaved(layout: Layout, file: str) -> Exception:
    return refused(
        "WeightsMalformed",
        f"{file} at {layout.uri} was not written by PyTorch, or is incomplete.",
        "Save or copy it again.",
    )


def _check_archive(layout: Layout, archive: str, name: str) -> None:
    try:
        with layout.open(archive) as file, zipfile.ZipFile(file) as packed:
            members = set(packed.namelist())
            model = _manifest(packed)["model"]
            packed_as = str(model["modelName"])
            served = [key for key in _SERVED if model.get(key)]
            named = {str(model[key]) for key in ("serializedFile", "modelFile") if model.get(key)}
    except _NO_ZIP as error:
        raise _malformed(layout, archive, f"it is not a zip file ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(layout, archive, f"its {_MANIFEST} is missing or wrong") from error
    if not served:
        raise _malformed(layout, archive, f"its {_MANIFEST} names no {', '.join(_SERVED)}")
    for member in members:
        if member.startswith("/") or ".." in member.split("/"):
            raise _malformed(layout, archive, f"its member {member!r} climbs out of it")
    if not named <= members:
        raise _malformed(layout, archive, f"it lacks {', '.join(sorted(named - members))}")
    if packed_as != name:
        raise refused(
            "ArchiveNameDiffers",
            f"{archive} at {layout.uri} was packed as {packed_as!r}, and the model is called "
            f"{name!r}.",
            f"Call the model {packed_as!r}, or pack it with --model-name {name}.",
        )


def _manifest(packed: zipfile.ZipFile) -> dict[str, Any]:
    if packed.getinfo(_MANIFEST).file_size > _LONGEST_MANIFEST:
        raise ValueError("too long")
    found = json.loads(packed.read(_MANIFEST))
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise ValueError("no model")
    return found


def _malformed(layout: Layout, archive: str, reason: str) -> Exception:
    return refused(
        "ArchiveMalformed",
        f"{archive} at {layout.uri} is not a model archive: {reason}.",
        "Pack it again with torch-model-archiver.",
    )
