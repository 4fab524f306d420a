"""PyTorch: an archive of torch-model-archiver, or the files that it would be made of.

The archive's format: https://github.com/pytorch/serve/blob/master/model-archiver/README.md.
"""

from __future__ import annotations

import json
import lzma
import zipfile
import zlib
from typing import Any

from registry.frameworks.layout import Layout, only, refused

_ARCHIVE = ".mar"
_MANIFEST = "MAR-INF/MANIFEST.json"
_LONGEST_MANIFEST = 2**20
_SCRIPTS = ("model.py", "handler.py")
_SERVED = ("serializedFile", "modelFile", "handler")  # a manifest names one of these
_WEIGHTS = (".pt", ".pth", ".bin")
_SAVED = (b"PK\x03\x04", b"\x80")  # how torch.save begins: a zip file, or an old pickle

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


def _check_files(layout: Layout) -> None:
    missing = [script for script in _SCRIPTS if not layout.sizes.get(script)]
    if missing:
        raise refused(
            "PytorchFilesMissing",
            f"There is no {_ARCHIVE} file at {layout.uri}, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing or empty.",
            layout.elsewhere(_ARCHIVE, f"/{_SCRIPTS[0]}")
            or "Pack it with torch-model-archiver, or put model.py, handler.py and the weights "
            "(.pt, .pth or .bin) there.",
        )
    weights = only(layout, layout.top(*_WEIGHTS), suffixes=_WEIGHTS, kind="Weights")
    with layout.open(weights) as file:
        head = file.read(max(map(len, _SAVED)))
    if not head.startswith(_SAVED):
        raise refused(
            "WeightsMalformed",
            f"{weights} at {layout.uri} was not written by torch.save.",
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
