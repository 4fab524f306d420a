"""The steps of a training: check, prepare, run the script, publish the model.

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
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from infra import storage
from infra.connection import clean_environment
from infra.errors import BadInputError, DiskFullError, RunFailedError
from infra.home import Home
from infra.settings import Settings
from infra.stack import remains
from infra.storage import store
from tasks import overlay
from tasks.script import Ended, Ending
from tuning.metrics import MetricPattern

MOST_HYPERPARAMETERS = 100
MOST_DATASETS = 10
LONGEST_NAME = 250

# A text that may be left out, as an empty or a null value. To a form it is a plain text field.
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RUNNERS = {".py": None, ".sh": "bash"}
_OUT_OF_MEMORY_CODES = {-9, 137}
_OUT_OF_MEMORY_LINE = re.compile(r"exit ?code\s*:\s*-9\b")


class Algorithm(BaseModel):
    """Your own algorithm: a directory, and the script in it that starts the training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str = Field("", description="The directory with the algorithm's files.")
    entry_point: str = Field(
        "",
        description="The script that starts the training, as a path in that directory. A "
        "requirements.txt beside it is installed for the run.",
    )


class Dataset(BaseModel):
    """A data set; the script finds its folder in EM_DATASET_<NAME>."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="Its name: letters, digits, '-' and '_'.")
    uri: str = Field(description="Where it lies: a folder or a file.")


class Training(BaseModel):
    """Everything that a training is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text = ""
    description: Text = ""
    experiment: str = "Default"
    algorithm: Algorithm = Algorithm()
    hyperparameters: dict[str, Scalar] = {}
    datasets: list[Dataset] = []
    checkpoint_input_uri: Text = ""
    checkpoint_uri: Text = ""
    output_uri: Text = ""
    metrics: list[MetricPattern] = []
    max_minutes: float | None = None

    def absolute(self) -> Training:
        """The same with relative paths made absolute against the caller's working directory."""
        return self.model_copy(
            update={
                "algorithm": self.algorithm.model_copy(
                    update={"uri": storage.absolute(self.algorithm.uri)}
                ),
                "datasets": [
                    dataset.model_copy(update={"uri": storage.absolute(dataset.uri)})
                    for dataset in self.datasets
                ],
                **{
                    field: storage.absolute(getattr(self, field))
                    for field in ("checkpoint_input_uri", "checkpoint_uri", "output_uri")
                },
            }
        )


# Checks, before anything is taken


def check(training: Training, home: Home, settings: Settings) -> None:
    """Refuse what cannot work, before any resource is taken.

    Raises:
        BadInputError: With a code of its own for each fault.
        DiskFullError: If the home's disk has less room than the settings ask for.
    """
    _check_names(training)
    _check_algorithm(training.algorithm)
    _check_hyperparameters(training.hyperparameters)
    _check_datasets(training.datasets)
    begin = training.checkpoint_input_uri
    if begin and not store(begin).exists():
        raise BadInputError(
            f"checkpoint_input_uri: there is nothing at {begin}.",
            "Check the path.",
            code="CheckpointMissing",
        )
    for uri in (training.checkpoint_uri, training.output_uri):
        if uri:
            store(uri).check_writable()
    _check_metrics(training.metrics)
    if training.max_minutes is not None and not training.max_minutes > 0:
        raise BadInputError(
            f"max_minutes is {training.max_minutes:g}.",
            "Give the longest time in minutes, above 0, or leave it out.",
            code="MaxMinutesInvalid",
        )
    _check_room(home, settings)


def _check_names(training: Training) -> None:
    name = training.name
    if name and (
        not name.strip()
        or len(name) > LONGEST_NAME
        or not name.isprintable()
        or set(name) & set("/:")
    ):
        raise BadInputError(
            f"The name {name[:60]!r} cannot be used.",
            f"Give 1 to {LONGEST_NAME} printable characters without '/' and ':'.",
            code="NameInvalid",
        )
    if not training.experiment.strip() or len(training.experiment) > LONGEST_NAME:
        raise BadInputError(
            "The experiment's name is empty or too long.",
            f"Give 1 to {LONGEST_NAME} characters.",
            code="ExperimentInvalid",
        )


