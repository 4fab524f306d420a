"""Request of a training, and its validation."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import (
    ConfigDict,
    Field,
)

from infra import site, storage
from infra.errors import BadInputError, DiskFullError
from infra.home import Home
from infra.parameter_models import ParameterModel
from infra.settings import Settings
from infra.texts import is_storable
from registry import names
from tasks import outputs, parameters, provided, resources
from tasks.logs import Logs
from tasks.parameters import FlowRequest, Minutes, Scalar, Text
from tasks.resources import Resources
from tuning.metrics import MetricPattern

MOST_HYPERPARAMETERS = 100
MOST_DATASETS = 10
LONGEST_DATASET_NAME = 200  # with the suffix of a partial transfer it is a valid file name
LONGEST_TEXT = 4000  # the longest path on Linux, and below MLflow's limit of a description
LONGEST_HYPERPARAMETERS = 100_000  # one environment variable, EM_HPS, holds 128 KiB

# Interpreters of entry points by suffix; None for the Python of the run's environment.
RUNNERS = {".py": None, ".sh": "bash"}

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_DATASET = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_DATASET_NAME}}}")


_STRICT = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Algorithm(ParameterModel):
    """Your own algorithm (uri and entry_point), or one that Modelyard provides (provided)."""

    model_config = _STRICT

    uri: Text = Field(
        default="", description="Required for your own algorithm. The directory with its files."
    )
    entry_point: Text = Field(
        default="",
        description="Required for your own algorithm. The script that starts the training, as a "
        "path in that directory. A requirements.txt beside it is installed for the run.",
    )
    provided: Text = Field(
        default="",
        description="A provided algorithm instead: see modelyard algorithm list.",
        json_schema_extra=lambda schema: schema.update(enum=["", *provided.names()]),
    )


class Dataset(ParameterModel):
    """A data set, whose folder the script finds in EM_DATASET_<NAME>."""

    model_config = _STRICT

    name: str = Field(description="Its name: letters, digits, '-' and '_'.")
    uri: str = Field(description="URI of a folder or a file.")


with warnings.catch_warnings():
    # Every class has a method of the name register, from abc; no instance has.
    warnings.filterwarnings("ignore", 'Field name "register"')

    class ModelRegistration(ParameterModel):
        """The registered model that gets what a run leaves as its next version."""

        model_config = _STRICT

        name: Text = Field(default="", description="Its name; created if missing.")
        register: Literal["always", "never"] = Field(
            default="always",
            description="never leaves the model among the run's artifacts; modelyard model create "
            "registers it later.",
        )


class Training(FlowRequest):
    """Request of a training."""

    name: Text = Field(
        default="",
        description="The run's name, unique in its experiment; given by Prefect if empty. The "
        "model has it too, unless model.name is given.",
    )
    description: Text = Field(default="", description="Free text.")
    experiment: Text = Field(
        default="Default",
        description="The MLflow experiment that the run belongs to; created if missing.",
    )
    template: Text = Field(
        default="",
        description="A training template, which completes the fields that are left out.",
    )
    algorithm: Algorithm = Field(
        default=Algorithm(),
        description="Required, here or in the template. The script to run: uri and entry_point, "
        "or provided.",
    )
    hyperparameters: dict[str, Scalar] = Field(
        default={}, description="Up to 100 values, which the script gets as --key value."
    )
    resources: Resources = Field(
        default=Resources(), description="The machines, processes and GPUs of the run."
    )
    datasets: list[Dataset] = Field(
        default=[],
        description="Up to 10 data sets, each found by the script in EM_DATASET_ and its name.",
    )
    checkpoint_input_uri: Text = Field(default="", description="URI of checkpoints to begin from.")
    checkpoint_uri: Text = Field(default="", description="URI for the script's own checkpoints.")
    output_uri: Text = Field(default="", description="URI for a copy of the model, beside MLflow.")
    overwrite: bool = Field(
        default=False, description="Allow files in output_uri that no run has published."
    )
    metrics: list[MetricPattern] = Field(
        default=[],
        description="Metrics to collect from the script's output. Scalars of TensorBoard logs are "
        "collected automatically.",
    )
    logs: Logs = Field(default=Logs(), description="Where the script's output goes.")
    max_minutes: Minutes = Field(
        default=None, description="Time limit in minutes; empty for none."
    )
    model: ModelRegistration = Field(
        default=ModelRegistration(),
        description="The registered model that gets the run's model as its next version: of the "
        "run's name if no other is given.",
    )

    def absolute(self) -> Self:
        """Resolve relative paths against the caller's working directory."""
        return self.model_copy(
            update={
                "algorithm": self.algorithm.model_copy(
                    update={"uri": storage.absolute(self.algorithm.uri)}
                ),
                "datasets": [
                    dataset.model_copy(update={"uri": storage.absolute(dataset.uri)})
                    for dataset in self.datasets
                ],
                "logs": self.logs.absolute(),
                **{
                    field: storage.absolute(getattr(self, field))
                    for field in ("checkpoint_input_uri", "checkpoint_uri", "output_uri")
                },
            }
        )


