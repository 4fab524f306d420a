"""Publication of what a script leaves in EM_MODEL_DIR: to MLflow, and to the output."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from infra import storage
from infra.errors import BadInputError
from infra.storage import store
from infra.workloads.environment_layout import LIBRARY, OWN_PACKAGES
from registry import tracking
from registry.flavors import mlmodel
from registry.models import models
from registry.runs import publish_targets
from tasks import outputs, provided
from tasks.run_directory import RunDirectory
from tasks.training.training_request import Training


def publish(
    training: Training, run_dir: RunDirectory, run_id: str, log: Callable[..., object]
) -> str:
    """Publish the model among the artifacts of an MLflow run, and to ``output_uri``, if any.

    In MLflow it gets an MLmodel file, where its kind is known, and the run gets its framework,
    where the algorithm declares one.

    Args:
        training: The training.
        run_dir: The run's folders.
        run_id: The MLflow run.
        log: Receives a line if MLflow will not be able to load the model.

    Returns:
        The artifacts' URI; "" if the script left no file.

    Raises:
        BadInputError: If MLflow cannot store the files.
        DiskFullError: If the disk is full.
        StackError: If MLflow has not kept the files.
    """
    if not has_model(run_dir):
        return ""
    check_model(run_dir)
    with tempfile.TemporaryDirectory(dir=run_dir.root) as temporary:
        folder, asked = Path(temporary), _requirements(training, run_dir)
        if not mlmodel.write(run_dir.model, folder, run_id, asked, _packages(run_dir)):
            log(
                "mlflow.pyfunc.load_model will not load the model: docs/models.md lists the files "
                "that it can."
            )
        source = tracking.log_files(run_id, run_dir.model, "model", folder)
    if training.algorithm.provided:
        algorithm = provided.load(training.algorithm.provided)
        models.declare_framework(run_id, algorithm.framework, algorithm.framework_version())
    if training.output_uri:
        publish_targets.record(run_id, outputs.canonical(training.output_uri))
        publish_output(training, run_dir)
    return source


def publish_output(training: Training, run_dir: RunDirectory) -> None:
    """Copy the model to ``output_uri``, if that is set; each file atomically.

    Raises:
        DiskFullError: If the disk is full.
    """
    if training.output_uri:
        store(training.output_uri).publish(run_dir.model)


def _requirements(training: Training, run_dir: RunDirectory) -> Path:
    entry = PurePosixPath(training.algorithm.entry_point)
    return run_dir.source / entry.parent / "requirements.txt"


def _packages(run_dir: RunDirectory) -> list[Path]:
    """Folders with the packages that the script imported; none if they are gone since."""
    if not run_dir.interpreter.exists():
        return []
    own = Path(run_dir.interpreter.read_text()).parent.parent / LIBRARY
    return [own, OWN_PACKAGES] if own.is_dir() else []


def has_model(run_dir: RunDirectory) -> bool:
    """Whether the script left any file in EM_MODEL_DIR.

    Raises:
        BadInputError: With the code ``ModelNotAFolder``, if the script replaced the folder by a
            file, which would be lost.
    """
    if run_dir.model.exists() and not run_dir.model.is_dir():
        raise BadInputError(
            "The script replaced the folder EM_MODEL_DIR by a file.",
            "Write the model into the folder.",
            code="ModelNotAFolder",
        )
    return any(path.is_file() for path in run_dir.model.rglob("*"))


def check_model(run_dir: RunDirectory) -> None:
    """Refuse a model with files that MLflow cannot store: dangling links, pipes, names with '#'.

    Raises:
        BadInputError: For the first such file.
    """
    storage.check_tree(run_dir.model, links_resolve=True)
    for path in run_dir.model.rglob("*"):
        name = path.name
        if path.is_symlink() and path.is_dir():
            raise BadInputError(
                f"MLflow cannot store the link {str(path.relative_to(run_dir.model))!r} to a "
                "folder.",
                "Replace the link by the folder.",
                code="LinkToFolder",
            )
        if "#" in name or "?" in name or unquote(name) != name or not name.isprintable():
            raise BadInputError(
                f"MLflow cannot store a file named {str(path.relative_to(run_dir.model))!r}.",
                "Give it a name without '#', '?', '%' and control characters.",
                code="FileNameInvalid",
            )
