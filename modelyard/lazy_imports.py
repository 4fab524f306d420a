"""Lazy imports of Modelyard's own packages: a command pays for what it uses alone.

``from registry.runs import runs`` binds a module that is executed when an attribute of it is first
used. ``from flows.connection import connected`` names something in a module, and so executes it at
once. Modules of commands therefore import modules where these are heavy.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from modelyard import packages

_PREFIXES = tuple(f"{name}." for name in (*packages.NAMES, "modelyard.api"))


class _LazyFinder(importlib.machinery.PathFinder):
    """Finds modules of the packages, to be executed when they are first used."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(_PREFIXES):
            return None
        spec = super().find_spec(fullname, path, target)
        # A package's own module is short, and its submodules are looked for in it.
        if spec is None or spec.loader is None or spec.submodule_search_locations is not None:
            return spec
        spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


def install() -> None:
    """Import the packages' modules lazily from now on."""
    if _LazyFinder not in sys.meta_path:
        sys.meta_path.insert(0, _LazyFinder)


def complete() -> None:
    """Execute what was imported lazily, and import eagerly again.

    Before threads start: Python's lazy loader (3.11) is not safe for them.
    """
    if _LazyFinder in sys.meta_path:
        sys.meta_path.remove(_LazyFinder)
        for name, module in list(sys.modules.items()):
            if name.startswith(_PREFIXES):
                vars(module)  # which executes it