def resolved(training: Training) -> Training:
    """Resolve a provided algorithm to its files, hyperparameters and metrics.

    Raises:
        BadInputError: If the algorithm or one of its hyperparameters is unknown or invalid.
    """
    if not training.algorithm.provided:
        return training
    algorithm = provided.load(training.algorithm.provided)
    given = {metric.name for metric in training.metrics}
    declared = [metric for metric in algorithm.metric_patterns() if metric.name not in given]
    return training.model_copy(
        update={
            "algorithm": training.algorithm.model_copy(
                update={"uri": str(algorithm.path), "entry_point": algorithm.entry_point}
            ),
            "hyperparameters": algorithm.complete(training.hyperparameters),
            "metrics": [*training.metrics, *declared],
        }
    )


def check(training: Training, home: Home, settings: Settings) -> None:
    """Refuse a training that cannot work, before any resource is allocated.

    Raises:
        BadInputError: With a code of its own for each fault.
        DiskFullError: If the home's disk has less free space than the run or the settings need.
    """
    check_static(training)
    _check_provided(training)
    training = resolved(training)
    files: Collection[str] = ()
    # A provided algorithm is installed with Modelyard, so the machine that runs it has it.
    if not (site.is_validating_for_remote() and training.algorithm.provided):
        files = _check_algorithm(training.algorithm)
    resources.check(training.resources, training.algorithm.entry_point, home, settings)
    _check_torchrun(training, files)
    _check_datasets_exist(training.datasets)
    begin = training.checkpoint_input_uri
    if begin and site.inspect_store(begin, lambda there: there.exists()) is False:
        raise BadInputError(
            f"checkpoint_input_uri: {begin} does not exist.",
            "Check the URI.",
            code="CheckpointMissing",
        )
    for field, uri, sources in _destinations(training):
        outputs.check(field, uri, sources, home)
        site.inspect_store(uri, lambda there: there.check_writable())
    if not site.is_validating_for_remote():
        _check_room(home, settings)


def _destinations(training: Training) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Output URIs of the run: field, URI, and the inputs that it must not overlap.

    Output checkpoints may overlap the input checkpoints; a log is one file with a unique name.
    """
    inputs = [
        ("the algorithm", "" if training.algorithm.provided else training.algorithm.uri),
        *((f"the data set {one.name!r}", one.uri) for one in training.datasets),
    ]
    named = [(what, uri) for what, uri in inputs if uri]
    begin = training.checkpoint_input_uri
    checkpoints = [("the checkpoints to begin from", begin)] if begin else []
    fields = [
        ("output_uri", training.output_uri, [*named, *checkpoints]),
        ("checkpoint_uri", training.checkpoint_uri, named),
        ("logs.uri", training.logs.uri, []),
    ]
    return [one for one in fields if one[1]]


def check_static(training: Training) -> None:
    """Refuse a request that is invalid on every machine; also used for templates.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    _check_texts(training)
    names.check_run(training.name, training.experiment, training.description)
    if training.model.name:
        names.check(training.model.name, "model.name", "ModelNameInvalid")
    _check_hyperparameters(training.hyperparameters)
    _check_datasets(training.datasets)
    _check_metrics(training.metrics)
    parameters.check_minutes("max_minutes", training.max_minutes)
    algorithm = training.algorithm
    if algorithm.provided and (algorithm.uri or algorithm.entry_point):
        raise BadInputError(
            f"Two algorithms are given: {algorithm.provided} and your own.",
            "Give algorithm.provided, or algorithm.uri and algorithm.entry_point.",
            code="AlgorithmTwice",
        )


