"""What a model's code leaves in this process is taken away again: its modules, and its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

_NAMES = ("handler", "predictor", "names", "model")


@pytest.fixture(autouse=True)
def models_leave_nothing() -> Iterator[None]:
    path = [*sys.path]
    modules = {name: sys.modules.pop(name, None) for name in _NAMES}
    yield
    sys.path[:] = path
    for name, module in modules.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
