"""The data set: files become a table of features and a target, or one sentence why not."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from settings import Settings, TrainingError, names
from sklearn.model_selection import train_test_split

_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_FEWEST_ROWS = 10
_MOST_CLASSES_OF_NUMBERS = 20

_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}

CLASSIFICATION, REGRESSION = "classification", "regression"


@dataclass(frozen=True)
class Table:
    """What is learned from.

    Attributes:
        features: One column for each feature: float64, or texts and numbers that are categories.
        target: One value for each row.
        task: ``classification`` or ``regression``.
        categories: Which features are categories.
    """

    features: pd.DataFrame
    target: np.ndarray
    task: str
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)

    def rows(self, chosen: np.ndarray) -> Table:
        """Those rows of it."""
        features = self.features.iloc[chosen].reset_index(drop=True)
        return Table(features, self.target[chosen], self.task, self.categories)

    def sample(self, most: int, seed: int) -> Table:
        """All of it, or ``most`` rows at random."""
        if len(self) <= most:
            return self
        return self.rows(np.random.default_rng(seed).choice(len(self), most, replace=False))


def load(train: Path, validation: Path | None, settings: Settings) -> tuple[Table, Table]:
    """The training and the validation table.

    Raises:
        TrainingError: If they cannot be learned from.
    """
    table = _table(_read(train, "train", settings), settings)
    _check_target(table, settings)
    if validation is None:
        return _divided(table, settings)
    held = _validation(_read(validation, "validation", settings), table, settings)
    return table, held


def _read(folder: Path, name: str, settings: Settings) -> pd.DataFrame:
    """All files of a data set below each other, without the rows that have no target."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name.lower().endswith(_SUFFIXES)
        and not path.name.startswith(".")
    ]
    if not files:
        raise TrainingError(f"The data set {name!r} has no file that ends in .csv or .parquet.")
    frames = [_read_file(path, settings) for path in files]
    for path, frame in zip(files, frames, strict=True):
        differing = set(frame.columns) ^ set(frames[0].columns)
        if differing:
            raise TrainingError(
                f"The files {files[0].name} and {path.name} of the data set {name!r} have "
                f"different columns: {min(map(str, differing))!r} is in one of them only."
            )
    found = pd.concat(frames, ignore_index=True)
    if settings.target not in found.columns:
        raise TrainingError(
            f"The data set {name!r} has no column {settings.target!r} to predict. Its columns "
            f"are {', '.join(map(str, found.columns[:20]))}."
        )
    known = found[settings.target].notna()
    if not known.all():
        print(f"{(~known).sum()} rows without {settings.target} are left out", flush=True)
    found = found[known].reset_index(drop=True)
    if found.empty:
        raise TrainingError(f"The data set {name!r} has no row with a {settings.target!r}.")
    return found


def _read_file(path: Path, settings: Settings) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        separator = _SEPARATORS[settings.delimiter]
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        if header.isna().sum() > 1:
            raise TrainingError(f"The file {path.name} has several columns without a name.")
        twice = header[header.duplicated()]
        if len(twice):
            raise TrainingError(f"The file {path.name} has the column {twice.iloc[0]!r} twice.")
        with warnings.catch_warnings():
            # Rows with more fields than the header: else their first would be taken for an index.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, sep=separator, low_memory=False, index_col=False)
    except pd.errors.ParserWarning:
        raise TrainingError(
            f"The file {path.name} has rows with more fields than its header."
        ) from None
    except pd.errors.EmptyDataError:
        raise TrainingError(f"The file {path.name} is empty.") from None
    except ValueError as error:  # what is no CSV, no UTF-8 or no Parquet
        why = " ".join(str(error).split()).rstrip(".")
        raise TrainingError(f"The file {path.name} cannot be read: {why}.") from error


def _table(frame: pd.DataFrame, settings: Settings) -> Table:
    ignored, forced = names(settings.ignored_columns), names(settings.categorical_columns)
    for name in (*ignored, *forced):
        if name not in frame.columns:
            raise TrainingError(f"There is no column {name!r} to ignore or take for categories.")
    features = frame.drop(columns=[settings.target, *ignored])
    if features.columns.empty:
        raise TrainingError(f"There is no column beside {settings.target!r} to learn from.")
    features = pd.DataFrame({name: _feature(features[name]) for name in features.columns})
    categories = tuple(
        name for name in features.columns if name in forced or features[name].dtype == object
    )
    return Table(features, *_target(frame[settings.target], settings), categories)