def _check_provided(training: Training) -> None:
    if not training.algorithm.provided:
        return
    algorithm = provided.load(training.algorithm.provided)
    algorithm.check_datasets([dataset.name for dataset in training.datasets])
    if not site.is_validating_for_remote():
        algorithm.check_packages()
    wanted = training.resources
    if wanted.processes > 1 and not (algorithm.distributed and wanted.torchrun):
        raise BadInputError(
            f"The algorithm {algorithm.name} supports several processes only with torchrun."
            if algorithm.distributed
            else f"The algorithm {algorithm.name} does not support several processes.",
            "Set resources.torchrun." if algorithm.distributed else "Request one node.",
            code="AlgorithmNotDistributed",
        )


def _check_texts(training: Training) -> None:
    for where, text in _texts(training.model_dump(), ""):
        if not is_storable(text) or len(text) > LONGEST_TEXT:
            raise BadInputError(
                f"{where} is longer than {LONGEST_TEXT} characters, or has characters that cannot "
                "be stored.",
                "Shorten it, or put it into a file of the algorithm.",
                code="TextInvalid",
            )


def _texts(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Yield every string in a tree of values with its path, keys included."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"a name in {where}", key
            yield from _texts(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{number}]")


def _check_torchrun(training: Training, files: Collection[str]) -> None:
    """Refuse torchrun where the script's environment is this one, without PyTorch.

    What requirements bring along is not known until they are installed.
    """
    requirements = PurePosixPath(training.algorithm.entry_point).with_name("requirements.txt")
    own = site.is_validating_for_remote() or str(requirements) in files
    if training.resources.torchrun and not own and importlib.util.find_spec("torch") is None:
        raise resources.torch_missing()


def _check_algorithm(algorithm: Algorithm) -> Collection[str]:
    """The files of the algorithm, none where only the run's machine can list them."""
    if not algorithm.uri or not algorithm.entry_point:
        raise BadInputError(
            "No algorithm is given.",
            "Give algorithm.uri, a directory, and algorithm.entry_point, a script in it; or "
            "algorithm.provided.",
            code="AlgorithmMissing",
        )
    if site.inspect_store(algorithm.uri, lambda there: there.is_directory()) is False:
        raise BadInputError(
            f"algorithm.uri: the directory {algorithm.uri} does not exist.",
            "Check the URI.",
            code="AlgorithmMissing",
        )
    entry = PurePosixPath(algorithm.entry_point)
    if entry.is_absolute() or ".." in entry.parts:
        raise BadInputError(
            f"The entry point {algorithm.entry_point!r} is outside the algorithm's directory.",
            "Give its path relative to algorithm.uri, without '..'.",
            code="EntryPointOutside",
        )
    found = site.inspect_store(
        algorithm.uri, lambda source: {one.name for one in source.entries()}
    )
    if found is not None and str(entry) not in found:
        raise BadInputError(
            f"The file {algorithm.entry_point!r} does not exist in {algorithm.uri}.",
            "Check algorithm.entry_point.",
            code="EntryPointMissing",
        )
    if entry.suffix not in RUNNERS:
        raise BadInputError(
            f"The entry point {algorithm.entry_point!r} is not a supported script.",
            f"It must end in {' or '.join(RUNNERS)}.",
            code="EntryPointUnknown",
        )
    return found or ()


def check_local(algorithm: Algorithm) -> None:
    """Refuse an algorithm in a folder of this machine that cannot work; asks no server.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    elsewhere = algorithm.uri and storage.local_path(algorithm.uri) is None
    if not algorithm.provided and not elsewhere:
        _check_algorithm(algorithm)


def _check_hyperparameters(hyperparameters: Mapping[str, Scalar]) -> None:
    if len(hyperparameters) > MOST_HYPERPARAMETERS:
        raise BadInputError(
            f"{len(hyperparameters)} hyperparameters are given; at most {MOST_HYPERPARAMETERS} "
            "are allowed.",
            "Put the rest into a file of the algorithm.",
            code="HyperparametersTooMany",
        )
    seen: dict[str, str] = {}
    for key, value in hyperparameters.items():
        if not _KEY.fullmatch(key) or len(key) > names.LONGEST:
            raise BadInputError(
                f"Invalid hyperparameter name {key[:60]!r}: it must be usable as an argument.",
                f"Use up to {names.LONGEST} letters, digits, '_', '-' and '.', and begin with a "
                "letter or '_'.",
                code="HyperparameterNameInvalid",
            )
        if seen.setdefault(key.upper(), key) != key:
            raise BadInputError(
                f"The hyperparameters {seen[key.upper()]!r} and {key!r} have the same variable "
                f"EM_HP_{key.upper()}.",
                "Rename one.",
                code="HyperparameterNameTwice",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInputError(
                f"The hyperparameter {key!r} is {value}, which JSON cannot represent.",
                "Give a finite number, or the word as a string.",
                code="HyperparameterValueInvalid",
            )
    if len(json.dumps(dict(hyperparameters))) > LONGEST_HYPERPARAMETERS:
        raise BadInputError(
            f"The hyperparameters together exceed {LONGEST_HYPERPARAMETERS} characters.",
            "Put the long ones into a file of the algorithm.",
            code="HyperparametersTooLong",
        )


def _check_datasets(datasets: list[Dataset]) -> None:
    if len(datasets) > MOST_DATASETS:
        raise BadInputError(
            f"{len(datasets)} data sets are given; at most {MOST_DATASETS} are allowed.",
            "Put some of them into one folder.",
            code="DatasetsTooMany",
        )
    seen: dict[str, str] = {}
    for dataset in datasets:
        if not _DATASET.fullmatch(dataset.name):
            raise BadInputError(
                f"Invalid data set name {dataset.name[:60]!r}: it must be usable as "
                "EM_DATASET_<NAME>.",
                f"Use up to {LONGEST_DATASET_NAME} letters, digits, '-' and '_'.",
                code="DatasetNameInvalid",
            )
        variable = variable_name(dataset.name)
        if variable in seen:
            raise BadInputError(
                f"The data sets {seen[variable]!r} and {dataset.name!r} have the same variable "
                f"EM_DATASET_{variable}.",
                "Rename one.",
                code="DatasetNameTwice",
            )
        seen[variable] = dataset.name


def _check_datasets_exist(datasets: list[Dataset]) -> None:
    for dataset in datasets:
        if site.inspect_store(dataset.uri, lambda there: there.exists()) is False:
            raise BadInputError(
                f"The data set {dataset.name!r} does not exist at {dataset.uri}.",
                "Check its uri.",
                code="DatasetMissing",
            )


def _check_metrics(metrics: list[MetricPattern]) -> None:
    names = set()
    for metric in metrics:
        metric.expression()
        if not re.fullmatch(r"[\w.:/ -]{1,250}", metric.name):
            raise BadInputError(
                f"Invalid metric name {metric.name[:60]!r}.",
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
    free = home.free_bytes() // 2**20
    if free < settings.min_free_mib:
        raise DiskFullError(
            f"The disk of {home.root} has {free} MiB free, and a run needs "
            f"{settings.min_free_mib} MiB.",
            "Free space, or set MODELYARD_MIN_FREE_MIB.",
        )


def variable_name(name: str) -> str:
    """Convert ``name`` to a part of an environment variable's name that a shell can read."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
