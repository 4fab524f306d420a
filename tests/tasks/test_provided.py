from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.errors import BadInputError
from tasks import provided
from tasks.provided import Hyperparameter, ProvidedAlgorithm, Scalar
from tasks.training import training_request
from tasks.training.training_request import Algorithm, Training

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "provided-algorithms.md"


@pytest.fixture(params=provided.names())
def algorithm(request: pytest.FixtureRequest) -> ProvidedAlgorithm:
    return provided.load(request.param)


@pytest.fixture
def made(tmp_path: Path) -> ProvidedAlgorithm:
    """An algorithm with a hyperparameter of each type."""
    (tmp_path / "train.py").touch()
    hyperparameters: list[dict[str, Any]] = [
        {"name": "epochs", "type": "int", "default": 5, "min": 1, "max": 100},
        {"name": "rate", "type": "double", "default": 1, "min": 0, "min_excluded": True, "max": 1},
        {
            "name": "share",
            "type": "double",
            "default": 0,
            "min": 0,
            "max": 1,
            "max_excluded": True,
        },
        {"name": "kind", "type": "categorical", "default": 3, "values": [1, 3, "all"]},
        {"name": "quick", "type": "bool", "default": False},
        {"name": "label", "type": "string"},
    ]  # fmt: skip
    return ProvidedAlgorithm.model_validate(
        {
            "name": "made", "path": tmp_path, "title": "Made", "description": "Made.",
            "framework": "pytorch", "framework_package": "pytest", "needs": ["json"],
            "distributed": False, "entry_point": "train.py", "metrics": [],
            "datasets": [
                {"name": "train", "required": True, "description": "Rows."},
                {"name": "more", "required": False, "description": "More rows."},
            ],
            "hyperparameters": [{**one, "description": "It."} for one in hyperparameters],
        }
    )  # fmt: skip


class TestDeclarations:
    def test_there_are_two(self) -> None:
        assert provided.names() == ["gradient-boosting", "image-classifier"]

    def test_an_unknown_one_is_told_which_there_are(self) -> None:
        with pytest.raises(BadInputError) as raised:
            provided.load("../algorithms/image-classifier")

        assert raised.value.code == "AlgorithmUnknown"
        assert "gradient-boosting, image-classifier" in raised.value.hint

    def test_it_is_a_directory_under_the_training_contract(
        self, algorithm: ProvidedAlgorithm
    ) -> None:
        training = Training(algorithm=Algorithm(provided=algorithm.name))
        given = {one.name: "x" for one in algorithm.hyperparameters if one.default is None}

        found = training_request.resolved(training.model_copy(update={"hyperparameters": given}))

        assert Path(found.algorithm.uri, found.algorithm.entry_point).is_file()
        training_request.check_static(found.model_copy(update={"algorithm": Algorithm()}))
        assert [metric.name for metric in found.metrics] == [one.name for one in algorithm.metrics]

    def test_its_metrics_can_be_found(self, algorithm: ProvidedAlgorithm) -> None:
        assert algorithm.metrics
        for pattern in algorithm.metric_patterns():
            pattern.expression()

    def test_nothing_beside_it_is_imported(self, algorithm: ProvidedAlgorithm) -> None:
        """It is copied alone to where it runs."""
        for script in algorithm.path.glob("*.py"):
            words = script.read_text()
            for package in ("infra", "tasks", "tuning", "registry", "flows"):
                assert f"import {package}" not in words
                assert f"from {package}" not in words

    def test_its_framework_has_a_version(self, algorithm: ProvidedAlgorithm) -> None:
        if not algorithm.missing_packages():
            version = importlib.metadata.version(algorithm.framework_package)
            assert algorithm.framework_version() == version

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"default": 0}, "the default 0 is not a whole number from 1 to 9"),
            ({"default": "5"}, "the default '5' is not"),
            ({"default": 1.5}, "the default 1.5 is not"),
            ({"default": True}, "the default True is not"),
            ({"min": 9, "max": 9}, "the range is empty"),
            ({"values": [5]}, "values belong to a categorical"),
            ({"type": "categorical"}, "a categorical has no range"),
            ({"type": "string", "default": "a"}, "a string has no range"),
            ({"type": "categorical", "min": None, "max": None}, "values belong to a categorical"),
            ({"min": -1, "log": True}, "log needs a min of at least 0"),
            ({"min": None, "log": True}, "log needs a min of at least 0"),
            ({"name": "a b"}, "pattern"),
            ({"step": 1}, "Extra inputs"),
        ],
    )
    def test_a_hyperparameter_that_contradicts_itself_is_refused(
        self, changes: dict[str, Any], why: str
    ) -> None:
        right = {
            "name": "n", "type": "int", "default": 5, "min": 1, "max": 9, "description": "It."
        }  # fmt: skip
        Hyperparameter.model_validate(right)

        with pytest.raises(ValidationError, match=why):
            Hyperparameter.model_validate({**right, **changes})

    def test_a_number_that_stays_as_it_was_written_is_one(self, made: ProvidedAlgorithm) -> None:
        assert made.complete({"label": "y", "rate": "0.10"})["rate"] == pytest.approx(0.1)
        for text in ("often", "nan", "1e999", "", " 1"):
            with pytest.raises(BadInputError):
                made.complete({"label": "y", "rate": text})

    @pytest.mark.parametrize("declared", ["datasets", "hyperparameters"])
    def test_a_name_is_declared_once(self, made: ProvidedAlgorithm, declared: str) -> None:
        twice = made.model_dump()
        twice[declared] = [*twice[declared], twice[declared][0]]

        with pytest.raises(ValidationError, match="declares a name twice"):
            ProvidedAlgorithm.model_validate(twice)

    def test_its_entry_point_is_there(self, made: ProvidedAlgorithm) -> None:
        with pytest.raises(ValidationError, match=r"has no other\.py"):
            ProvidedAlgorithm.model_validate({**made.model_dump(), "entry_point": "other.py"})


