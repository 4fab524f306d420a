"""Scikit-learn: a model that joblib or pickle has written."""

from __future__ import annotations

from modelyard_runtime.recognition import HEAD_BYTES, JOBLIB, PICKLES, is_pickled

from registry.frameworks.layout import Layout, only, refused

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


def check(layout: Layout, name: str) -> None:
    """Refuse what joblib could not load; it is not unpickled, which would run its code.

    Raises:
        BadInputError: ``JoblibMissing``, ``JoblibAmbiguous``, ``JoblibMalformed``.
    """
    file = _model_file(layout)
    with layout.open(file) as opened:
        head = opened.read(HEAD_BYTES)
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
