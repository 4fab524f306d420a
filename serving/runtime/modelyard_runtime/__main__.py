"""The runtime's command: ``python -m modelyard_runtime``, or ``python PATH/modelyard_runtime``.

Started by its path it needs no installation: an environment that has numpy is enough, and nothing
that lies beside the runtime becomes importable in it.
"""

import importlib.util
import sys
from pathlib import Path


def _load_by_path() -> None:
    folder = Path(__file__).parent
    sys.path.pop(0)  # the package's own folder
    spec = importlib.util.spec_from_file_location(
        "modelyard_runtime", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} has no package.")
    sys.modules["modelyard_runtime"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["modelyard_runtime"])


if not __package__:
    _load_by_path()

from modelyard_runtime.predictor import main  # noqa: E402 (importable only now)

if __name__ == "__main__":
    main()