class TestComplete:
    def test_what_is_left_out_has_its_default(self, made: ProvidedAlgorithm) -> None:
        found = made.complete({"label": "y", "epochs": 7.0, "share": 0})

        assert json.dumps(found) == json.dumps(
            {"epochs": 7, "rate": 1.0, "share": 0.0, "kind": 3, "quick": False, "label": "y"}
        )

    @pytest.mark.parametrize(
        "value", [{"epochs": 1}, {"epochs": 100}, {"rate": 1}, {"share": 0.0}, {"kind": "all"}]
    )
    def test_the_ends_of_a_range_are_in_it(
        self, made: ProvidedAlgorithm, value: dict[str, Scalar]
    ) -> None:
        assert made.complete({"label": "", **value}).items() >= value.items()

    @pytest.mark.parametrize(
        ("name", "value", "code", "allowed"),
        [
            ("epochs", 0, "HyperparameterOutOfRange", "a whole number from 1 to 100"),
            ("epochs", 101, "HyperparameterOutOfRange", "a whole number from 1 to 100"),
            ("epochs", 1.5, "HyperparameterTypeWrong", "a whole number from 1 to 100"),
            ("epochs", True, "HyperparameterTypeWrong", "a whole number from 1 to 100"),
            ("epochs", "5", "HyperparameterTypeWrong", "a whole number from 1 to 100"),
            ("rate", 0, "HyperparameterOutOfRange", "a number above 0, at most 1"),
            ("rate", float("nan"), "HyperparameterTypeWrong", "a number above 0, at most 1"),
            ("rate", float("inf"), "HyperparameterTypeWrong", "a number above 0, at most 1"),
            ("rate", "fast", "HyperparameterTypeWrong", "a number above 0, at most 1"),
            ("share", 1, "HyperparameterOutOfRange", "a number at least 0, below 1"),
            ("kind", 2, "HyperparameterOutOfRange", "one of 1, 3, all"),
            ("kind", True, "HyperparameterOutOfRange", "one of 1, 3, all"),
            ("quick", 1, "HyperparameterTypeWrong", "true or false"),
            ("quick", "true", "HyperparameterTypeWrong", "true or false"),
            ("label", 5, "HyperparameterTypeWrong", "a string"),
        ],
    )
    def test_what_it_does_not_take_is_refused(
        self, made: ProvidedAlgorithm, name: str, value: Scalar, code: str, allowed: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            made.complete({"label": "y", name: value})

        assert raised.value.code == code
        assert raised.value.message == (
            f"The hyperparameter {name!r} of made is {value!r}, and must be {allowed}."
        )

    def test_one_that_it_has_not_is_refused(self, made: ProvidedAlgorithm) -> None:
        with pytest.raises(BadInputError, match="has no hyperparameter 'epoch'") as raised:
            made.complete({"label": "y", "epoch": 1})

        assert raised.value.code == "HyperparameterUnknown"
        assert "epochs, rate, share, kind, quick, label" in raised.value.hint

    def test_one_without_a_default_must_be_given(self, made: ProvidedAlgorithm) -> None:
        with pytest.raises(BadInputError, match="requires the hyperparameter 'label'") as raised:
            made.complete({})

        assert raised.value.code == "HyperparameterMissing"

    @given(
        st.dictionaries(
            st.sampled_from(["iterations", "learning_rate", "task", "target"]),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        )
    )
    def test_what_is_completed_is_complete(self, values: dict[str, Any]) -> None:  # fmt: skip
        algorithm = provided.load("gradient-boosting")
        values = {name: value for name, value in values.items() if value is not None}
        try:
            found = algorithm.complete(values)
        except BadInputError:
            return

        assert algorithm.complete(found) == found
        assert list(found) == [one.name for one in algorithm.hyperparameters]
        assert {name: found[name] for name in values} == values
        json.dumps(found, allow_nan=False)


class TestChecks:
    def test_data_sets_that_fit(self, made: ProvidedAlgorithm) -> None:
        made.check_datasets(["train"])
        made.check_datasets(["more", "train"])

    @pytest.mark.parametrize(
        ("given", "code", "hint"),
        [
            ([], "DatasetNotGiven", "Give its uri. Rows."),
            (["more"], "DatasetNotGiven", "Give its uri. Rows."),
            (["train", "test"], "DatasetUnknown", "It has train, more."),
        ],
    )
    def test_data_sets_that_do_not(
        self, made: ProvidedAlgorithm, given: list[str], code: str, hint: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            made.check_datasets(given)

        assert (raised.value.code, raised.value.hint) == (code, hint)

    @pytest.mark.parametrize(
        ("package", "hint"),
        [("torch", "`make torch` installs PyTorch."), ("no_such_package", "Install it into")],
    )
    def test_a_missing_package_is_named(
        self, made: ProvidedAlgorithm, package: str, hint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made.check_packages()
        monkeypatch.setattr(
            provided.importlib.util,
            "find_spec",
            lambda module: None if module == package else module,
        )
        without = made.model_copy(update={"needs": ("json", package)})

        assert without.missing_packages() == [package]
        with pytest.raises(
            BadInputError, match=f"requires the Python package '{package}'"
        ) as raised:
            without.check_packages()
        assert raised.value.code == "PackageMissing"
        assert raised.value.hint.startswith(hint)

    def test_a_framework_that_is_missing_is_named(self, made: ProvidedAlgorithm) -> None:
        without = made.model_copy(update={"framework_package": "no-such-package"})

        with pytest.raises(BadInputError) as raised:
            without.framework_version()
        assert raised.value.code == "PackageMissing"


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    lines = [head, tuple("---" for _ in head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tables(algorithm: ProvidedAlgorithm) -> list[str]:
    """What the page says of an algorithm, from its declaration."""
    needed = {True: "yes", False: "no"}
    return [
        _table(
            ("data set", "required", "holds"),
            *((f"`{one.name}`", needed[one.required], one.description)
              for one in algorithm.datasets),
        ),
        _table(
            ("hyperparameter", "default", "takes", "does"),
            *((f"`{one.name}`",
               "required" if one.default is None else f"`{one.default_text}`",
               one.allowed, one.description)
              for one in algorithm.hyperparameters),
        ),
        _table(
            ("metric", "better", "is"),
            *((f"`{one.name}`", {"minimize": "lower", "maximize": "higher"}[one.direction],
               one.description)
              for one in algorithm.metrics),
        ),
    ]  # fmt: skip


def test_the_page_says_what_is_declared(algorithm: ProvidedAlgorithm) -> None:
    page = PAGE.read_text()

    for table in _tables(algorithm):
        assert table in page, f"{PAGE.name} should have this table:\n\n{table}\n"


def test_the_example_is_what_it_takes(algorithm: ProvidedAlgorithm) -> None:
    asked = yaml.safe_load((ROOT / "examples" / algorithm.name / "train.yaml").read_text())
    training = Training(**asked)

    assert training.algorithm.provided == algorithm.name
    algorithm.complete(training.hyperparameters)
    algorithm.check_datasets([dataset.name for dataset in training.datasets])
