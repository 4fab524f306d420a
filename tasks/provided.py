"""Provided algorithms: their data sets, hyperparameters, metrics and requirements.

Each is a directory below ``tasks/algorithms`` that follows the ordinary training contract, with
its declaration in ``algorithm.yaml``. This module reads the declaration to refuse invalid
requests; the script reads it as well, so that each default is written once.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    model_validator,
)

from infra.errors import BadInputError
from tasks.parameters import Scalar
from tuning.metrics import MetricPattern

_ALGORITHMS = Path(__file__).parent / "algorithms"
_DECLARATION = "algorithm.yaml"

Number = StrictInt | StrictFloat
HyperparameterType = Literal["int", "double", "categorical", "bool", "string"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

# Hints for installing packages that are not among Modelyard's own requirements.
_INSTALL = {"torch": "`make torch` installs PyTorch."}


_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?")


class _Declaration(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _whole(value: Scalar) -> Scalar | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _double(value: Scalar) -> Scalar | None:
    if isinstance(value, str):  # such as "0.10", which keeps its digits
        value = float(value) if _DECIMAL.fullmatch(value) else math.nan
    if isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


# type: (its description, a function that coerces a value, None if it has another type)
_TYPES: dict[HyperparameterType, tuple[str, Callable[[Scalar], Scalar | None]]] = {
    "int": ("a whole number", _whole),
    "double": ("a number", _double),
    "bool": ("true or false", lambda value: value if isinstance(value, bool) else None),
    "string": ("a string", lambda value: value if isinstance(value, str) else None),
    "categorical": ("one of", lambda value: value),
}


class Hyperparameter(_Declaration):
    """A hyperparameter, and the values that it accepts.

    Attributes:
        default: Value if none is given; None if it is required.
        min, max: Range of an int or a double, inclusive unless ``min_excluded``,
            ``max_excluded``.
        values: Choices of a categorical.
        log: Whether a search should sample it on a logarithmic scale.
    """

    name: Name
    type: HyperparameterType
    default: Scalar | None = None
    min: Number | None = None
    max: Number | None = None
    min_excluded: bool = False
    max_excluded: bool = False
    values: tuple[Scalar, ...] = ()
    log: bool = False
    description: str

    @model_validator(mode="after")
    def _consistent(self) -> Hyperparameter:
        bounds = (self.min, self.max)
        if bounds != (None, None) and self.type not in {"int", "double"}:
            raise ValueError(f"{self.name}: a {self.type} has no range")
        if bool(self.values) != (self.type == "categorical"):
            raise ValueError(f"{self.name}: values belong to a categorical, and to each one")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"{self.name}: the range is empty")
        if self.log and not (self.min is not None and self.min >= 0):
            raise ValueError(f"{self.name}: log needs a min of at least 0")
        if self.default is not None and self._coerced(self.default) is None:
            raise ValueError(f"{self.name}: the default {self.default!r} is not {self.allowed}")
        return self

    @property
    def allowed(self) -> str:
        """Type and range in words, such as ``a number above 0, at most 1``."""
        kind, _ = _TYPES[self.type]
        if self.values:
            return f"{kind} {', '.join(map(str, self.values))}"
        if None not in (self.min, self.max) and not (self.min_excluded or self.max_excluded):
            return f"{kind} from {self.min} to {self.max}"
        ends = (
            (self.min, "above" if self.min_excluded else "at least"),
            (self.max, "below" if self.max_excluded else "at most"),
        )
        limits = ", ".join(f"{word} {bound}" for bound, word in ends if bound is not None)
        return f"{kind} {limits}".rstrip()

    @property
    def default_text(self) -> str:
        """The default as JSON, or ``required``."""
        return "required" if self.default is None else json.dumps(self.default)

    def coerce(self, value: Scalar, algorithm: str) -> Scalar:
        """Convert ``value`` to the hyperparameter's type.

        Args:
            value: The value.
            algorithm: Name of the algorithm, for the error.

        Raises:
            BadInputError: If the value has another type, or is out of range.
        """
        _, converted = _TYPES[self.type]
        matched = self._coerced(value)
        if matched is not None:
            return matched
        of_type = converted(value) is not None
        raise BadInputError(
            f"The hyperparameter {self.name!r} of {algorithm} is {value!r}, and must be "
            f"{self.allowed}.",
            "Change the value." if of_type else f"Give {_TYPES[self.type][0]}.",
            code="HyperparameterOutOfRange" if of_type else "HyperparameterTypeWrong",
        )

    def _coerced(self, value: Scalar) -> Scalar | None:
        _, converted = _TYPES[self.type]
        found = converted(value)
        if self.type == "categorical":
            # To Python, True is 1.
            alike = (
                one for one in self.values if isinstance(one, bool) == isinstance(value, bool)
            )
            return next((one for one in alike if one == value), None)
        if found is None or isinstance(found, bool | str):
            return found
        low, high = self.min, self.max
        enough = low is None or (found > low if self.min_excluded else found >= low)
        few = high is None or (found < high if self.max_excluded else found <= high)
        return found if enough and few else None


class ProvidedMetric(_Declaration):
    """A metric that the script prints.

    Attributes:
        direction: Direction in which it improves.
        pattern: Regular expression that finds it in the log; None for NAME=VALUE.
    """

    name: str
    direction: Literal["minimize", "maximize"]
    pattern: str | None = None
    description: str


class DatasetSlot(_Declaration):
    """A data set that the script reads.

    Attributes:
        required: Whether the script cannot train without it.
        description: Its required content and layout.
    """

    name: Name
    required: bool
    description: str


class ProvidedAlgorithm(_Declaration):
    """An algorithm that Modelyard provides.

    Attributes:
        name: Its name in ``algorithm: {provided: NAME}``, and that of its directory.
        path: The directory.
        framework: Key of the framework that serves its model.
        framework_package: Python package whose version is the framework's.
        needs: Modules that must be importable.
        distributed: Whether several processes (nodes, torchrun) can train one model together.
        entry_point: Script in the directory that starts the training.
    """

    name: str
    path: Path
    title: str
    description: str
    framework: Literal["pytorch", "scikit-learn"]
    framework_package: str
    needs: tuple[str, ...]
    distributed: bool
    entry_point: str
    datasets: tuple[DatasetSlot, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    metrics: tuple[ProvidedMetric, ...]

    @model_validator(mode="after")
    def _consistent(self) -> ProvidedAlgorithm:
        for declared in (self.datasets, self.hyperparameters, self.metrics):
            found = [one.name for one in declared]
            if len(set(found)) < len(found):
                raise ValueError(f"{self.name} declares a name twice: {found}")
        if not (self.path / self.entry_point).is_file():
            raise ValueError(f"{self.name} has no {self.entry_point}")
        return self

    def metric_patterns(self) -> list[MetricPattern]:
        """Patterns that find its metrics in its log."""
        return [MetricPattern(name=one.name, pattern=one.pattern) for one in self.metrics]

    def framework_version(self) -> str:
        """Installed version of its framework.

        Raises:
            BadInputError: If the framework is not installed.
        """
        try:
            return importlib.metadata.version(self.framework_package)
        except importlib.metadata.PackageNotFoundError:
            raise self._missing(self.framework_package) from None

    def complete(self, hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Validate the given hyperparameters, and add the defaults of the others.

        Raises:
            BadInputError: If one is unknown, missing, of another type or out of range.
        """
        declared = {one.name: one for one in self.hyperparameters}
        for name in hyperparameters:
            if name not in declared:
                raise BadInputError(
                    f"The algorithm {self.name} has no hyperparameter {name!r}.",
                    f"It has {', '.join(declared)}.",
                    code="HyperparameterUnknown",
                )
        found: dict[str, Scalar] = {}
        for name, one in declared.items():
            if name in hyperparameters:
                found[name] = one.coerce(hyperparameters[name], self.name)
            elif one.default is not None:
                found[name] = one.coerce(one.default, self.name)
            else:
                raise BadInputError(
                    f"The algorithm {self.name} requires the hyperparameter {name!r}.",
                    f"Give {one.allowed}: {one.description}",
                    code="HyperparameterMissing",
                )
        return found

    def check_datasets(self, names: Collection[str]) -> None:
        """Refuse data sets that do not match the declaration.

        Raises:
            BadInputError: If a required one is missing, or one is unknown.
        """
        slots = {one.name: one for one in self.datasets}
        for name in names:
            if name not in slots:
                raise BadInputError(
                    f"The algorithm {self.name} has no data set {name!r}.",
                    f"It has {', '.join(slots)}.",
                    code="DatasetUnknown",
                )
        for name, slot in slots.items():
            if slot.required and name not in names:
                raise BadInputError(
                    f"The algorithm {self.name} requires the data set {name!r}.",
                    f"Give its uri. {slot.description}",
                    code="DatasetNotGiven",
                )

    def missing_packages(self) -> list[str]:
        """List the required modules that cannot be imported."""
        return [module for module in self.needs if importlib.util.find_spec(module) is None]

    def check_packages(self) -> None:
        """Refuse to run without a module that the script imports.

        Raises:
            BadInputError: With the code ``PackageMissing``.
        """
        for module in self.missing_packages():
            raise self._missing(module)

    def _missing(self, package: str) -> BadInputError:
        return BadInputError(
            f"The algorithm {self.name} requires the Python package {package!r}, which is not "
            "installed.",
            _INSTALL.get(package, "Install it into Modelyard's environment."),
            code="PackageMissing",
        )


def names() -> list[str]:
    """List the names of the provided algorithms."""
    return sorted(path.parent.name for path in _ALGORITHMS.glob(f"*/{_DECLARATION}"))


@functools.cache
def load(name: str) -> ProvidedAlgorithm:
    """Load the algorithm ``name``.

    Raises:
        BadInputError: With the code ``AlgorithmUnknown``.
    """
    if name not in names():
        raise BadInputError(
            f"Modelyard provides no algorithm {name!r}.",
            f"It provides {', '.join(names())}.",
            code="AlgorithmUnknown",
        )
    folder = _ALGORITHMS / name
    declared = yaml.safe_load((folder / _DECLARATION).read_text())
    return ProvidedAlgorithm(name=name, path=folder, **declared)
