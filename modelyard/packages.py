"""Modelyard's packages in a process whose folders have packages of the same names.

``flows``, ``tasks`` and the others are top-level names. Python looks beside the caller's script
first, so a project's own folder ``tasks`` would take the place of Modelyard's.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

NAMES = ("infra", "registry", "tuning", "pipelines", "schedules", "tasks", "flows")

_ROOT = Path(__file__).resolve().parents[1]
_lock = threading.Lock()


def come_first() -> None:
    """Have Modelyard's packages found before others of their names; for a process of its own."""
    sys.path.sort(key=_has_foreign)


def _has_foreign(entry: str) -> bool:
    folder = Path(entry).resolve()
    return folder != _ROOT and any(
        Path(folder, name).is_dir() or Path(folder, f"{name}.py").is_file() for name in NAMES
    )


def claim() -> None:
    """Have the top-level names mean Modelyard's packages, also where others were found before.

    What the caller has under a name stays importable: modules of a package, and names of a module
    or an ``__init__``, unless Modelyard's package has a module of that name.

    Raises:
        ImportError: If a module is loaded under a name that Modelyard needs.
    """
    with _lock:
        taken = [name for name in NAMES if not _is_own(sys.modules.get(name), name)]
        for name in taken:
            _check_modules(name)
        for name in taken:
            _load(name)


def _is_own(module: ModuleType | None, name: str) -> bool:
    folders = getattr(module, "__path__", ())
    return any(Path(folder).resolve() == _ROOT / name for folder in folders)


def _check_modules(name: str) -> None:
    """Refuse modules of another package that are loaded under names of Modelyard's."""
    for own in pkgutil.iter_modules([str(_ROOT / name)], f"{name}."):
        loaded = sys.modules.get(own.name)
        file = str(getattr(loaded, "__file__", None) or own.name)
        if loaded is not None and _ROOT not in Path(file).resolve().parents:
            raise ImportError(
                f"{file} is imported as {own.name}, which is a module of Modelyard's as well. "
                "Rename the file, or the folder that it is in.",
                name=own.name,
                path=file,
            )


def _load(name: str) -> None:
    """Import Modelyard's package, with what the caller has under its name behind it."""
    theirs, before = sys.modules.get(name), _foreign_spec(name)
    spec = importlib.util.spec_from_file_location(
        name, _ROOT / name / "__init__.py", submodule_search_locations=[str(_ROOT / name)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    module.__path__ = [*module.__path__, *_foreign_folders(name, theirs)]
    if theirs is not None or before is not None:
        module.__getattr__ = _Fallback(module, theirs, before)  # type: ignore[method-assign]


def _foreign_folders(name: str, loaded: ModuleType | None) -> Iterator[str]:
    """Folders of other packages of this name, in the order of the path."""
    found = dict.fromkeys(map(str, getattr(loaded, "__path__", ())))
    found |= dict.fromkeys(pkgutil.extend_path([], name))
    return (folder for folder in found if Path(folder).resolve() != _ROOT / name)


def _foreign_spec(name: str) -> ModuleSpec | None:
    """Where Python finds another module or package of this name; None without one."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != _ROOT]
    spec = PathFinder.find_spec(name, elsewhere)
    return spec if spec is not None and spec.origin else None


class _Fallback:
    """Attributes of the caller's module, which is loaded when the first one is used."""

    def __init__(
        self, own: ModuleType, theirs: ModuleType | None, spec: ModuleSpec | None
    ) -> None:
        self._own = own
        self._theirs = theirs
        self._spec = spec
        self._modules = {found.name for found in pkgutil.iter_modules(own.__path__[:1])}

    def __call__(self, name: str) -> Any:
        special = name.startswith("__") and name.endswith("__")
        if special or name in self._modules:  # Modelyard's, which may not be imported yet
            raise AttributeError(f"module {self._own.__name__!r} has no attribute {name!r}")
        return getattr(self._module(), name)

    def _module(self) -> ModuleType:
        if self._theirs is None:
            assert self._spec is not None
            assert self._spec.loader is not None
            self._theirs = importlib.util.module_from_spec(self._spec)
            self._spec.loader.exec_module(self._theirs)
        return self._theirs