def _check_algorithm(algorithm: Algorithm) -> None:
    if not algorithm.uri or not algorithm.entry_point:
        raise BadInputError(
            "There is no algorithm.",
            "Give algorithm.uri, a directory, and algorithm.entry_point, a script in it.",
            code="AlgorithmMissing",
        )
    source = store(algorithm.uri)
    if not source.is_directory():
        raise BadInputError(
            f"algorithm.uri: there is no directory at {algorithm.uri}.",
            "Check the path.",
            code="AlgorithmMissing",
        )
    entry = PurePosixPath(algorithm.entry_point)
    if entry.is_absolute() or ".." in entry.parts:
        raise BadInputError(
            f"The entry point {algorithm.entry_point!r} lies outside the algorithm's directory.",
            "Give its path relative to algorithm.uri, without '..'.",
            code="EntryPointOutside",
        )
    root = source.in_place()
    if root is not None:
        script = root / entry
        if not script.is_file():
            raise BadInputError(
                f"There is no file {algorithm.entry_point!r} in {algorithm.uri}.",
                "Check algorithm.entry_point.",
                code="EntryPointMissing",
            )
        if not script.resolve().is_relative_to(root.resolve()):
            raise BadInputError(
                f"The entry point {algorithm.entry_point!r} is a link out of the algorithm's "
                "directory.",
                "Replace the link by the file.",
                code="EntryPointOutside",
            )
    if entry.suffix not in _RUNNERS:
        raise BadInputError(
            f"The entry point {algorithm.entry_point!r} is not a script that can be run.",
            f"It must end in {' or '.join(_RUNNERS)}.",
            code="EntryPointUnknown",
        )


def _check_hyperparameters(hyperparameters: Mapping[str, Scalar]) -> None:
    if len(hyperparameters) > MOST_HYPERPARAMETERS:
        raise BadInputError(
            f"There are {len(hyperparameters)} hyperparameters, and at most "
            f"{MOST_HYPERPARAMETERS} can be given.",
            "Put the rest into a file of the algorithm.",
            code="HyperparametersTooMany",
        )
    for key, value in hyperparameters.items():
        if not _KEY.fullmatch(key):
            raise BadInputError(
                f"The hyperparameter's name {key!r} cannot be an argument.",
                "Use letters, digits, '_', '-' and '.', and begin with a letter or '_'.",
                code="HyperparameterNameInvalid",
            )
        if "\0" in str(value):
            raise BadInputError(
                f"The hyperparameter {key!r} holds a zero byte.",
                "Take it out.",
                code="HyperparameterValueInvalid",
            )


def _check_datasets(datasets: list[Dataset]) -> None:
    if len(datasets) > MOST_DATASETS:
        raise BadInputError(
            f"There are {len(datasets)} data sets, and at most {MOST_DATASETS} can be given.",
            "Put some of them into one folder.",
            code="DatasetsTooMany",
        )
    seen: dict[str, str] = {}
    for dataset in datasets:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", dataset.name):
            raise BadInputError(
                f"The data set's name {dataset.name!r} cannot become EM_DATASET_<NAME>.",
                "Use letters, digits, '-' and '_'.",
                code="DatasetNameInvalid",
            )
        variable = _variable(dataset.name)
        if variable in seen:
            raise BadInputError(
                f"The data sets {seen[variable]!r} and {dataset.name!r} would both be "
                f"EM_DATASET_{variable}.",
                "Rename one.",
                code="DatasetNameTwice",
            )
        seen[variable] = dataset.name
        if not store(dataset.uri).exists():
            raise BadInputError(
                f"The data set {dataset.name!r} is missing: there is nothing at {dataset.uri}.",
                "Check its uri.",
                code="DatasetMissing",
            )


def _check_metrics(metrics: list[MetricPattern]) -> None:
    names = set()
    for metric in metrics:
        metric.expression()
        if not re.fullmatch(r"[\w.:/ -]{1,250}", metric.name):
            raise BadInputError(
                f"The metric's name {metric.name[:60]!r} cannot be used.",
                "Use letters, digits, spaces and '_', '-', '.', ':', '/'.",
                code="MetricNameInvalid",
            )
        if metric.name in names:
            raise BadInputError(
                f"The metric {metric.name!r} is given twice.", "Give each once.",
                code="MetricTwice",
            )  # fmt: skip
        names.add(metric.name)


def _check_room(home: Home, settings: Settings) -> None:
    existing = next(path for path in (home.root, *home.root.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 2**20
    if free < settings.min_free_mib:
        raise DiskFullError(
            f"The disk of {home.root} has {free} MiB left, and a run needs "
            f"{settings.min_free_mib} MiB.",
            "Make room, or set MODELYARD_MIN_FREE_MIB.",
        )


# Preparation


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
    runner = _RUNNERS[entry.suffix] or python
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


def _variable(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())


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
    variables = {}
    for key, value in hyperparameters.items():
        variables[f"EM_HP_{_variable(key)}"] = _text(value)
        variables[f"EM_HP_{key.upper()}"] = _text(value)
    return {**variables, "EM_HPS": json.dumps(dict(hyperparameters), sort_keys=True)}


def _dataset_variables(datasets: list[Dataset], place: Workplace) -> dict[str, str]:
    folders = {dataset.name: str(_dataset_folder(dataset, place)) for dataset in datasets}
    variables = {}
    for name, folder in folders.items():
        variables[f"EM_DATASET_{_variable(name)}"] = folder
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
    inherited = clean_environment()
    for name in ("MODELYARD_DATABASE_URL", "PYTHONSAFEPATH"):
        inherited.pop(name, None)
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


# The end


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
    """Whether the script left anything in EM_MODEL_DIR."""
    return place.model.is_dir() and any(place.model.iterdir())
