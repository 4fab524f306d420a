"""Zipped pipelines: only the pipeline's file is read, and nothing is unpacked to disk."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from pathlib import PurePosixPath

from infra.errors import BadInputError
from pipelines.documents import LARGEST, too_large

MOST_MEMBERS = 100
MOST_BYTES = 20 * LARGEST
LARGEST_RATIO = 500
_MAIN = "pipeline.yaml"
_ALONE = f"Zip the compiled pipeline alone, as {_MAIN}."
_KINDS = (".yaml", ".yml", ".json")
_ENCRYPTED = 0x1
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_GZIP = b"\x1f\x8b"


def is_zip(data: bytes, name: str) -> bool:
    """Whether a file is a zip, or is named like one."""
    return data.startswith(_MAGIC) or name.lower().endswith(".zip")


def extract_pipeline(data: bytes, name: str) -> tuple[bytes, str]:
    """Read the pipeline's file of a zip; return its content and its name.

    Raises:
        BadInputError: With the code ``PackageInvalid``, or ``PipelineTooLarge``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            _check(members, name)
            chosen = _chosen([one.filename for one in members], name)
            with archive.open(chosen) as file:
                content = file.read(LARGEST + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _refused(name, f"is not a zip that can be read ({error})") from None
    if len(content) > LARGEST:
        raise too_large(f"{chosen} in {name}")
    return content, f"{chosen} in {name}"


def refuse_other_archives(data: bytes, name: str) -> None:
    """Refuse other archive formats.

    Raises:
        BadInputError: With the code ``PackageInvalid``.
    """
    if data.startswith(_GZIP):
        raise _refused(name, "is packed with gzip", "Give the YAML file itself, or a zip of it.")


def _refused(name: str, why: str, hint: str = _ALONE) -> BadInputError:
    return BadInputError(f"{name} {why}.", hint, code="PackageInvalid")


def _check(members: list[zipfile.ZipInfo], name: str) -> None:
    if len(members) > MOST_MEMBERS:
        raise _refused(name, f"has more than {MOST_MEMBERS} files")
    if sum(one.file_size for one in members) > MOST_BYTES:
        raise _refused(name, f"unpacks to more than {MOST_BYTES // 1024**2} MiB")
    for one in members:
        path = one.filename
        if _climbs(path):
            raise _refused(name, f"has a file outside itself: {path[:100]!r}")
        if stat.S_ISLNK(one.external_attr >> 16):
            raise _refused(name, f"has a link in it: {path[:100]!r}")
        if one.flag_bits & _ENCRYPTED:
            raise _refused(name, f"is encrypted: {path[:100]!r}", "Zip it without a password.")
        if one.file_size > LARGEST_RATIO * max(one.compress_size, 1):
            raise _refused(name, f"unpacks to more than {LARGEST_RATIO} times its size")


def _climbs(path: str) -> bool:
    parts = PurePosixPath(path.replace("\\", "/"))
    drive = ":" in path.partition("/")[0]
    return parts.is_absolute() or ".." in parts.parts or drive or "\0" in path


def _chosen(paths: list[str], name: str) -> str:
    """Choose the pipeline's file: the one with the usual name, else the only candidate."""
    visible = [path for path in paths if not any(
        part.startswith((".", "__MACOSX")) for part in PurePosixPath(path).parts
    )]  # fmt: skip
    likely = [path for path in visible if path.lower().endswith(_KINDS)]
    if _MAIN in likely:
        return _MAIN
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise _refused(name, "has no YAML file in it")
    listed = ", ".join(sorted(likely)[:5])
    raise _refused(name, f"has several YAML files, none of them {_MAIN}: {listed}")
