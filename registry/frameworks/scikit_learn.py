"""Scikit-learn: a model that joblib or pickle has written."""

from __future__ import annotations

from registry.frameworks.layout import Layout, only, refused

JOBLIB = ".joblib"
PICKLES = (".pkl", ".pickle")

# How a pickle begins, and the compressed forms that joblib writes: zlib, gzip, bz2, xz, lzma, lz4.
_MAGIC = (
    b"\x80", b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18",
)  # fmt: skip

# A pickle beside one of these is more likely a part of that model, such as its tokenizer.
_OTHER_FRAMEWORKS = (
    ".pb",
    ".h5",
    ".keras",
    ".pt",
    ".pth",
    ".mar",
    ".bin",
    ".safetensors",
    ".onnx",
)


def is_pickled(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is one that joblib or pickle has written."""
    return head.startswith(_MAGIC)


def check(layout: Layout, name: str) -> None:
    """Refuse what joblib could not load; it is not unpickled, which would run its code.

    Raises:
        BadInputError: ``JoblibMissing``, ``JoblibAmbiguous``, ``JoblibMalformed``.
    """
    file = _model_file(layout)
    with layout.open(file) as opened:
        head = opened.read(max(map(len, _MAGIC)))
    if not is_pickled(head):
        raise refused(
            "JoblibMalformed",
            f"{file} at {layout.uri} was written neither by joblib nor by pickle.",
            "Write it with joblib.dump(model, 'model.joblib').",
        )


def _model_file(layout: Layout) -> str:
    """A .joblib file, or where there is none a pickle that is not a part of another's model."""
    found = layout.top(JOBLIB)
    if found:
        return only(layout, found, suffixes=(JOBLIB,), kind="Joblib")
    file = only(layout, layout.top(*PICKLES), suffixes=(JOBLIB, *PICKLES), kind="Joblib")
    if others := sorted(layout.top(*_OTHER_FRAMEWORKS)):
        raise refused(
            "JoblibAmbiguous",
            f"{file} at {layout.uri} is beside {others[0]}, a file of another framework.",
            "Give that file's framework, or a folder with the pickle alone.",
        )
    return file
