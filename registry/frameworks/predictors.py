"""Models that the runtime's predictor loads: boosters, what MLflow saved, and predictor.py."""

from __future__ import annotations

import ast
from collections.abc import Callable

from modelyard_runtime.recognition import recognize

from registry.frameworks.layout import Layout, refused

_MLMODEL = "MLmodel"
_PREDICTOR = "predictor.py"
_FUNCTIONS = ("load", "predict")


def booster(loader: str, how: str) -> Callable[[Layout, str], None]:
    """The check of a booster's own file.

    Args:
        loader: The runtime's loader of it.
        how: How such a file is written.
    """

    def check(layout: Layout, name: str) -> None:
        """Refuse what is not one file of the booster.

        Raises:
            BadInputError: With the code ``BoosterMissing``.
        """
        found = recognize(layout)
        if found is None or found.kind.loader != loader:
            raise refused(
                "BoosterMissing",
                f"There is no file of such a booster at {layout.uri}, or there are several.",
                f"Write one with {how}, and call it 'model' where there are others.",
            )

    return check


def mlflow(layout: Layout, name: str) -> None:
    """Refuse what MLflow has not saved.

    Raises:
        BadInputError: With the code ``MlmodelMissing``.
    """
    if _MLMODEL not in layout.sizes:
        raise refused(
            "MlmodelMissing",
            f"There is no file {_MLMODEL} at {layout.uri}.",
            layout.elsewhere(_MLMODEL) or "Give the folder that MLflow's save_model() wrote.",
        )


def custom(layout: Layout, name: str) -> None:
    """Refuse what has no predictor.py with both functions; it is parsed, and not run.

    Raises:
        BadInputError: ``PredictorMissing`` or ``PredictorMalformed``.
    """
    if _PREDICTOR not in layout.sizes:
        raise refused(
            "PredictorMissing",
            f"There is no {_PREDICTOR} at {layout.uri}.",
            layout.elsewhere(f"/{_PREDICTOR}")
            or "Put one there, with load(model_dir, parameters) and predict(inputs, model).",
        )
    try:
        parsed = ast.parse(layout.text(_PREDICTOR))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise refused(
            "PredictorMalformed",
            f"{_PREDICTOR} at {layout.uri} is no Python: {error}.",
            "Correct it.",
        ) from error
    missing = [name for name in _FUNCTIONS if name not in _names(parsed)]
    if missing:
        raise refused(
            "PredictorMalformed",
            f"{_PREDICTOR} at {layout.uri} has no {' and no '.join(missing)}.",
            "Define load(model_dir, parameters) and predict(inputs, model) in it.",
        )


def _names(module: ast.Module) -> set[str]:
    """All names that a module may bind, also in branches and by imports."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
            found |= set(_FUNCTIONS) if node.name == "*" else set()
    return found
