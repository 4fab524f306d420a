from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra import site
from infra.errors import BadInputError, DiskFullError
from infra.home import Home
from infra.settings import Settings
from tasks.training import training_request
from tasks.training.training_request import Algorithm, Training
from tasks.training.training_steps import PreparedScript

Change = dict[str, Any]


def _algorithm(**changes: str) -> Change:
    return {"algorithm": {"uri": "TMP/algorithm", "entry_point": "train.py", **changes}}


def _datasets(*names: str) -> Change:
    return {"datasets": [{"name": name, "uri": "TMP/data"} for name in names]}


class TestCheck:
    @pytest.mark.parametrize(
        "change",
        [
            {},
            {"name": "", "description": "", "checkpoint_uri": "", "output_uri": ""},
            {"name": None, "description": None, "checkpoint_uri": None, "output_uri": None},
            {"name": "n" * 250},
            {"name": "이름 [1] - ok"},
            {"experiment": "e" * 250},
            _algorithm(entry_point="deep/train.py"),
            _algorithm(entry_point="train.sh"),
            _algorithm(uri="file://TMP/algorithm"),
            {"hyperparameters": {f"k{i}": i for i in range(100)}},
            {
                "hyperparameters": {
                    "a": 1,
                    "_b": 0.5,
                    "c-d": "x y",
                    "e.f": True,
                    "G": "",
                    "h2": "-1",
                }
            },
            _datasets(*(f"d{i}" for i in range(10))),
            {"datasets": [{"name": "one-file_1", "uri": "TMP/data.csv"}]},
            {"checkpoint_input_uri": "TMP/data"},
            {"checkpoint_uri": "TMP/new/one", "output_uri": "TMP/data"},
            {"metrics": [{"name": "val/loss"}, {"name": "f1: macro", "pattern": "f1=(.*)"}]},
            {"max_minutes": 0.1},
            {"model": {"name": "이름 [1] - ok"}},
            {"model": {"register": "never"}},
            {"model": {"name": None}},
        ],
        ids=str,
    )
    def test_what_can_work_is_accepted(
        self, given: Callable[..., Training], home: Home, settings: Settings, change: Change
    ) -> None:
        training_request.check(given(**change), home, settings)

    @pytest.mark.parametrize(
        ("code", "change"),
        [
            ("NameInvalid", {"name": "  "}),
            ("NameInvalid", {"name": "n" * 251}),
            ("NameInvalid", {"name": "a/b"}),
            ("NameInvalid", {"name": "a:b"}),
            ("NameInvalid", {"name": "a\nb"}),
            ("TextInvalid", {"name": "a\x00b"}),
            ("ModelNameInvalid", {"model": {"name": " "}}),
            ("ModelNameInvalid", {"model": {"name": "a/b"}}),
            ("ModelNameInvalid", {"model": {"name": "..a"}}),
            ("ModelNameInvalid", {"model": {"name": "n" * 251}}),
            ("ExperimentInvalid", {"experiment": ""}),
            ("ExperimentInvalid", {"experiment": " "}),
            ("ExperimentInvalid", {"experiment": "e" * 251}),
            ("AlgorithmMissing", {"algorithm": {}}),
            ("AlgorithmMissing", _algorithm(uri="")),
            ("AlgorithmMissing", _algorithm(entry_point="")),
            ("AlgorithmMissing", _algorithm(uri="TMP/nowhere")),
            ("AlgorithmMissing", _algorithm(uri="TMP/data.csv")),
            ("PathClimbs", _algorithm(uri="TMP/data/../algorithm")),
            ("UnknownScheme", _algorithm(uri="gopher://host/algorithm")),
            ("NotAbsolute", _algorithm(uri="algorithm")),
            ("EntryPointOutside", _algorithm(entry_point="../data.csv")),
            ("EntryPointOutside", _algorithm(entry_point="deep/../../x.py")),
            ("EntryPointOutside", _algorithm(entry_point="TMP/algorithm/train.py")),
            ("LinkPointsOutside", _algorithm(uri="TMP/linked")),
            ("EntryPointMissing", _algorithm(entry_point="nowhere.py")),
            ("EntryPointMissing", _algorithm(entry_point="deep")),
            ("EntryPointMissing", _algorithm(entry_point=".")),
            ("TextInvalid", _algorithm(entry_point="a\x00.py")),
            ("EntryPointUnknown", _algorithm(entry_point="train.R")),
            ("EntryPointUnknown", _algorithm(entry_point="notes")),
            ("HyperparametersTooMany", {"hyperparameters": {f"k{i}": i for i in range(101)}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"1a": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"a" * 251: 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"-a": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"a b": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"a=b": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"a\n": 1}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"크기": 1}}),
            ("TextInvalid", {"hyperparameters": {"a": "x\x00"}}),
            ("TextInvalid", {"description": "d" * 4001}),
            ("TextInvalid", {"experiment": "a\x00"}),
            ("HyperparameterValueInvalid", {"hyperparameters": {"a": float("nan")}}),
            ("HyperparameterNameTwice", {"hyperparameters": {"lr": 1, "LR": 2}}),
            (
                "HyperparametersTooLong",
                {"hyperparameters": {f"a{i}": "x" * 3000 for i in range(40)}},
            ),
            ("DatasetsTooMany", _datasets(*(f"d{i}" for i in range(11)))),
            ("DatasetNameInvalid", _datasets("")),
            ("DatasetNameInvalid", _datasets("a b")),
            ("DatasetNameInvalid", _datasets("a" * 201)),
            ("UnknownScheme", {"output_uri": "runs:/0123/model"}),
            ("DatasetNameInvalid", _datasets("a/b")),
            ("DatasetNameInvalid", _datasets("a.b")),
            ("DatasetNameInvalid", _datasets("..")),
            ("DatasetNameInvalid", _datasets("a\n")),
            ("DatasetNameTwice", _datasets("a", "a")),
            ("DatasetNameTwice", _datasets("a-b", "A_b")),
            ("DatasetMissing", {"datasets": [{"name": "a", "uri": "TMP/nowhere"}]}),
            ("PathClimbs", {"datasets": [{"name": "a", "uri": "TMP/data/../data"}]}),
            ("CheckpointMissing", {"checkpoint_input_uri": "TMP/nowhere"}),
            ("NotADirectory", {"checkpoint_uri": "TMP/data.csv"}),
            ("NotADirectory", {"output_uri": "TMP/data.csv"}),
            ("NotAbsolute", {"output_uri": "relative"}),
            ("MetricNameInvalid", {"metrics": [{"name": ""}]}),
            ("MetricNameInvalid", {"metrics": [{"name": "a=b"}]}),
            ("MetricNameInvalid", {"metrics": [{"name": "m" * 251}]}),
            ("MetricPatternInvalid", {"metrics": [{"name": "a", "pattern": "("}]}),
            ("MetricPatternWithoutGroup", {"metrics": [{"name": "a", "pattern": "a=.*"}]}),
            ("MetricTwice", {"metrics": [{"name": "a"}, {"name": "a", "pattern": "(.)"}]}),
            ("MaxMinutesInvalid", {"max_minutes": 0}),
            ("MaxMinutesInvalid", {"max_minutes": -1}),
            ("MaxMinutesInvalid", {"max_minutes": "inf"}),
            ("TextInvalid", {"description": "\udcff"}),
            ("MaxMinutesInvalid", {"max_minutes": "nan"}),
        ],
        ids=str,
    )
    def test_what_cannot_work_is_refused(
        self, given: Callable[..., Training], home: Home, settings: Settings, code: str,
        change: Change,
    ) -> None:  # fmt: skip
        with pytest.raises(BadInputError) as raised:
            training_request.check(given(**change), home, settings)

        assert raised.value.code == code
        assert raised.value.message
        assert raised.value.hint

    def test_a_full_disk_is_refused(self, given: Callable[..., Training], home: Home) -> None:
        with pytest.raises(DiskFullError, match="MODELYARD_MIN_FREE_MIB") as raised:
            training_request.check(given(), home, Settings(home=home.root, min_free_mib=10**12))

        assert raised.value.code == "DiskFull"

    def test_a_home_that_is_not_there_yet_is_no_fault(
        self, given: Callable[..., Training], tmp_path: Path, settings: Settings
    ) -> None:
        training_request.check(given(), Home(tmp_path / "new" / "home"), settings)

        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        "change",
        [
            {"unknown": 1},
            {"algorithm": {"uri": "/a", "entry_point": "b", "more": 1}},
            {"hyperparameters": {"a": [1]}},
            {"hyperparameters": {"a": None}},
            {"datasets": [{"name": "a"}]},
        ],
        ids=str,
    )
    def test_what_is_no_training_is_refused(self, change: Change) -> None:
        with pytest.raises(BadInputError):
            Training(**change)


