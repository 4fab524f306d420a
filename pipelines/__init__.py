"""Kubeflow Pipelines v2: read the IR, plan it, run it. Nothing here knows Prefect."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

# KFP's own switch of processes that execute components: it imports neither its compiler nor its
# client, which cost a second of processor and 60 MB, and of which nothing here uses anything.
_SWITCH = "_KFP_RUNTIME"
_LEFT_OUT = {"components": "kfp.components", "dsl": "kfp.dsl", "Client": "kfp.client"}


def _import_kfp() -> None:
    """Import ``kfp`` without what it leaves out then, which others in this process still find."""
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "true"
    try:
        kfp: Any = importlib.import_module("kfp")
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before

    def find(name: str) -> Any:
        if name not in _LEFT_OUT:
            raise AttributeError(f"module 'kfp' has no attribute {name!r}")
        module = importlib.import_module(_LEFT_OUT[name])
        return getattr(module, name, module)

    kfp.__getattr__ = find


if "kfp" not in sys.modules:
    _import_kfp()
