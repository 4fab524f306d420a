"""Scikit-learn: a model that joblib has written."""

from __future__ import annotations

from registry.frameworks.layout import Layout, only, refused

_JOBLIB = ".joblib"

# How a pickle begins, and the compressed forms that joblib writes: zlib, gzip, bz2, xz, lzma, lz4.
_MAGIC = (
    b"\x80", b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18",
)  # fmt: skip


def check(layout: Layout, name: str) -> None:
    """Refuse what joblib could not load; it is not unpickled, which would run its code.

    Raises:
        BadInputError: ``JoblibMissing``, ``JoblibAmbiguous``, ``JoblibMalformed``.
    """
    file = only(layout, layout.top(_JOBLIB), suffixes=(_JOBLIB,), kind="Joblib")
    with layout.open(file) as opened:
        head = opened.read(max(map(len, _MAGIC)))
    if not head.startswith(_MAGIC):
        raise refused(
            "JoblibMalformed",
            f"{file} at {layout.uri} was not written by joblib.",
            "Write it with joblib.dump(model, 'model.joblib').",
        )
