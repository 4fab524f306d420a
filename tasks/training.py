"""The steps of a training: prepare, run the script, publish the model.

The contract with the script (arguments, environment variables, folders) is AI EasyMaker's; the
page ``docs/training-contract.md`` tells it in full.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from infra import storage
from infra.connection import clean_environment
from infra.errors import DiskFullError, RunFailedError
from infra.home import Home
from infra.settings import Settings
from infra.stack import remains
from infra.storage import store
from tasks import overlay
from tasks.script import Ended, Ending
from tasks.training_request import RUNNERS, Dataset, Scalar, Training, variable_name

# Another run's contract, and our own settings, a password of the catalogue's among them.
_NOT_INHERITED = ("EM_", "MODELYARD_", "PYTHONSAFEPATH")
_OUT_OF_MEMORY_CODES = {-9, 137}
_OUT_OF_MEMORY_LINE = re.compile(r"exit ?code\s*:\s*-9\b")


@dataclass(frozen=True)
class Workplace:
    """The folders of one run, below the home."""

    root: Path

    @property
    def source(self) -> Path:
        """A copy of the algorithm's directory."""
        return self.root / "source"

    @property
    def datasets(self) -> Path:
        """Folders for data sets that cannot be read where they are."""
        return self.root / "datasets"

    @property
    def model(self) -> Path:
        """EM_MODEL_DIR: what the script leaves here is the model."""
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        """Output checkpoints, where no ``checkpoint_uri`` was given."""
        return self.root / "checkpoints"

    @property
    def checkpoint_input(self) -> Path:
        """A copy of input checkpoints that cannot be read where they are."""
        return self.root / "checkpoint-input"

    @property
    def tensorboard(self) -> Path:
        """EM_TENSORBOARD_LOG_DIR."""
        return self.root / "tensorboard"

    @property
    def log(self) -> Path:
        """Everything that the script printed, attempt after attempt."""
        return self.root / "train.log"

    def clear(self) -> None:
        """Remove what an attempt needs only while it runs."""
        for folder in (self.source, self.datasets, self.model, self.checkpoint_input):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Prepared:
    """A script that is ready to run.

    Attributes:
        command: Its command line.
        env: What the contract adds to its environment.
        resumed_from: The output checkpoints of an earlier attempt, if it resumes from them.
    """

    command: list[str]
    env: dict[str, str]
    resumed_from: Path | None


def prepare(
    training: Training, place: Workplace, home: Home, settings: Settings, *, retried: bool
) -> Prepared:
    """Fetch the algorithm and the data, install the requirements, lay out the folders.

    Args:
        training: What was asked for; checked.
        place: The run's folders; what an earlier attempt left of them is cleared.
        home: Where overlays are kept.
        settings: Region and app key for the script.
        retried: Whether this is a later attempt: it resumes from output checkpoints if any.

    Raises:
        BadInputError: If the requirements cannot be installed or a link leads out.
        NotFoundError: If something was removed since it was checked.
        DiskFullError: If it does not fit.
    """
    place.clear()
    try:
        store(training.algorithm.uri).fetch(place.source)
        for folder in (place.model, place.tensorboard):
            folder.mkdir(parents=True, exist_ok=True)
        entry = place.source / training.algorithm.entry_point
        python = overlay.python_for(entry.parent / "requirements.txt", home.overlays)
        checkpoints = _checkpoints(training, place)
        resumed_from = checkpoints if retried and any(checkpoints.iterdir()) else None
        folders = {
            "EM_SOURCE_DIR": place.source,
            "EM_MODEL_DIR": place.model,
            "EM_CHECKPOINT_DIR": checkpoints,
            "EM_CHECKPOINT_INPUT_DIR": resumed_from or _checkpoint_input(training, place),
            "EM_TENSORBOARD_LOG_DIR": place.tensorboard,
        }
        env = {
            **{name: str(folder) for name, folder in folders.items() if folder is not None},
            **_dataset_variables(training.datasets, place),
            **_hyperparameter_variables(training.hyperparameters),
            "EM_ENTRY_POINT": training.algorithm.entry_point,
            "EM_REGION": settings.region,
            "EM_APPKEY": settings.appkey,
        }
    except OSError as error:
        if storage.is_disk_full(error):
            raise DiskFullError(f"The disk of {place.root} is full.", "Make room.") from error
        raise
    runner = RUNNERS[entry.suffix] or python
    return Prepared([runner, str(entry), *arguments(training.hyperparameters)], env, resumed_from)


