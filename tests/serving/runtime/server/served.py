"""Models to serve in tests: those of the protocol's vectors."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from modelyard_runtime.frames import Columns
from modelyard_runtime.models.base import Model
from modelyard_runtime.models.estimators import Estimator
from modelyard_runtime.server.batching import BatchLimits
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.observation import ModelObserver

SETOSA = [5.1, 3.5, 1.4, 0.2]
VIRGINICA = [6.7, 3.0, 5.2, 2.3]


@contextlib.contextmanager
def forgotten_scripts() -> Iterator[None]:
    """Forget what a scoring script has imported, and its folder."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.split(".")[0].startswith(("azureml", "entry_module", "inference_schema")):
            del sys.modules[name]


class UsersCode(Model):
    """Code of a user's, which is a function of tensors."""

    is_users_code = True

    def __init__(self, function: Callable[[Columns], Columns]) -> None:
        self._function = function

    def infer(self, inputs: Columns) -> Columns:
        return self._function(inputs)


def iris() -> Model:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    return Estimator(LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True)))


def boom(inputs: Columns) -> Columns:
    raise RuntimeError("boom")


def odd(inputs: Columns) -> Columns:
    return {"prediction": np.array([np.nan, np.inf, 1.0])}


def slow(inputs: Columns) -> Columns:
    time.sleep(float(next(iter(inputs.values())).ravel()[0]))
    return inputs


def hosted(
    name: str, model: Model | Callable[[Columns], Columns],
    observer: ModelObserver | None = None, **limits: Any,
) -> HostedModel:  # fmt: skip
    made = model if isinstance(model, Model) else UsersCode(model)
    return HostedModel(name, "1", lambda: made, BatchLimits(**limits), observer)