def test_relative_paths_count_from_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = Training(
        algorithm=Algorithm(uri="algorithm", entry_point="train.py"),
        datasets=[
            training_request.Dataset(name="a", uri="data"),
            training_request.Dataset(name="b", uri="/b"),
        ],
        checkpoint_uri="checkpoints",
        output_uri="s3://bucket/key",
    )

    found = asked.absolute()

    assert found.algorithm == Algorithm(uri=f"{tmp_path}/algorithm", entry_point="train.py")
    assert [dataset.uri for dataset in found.datasets] == [f"{tmp_path}/data", "/b"]
    assert found.checkpoint_uri == f"{tmp_path}/checkpoints"
    assert found.checkpoint_input_uri == ""
    assert found.output_uri == "s3://bucket/key"
    assert found == found.absolute()


class TestTorchrun:
    """Where the script's environment is Modelyard's own, it is known before the run starts."""

    @pytest.fixture(autouse=True)
    def _no_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
        )

    def test_without_torch_is_refused(
        self, given: Callable[..., Training], home: Home, settings: Settings
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            training_request.check(given(resources={"torchrun": True}), home, settings)

        assert raised.value.code == "TorchMissing"
        assert "requirements.txt" in raised.value.hint

    def test_requirements_may_bring_it(
        self, given: Callable[..., Training], home: Home, settings: Settings, tmp_path: Path
    ) -> None:
        training = given(resources={"torchrun": True}, **_algorithm(entry_point="deep/train.py"))
        (tmp_path / "algorithm" / "deep" / "requirements.txt").write_text("lightning")

        training_request.check(training, home, settings)

    def test_another_machine_may_have_it(
        self, given: Callable[..., Training], home: Home, settings: Settings
    ) -> None:
        training = given(
            resources={"torchrun": True},
            algorithm={"uri": "nas://team:/code", "entry_point": "train.py"},
        )
        with site.validating_for_remote():
            training_request.check(training, home, settings)


Prepare = Callable[..., PreparedScript]
