"""The MLmodel file of a model, its loader module and its environment.

They are kept beside the files of the model, in MLflow only: the file ``MLmodel``, where MLflow
wants it, and all else below :data:`FOLDER`. Whoever serves the model sees the user's files alone
(:func:`is_own`). A model that has an MLmodel already, as MLflow writes one, is left as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from modelyard_runtime import loaders
from modelyard_runtime.recognition import RecognizedModel, recognize
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from infra.errors import BadInputError, NotFoundError
from infra.storage import store
from infra.workloads import requirements_file
from registry.flavors import signatures
from registry.frameworks.layout import Files, Layout

MLMODEL = "MLmodel"
FOLDER = ".modelyard"
_CODE = f"{FOLDER}/code"
_CONDA, _PYTHON = f"{FOLDER}/conda.yaml", f"{FOLDER}/python_env.yaml"
_REQUIREMENTS = "requirements.txt"  # the user's own, for serving


def is_own(name: str, names: Collection[str]) -> bool:
    """Whether the file ``name`` of a model, which has the files ``names``, is not the user's."""
    if name.startswith(f"{FOLDER}/"):
        return True
    return name == MLMODEL and any(other.startswith(f"{FOLDER}/") for other in names)


def remove(folder: Path) -> None:
    """Remove from a downloaded model what is not the user's."""
    if (folder / FOLDER).is_dir():
        shutil.rmtree(folder / FOLDER)
        (folder / MLMODEL).unlink(missing_ok=True)


def read_requirements(found: Files) -> list[str]:
    """The requirements that :func:`write` left beside a model's files; none if there are none."""
    try:
        environment = yaml.safe_load(found.read(_PYTHON))
    except NotFoundError:
        return []
    return [str(one) for one in environment["dependencies"]]


def write(
    model: Path, folder: Path, run_id: str, requirements: Path, packages: Sequence[Path]
) -> bool:
    """Write what MLflow needs to load a model; whether its kind is known.

    Args:
        model: The folder with the user's files.
        folder: An empty folder to write to.
        run_id: The MLflow run that the model belongs to.
        requirements: The requirements that it was trained with; the file need not exist.
        packages: Folders with the packages that it was trained with; the first ones count.
    """
    try:
        layout = Layout(store(str(model)))
        found = None if MLMODEL in layout.sizes or layout.below(FOLDER) else recognize(layout)
    except BadInputError:  # too many files
        return False
    if found is None:
        return False
    loader = (loaders.FOLDER / f"{found.kind.loader}.py").read_bytes()
    # By its content, so that two models in one process do not take each other's.
    module = f"modelyard_{found.kind.loader}_{hashlib.sha256(loader).hexdigest()[:8]}"
    needed = ("mlflow", *found.kind.packages, *_named(requirements))
    own = _named(model / _REQUIREMENTS)
    pinned = _pinned([name for name in dict.fromkeys(needed) if name not in own], packages)
    pip = [*pinned, *own.values()]
    files = {
        MLMODEL: _yaml(_described(layout, found, module, run_id)),
        _CONDA: _yaml(_conda(pip)),
        _PYTHON: _yaml(_python(pip)),
        f"{_CODE}/{module}.py": loader,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return True


def _described(layout: Layout, found: RecognizedModel, module: str, run_id: str) -> dict[str, Any]:
    """The content of the MLmodel file; its fields are those of ``mlflow.models.Model``."""
    flavor = {
        "code": _CODE,
        "env": {"conda": _CONDA, "virtualenv": _PYTHON},
        "loader_module": module,
        "python_version": platform.python_version(),
        **({"data": found.file} if found.file else {}),
    }
    return {
        "artifact_path": "model",
        "flavors": {"python_function": flavor},
        "mlflow_version": importlib.metadata.version("mlflow"),
        "model_size_bytes": sum(layout.sizes.values()),
        "model_uuid": uuid.uuid4().hex,
        "run_id": run_id,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        **signatures.described(layout),
    }


def _named(requirements: Path) -> dict[str, str]:
    """The packages that a requirements.txt names, with its lines.

    Options and addresses are left out: they can hold credentials.
    """
    found: dict[str, str] = {}
    try:
        for line in requirements_file.read_lines(requirements) if requirements.is_file() else ():
            with contextlib.suppress(InvalidRequirement):
                parsed = Requirement(line.text)
                if not parsed.url:
                    found[canonicalize_name(parsed.name)] = str(parsed)
    except BadInputError:  # it is no text; pip would have refused it
        return {}
    return found


def _pinned(names: Sequence[str], packages: Sequence[Path]) -> list[str]:
    """Requirements of the versions that are installed; of others the names alone."""
    path = list(map(str, packages))
    return [
        next(
            (
                f"{name}=={Version(one.version).public}"  # without a local part, such as +cpu
                for one in importlib.metadata.distributions(name=name, path=path)
            ),
            name,
        )
        for name in names
    ]


def _conda(requirements: list[str]) -> dict[str, Any]:
    return {
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements}],
        "name": "mlflow-env",
    }


def _python(requirements: list[str]) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": requirements,
    }


def _yaml(value: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True).encode()