def _feature(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as float64, or as texts.

    Raises:
        TrainingError: If it is neither, or has no value at all.
    """
    if column.isna().all():
        raise TrainingError(
            f"The column {column.name!r} has no value in any row. Fill it, or name it in "
            "ignored_columns."
        )
    if types.is_numeric_dtype(column):
        return column.astype("float64")
    kinds = {type(value) for value in column.dropna().unique()}
    if kinds <= {bool} or kinds <= {int, float}:  # integers of any size, too
        return column.astype("object").astype("float64")
    if kinds != {str}:
        found = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise TrainingError(
            f"The column {column.name!r} holds values of the types {found}, where only numbers "
            "or only strings are allowed. Convert it, or name it in ignored_columns."
        )
    return column.astype("object").where(column.notna(), np.nan)


def _target(column: pd.Series[Any], settings: Settings) -> tuple[np.ndarray, str]:
    """The target's values and the task."""
    numeric = types.is_numeric_dtype(column) and not types.is_bool_dtype(column)
    whole = numeric and bool((column % 1 == 0).all())
    task = settings.task
    if task == "auto":
        few = whole and column.nunique() <= _MOST_CLASSES_OF_NUMBERS
        task = CLASSIFICATION if few or not numeric else REGRESSION
    if task == REGRESSION:
        if not numeric:
            raise TrainingError(
                f"The column {settings.target!r} holds no numbers, which a regression needs."
            )
        return column.to_numpy("float64"), task
    if numeric:
        return column.to_numpy("int64" if whole else "float64"), task
    if types.is_bool_dtype(column):
        return column.to_numpy(bool), task
    return column.map(str).to_numpy(object), task


def _check_target(table: Table, settings: Settings) -> None:
    if len(table) < _FEWEST_ROWS:
        raise TrainingError(
            f"The data set 'train' has {len(table)} rows, and needs {_FEWEST_ROWS} at least."
        )
    if table.task == CLASSIFICATION:
        classes, counts = np.unique(table.target, return_counts=True)
        if len(classes) < 2:
            raise TrainingError(
                f"The column {settings.target!r} has one class only: {classes[0]!s}."
            )
        if counts.min() < 2:
            raise TrainingError(
                f"The class {classes[counts.argmin()]!s} of {settings.target!r} has one row only, "
                "and needs two. If the column holds a quantity, set task to regression."
            )
    elif not np.isfinite(table.target).all():
        raise TrainingError(f"The column {settings.target!r} holds an infinite value.")
    elif settings.loss == "poisson" and (table.target.min() < 0 or table.target.sum() == 0):
        raise TrainingError(
            f"The loss poisson needs counts, and {settings.target!r} has values below 0 or no "
            "other than 0."
        )


def _divided(table: Table, settings: Settings) -> tuple[Table, Table]:
    """``table`` in two, with every class in both."""
    by_class = table.target if table.task == CLASSIFICATION else None
    classes = 2 if by_class is None else len(np.unique(by_class))
    held_back = max(classes, round(settings.validation_fraction * len(table)))
    if len(table) - held_back < classes:
        raise TrainingError(
            f"The {len(table)} rows of the data set 'train' are too few to hold some of each of "
            f"the {classes} classes back. Give a data set 'validation'."
        )
    train, validation = train_test_split(
        np.arange(len(table)), test_size=held_back, random_state=settings.seed, stratify=by_class
    )
    return table.rows(np.sort(train)), table.rows(np.sort(validation))


def _validation(frame: pd.DataFrame, train: Table, settings: Settings) -> Table:
    """The table of the validation set, which must be like the training set's."""
    missing = [name for name in train.features.columns if name not in frame.columns]
    if missing:
        raise TrainingError(f"The data set 'validation' has no column {missing[0]!r}.")
    features = pd.DataFrame(
        {name: _alike(frame[name], train.features) for name in train.features.columns}
    )
    target, _ = _target(frame[settings.target], settings)
    if train.task == CLASSIFICATION:
        unknown = set(target.tolist()) - set(train.target.tolist())
        if unknown:
            raise TrainingError(
                f"The data set 'validation' has a class that 'train' has not: "
                f"{min(map(str, unknown))}."
            )
    return Table(features, target.astype(train.target.dtype), train.task, train.categories)


def _alike(column: pd.Series[Any], features: pd.DataFrame) -> pd.Series[Any]:
    dtype = features[column.name].dtype
    if column.isna().all():
        return pd.Series(np.nan, column.index, dtype)
    found = _feature(column)
    if found.dtype != dtype:
        raise TrainingError(
            f"The column {column.name!r} has strings in one of the data sets and numbers in "
            "the other."
        )
    return found