def _checkpoints(training: Training, place: Workplace) -> Path:
    """Where the script writes checkpoints: at ``checkpoint_uri`` itself, so a kill loses none."""
    target = store(training.checkpoint_uri).in_place() if training.checkpoint_uri else None
    folder = target or place.checkpoints
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checkpoint_input(training: Training, place: Workplace) -> Path | None:
    if not training.checkpoint_input_uri:
        return None
    source = store(training.checkpoint_input_uri)
    folder = source.in_place() if source.is_directory() else None
    if folder is None:
        place.checkpoint_input.mkdir(parents=True)
        name = PurePosixPath(training.checkpoint_input_uri).name
        source.fetch(place.checkpoint_input / name)
        return place.checkpoint_input
    return folder


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def arguments(hyperparameters: Mapping[str, Scalar]) -> list[str]:
    """The script's arguments: ``--key value`` for each hyperparameter, by name.

    Prefect's database keeps no order of keys, so the names' own order is the one that a run in a
    pool and a call in this process share.
    """
    pairs = sorted(hyperparameters.items())
    return [part for key, value in pairs for part in (f"--{key}", _text(value))]


def _hyperparameter_variables(hyperparameters: Mapping[str, Scalar]) -> dict[str, str]:
    # The contract says "the key in upper case"; a shell can only read names without - and .,
    # so keys that have them come in both forms.
    texts = {key: _text(value) for key, value in sorted(hyperparameters.items())}
    variables = {f"EM_HP_{variable_name(key)}": text for key, text in texts.items()}
    variables |= {f"EM_HP_{key.upper()}": text for key, text in texts.items()}
    return {**variables, "EM_HPS": json.dumps(dict(hyperparameters), sort_keys=True)}


def _dataset_variables(datasets: list[Dataset], place: Workplace) -> dict[str, str]:
    folders = {dataset.name: str(_dataset_folder(dataset, place)) for dataset in datasets}
    variables = {}
    for name, folder in folders.items():
        variables[f"EM_DATASET_{variable_name(name)}"] = folder
        variables[f"EM_DATASET_{name.upper()}"] = folder
    return {**variables, "EM_DATASETS": json.dumps(folders)}


def _dataset_folder(dataset: Dataset, place: Workplace) -> Path:
    """The folder with the data: the user's own, or one made for a data set that is one file."""
    source = store(dataset.uri)
    path = source.in_place()
    if path is not None and source.is_directory():
        return path
    folder = place.datasets / dataset.name
    folder.mkdir(parents=True)
    name = PurePosixPath(dataset.uri).name
    if path is not None:
        (folder / name).symlink_to(path)
    else:
        source.fetch(folder / name)
    return folder


def script_environment(
    prepared: Prepared, *, home: Home, flow_run_id: str, mlflow_run_id: str
) -> dict[str, str]:
    """The script's whole environment.

    It is the worker's without what is Prefect's, MLflow's or the catalogue's own, so that no
    credential of ours reaches the script; then the contract's variables.
    """
    inherited = {
        name: value
        for name, value in clean_environment().items()
        if not name.startswith(_NOT_INHERITED) or name == remains.VARIABLE
    }
    return {
        **inherited,
        **prepared.env,
        **remains.run_mark(home, flow_run_id),
        "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"],
        "MLFLOW_RUN_ID": mlflow_run_id,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join(
            [str(Path(prepared.command[0]).parent), str(Path(sys.executable).parent),
             inherited.get("PATH", os.defpath)]
        ),
    }  # fmt: skip


def failure(ended: Ended, log: str) -> RunFailedError | None:
    """Why the training failed, or None if the script ended well.

    Args:
        ended: How the script ended.
        log: Where the whole log is, for the hint.
    """
    if ended.ending is Ending.EXITED and ended.code == 0:
        return None
    tail = "\n".join(ended.tail) or "(it printed nothing)"
    starved = ended.code in _OUT_OF_MEMORY_CODES or any(
        map(_OUT_OF_MEMORY_LINE.search, ended.tail)
    )
    if starved:
        return RunFailedError(
            f"The script was killed (exit code -9), most likely because memory ran out. Its last "
            f"lines:\n{tail}\n",
            "Use smaller batches or fewer processes, or an instance type with more memory.",
            state="FAIL TRAIN",
            code="OOMKilled",
        )
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
    return RunFailedError(
        f"The script failed ({how}). Its last lines:\n{tail}\n",
        f"The whole log is {log}.",
        state="FAIL TRAIN",
        code="ScriptFailed",
    )


def publish_output(training: Training, place: Workplace) -> None:
    """Copy the model to ``output_uri``, if one was given: whole, or not at all.

    Raises:
        DiskFullError: If it does not fit.
    """
    if training.output_uri:
        store(training.output_uri).publish(place.model)


def has_model(place: Workplace) -> bool:
    """Whether the script left any file in EM_MODEL_DIR."""
    return any(path.is_file() for path in place.model.rglob("*"))


def check_model(place: Workplace) -> None:
    """Refuse what cannot be uploaded: links that lead out or nowhere, sockets, pipes.

    Raises:
        BadInputError: If there is any.
    """
    storage.check_tree(place.model, links_resolve=True)
