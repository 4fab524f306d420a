from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.door import run_scope
from infra.door.credential import Credential
from infra.errors import (
    BadInputError,
    DiskFullError,
    NotFoundError,
    RunFailedError,
)
from infra.home import Home
from infra.settings import Settings
from infra.workloads.installer import InstallCancelledError
from tasks.run_directory import RunDirectory
from tasks.training import training_steps
from tasks.training.overlay import Interpreter
from tasks.training.training_request import Training
from tasks.training.training_steps import PreparedScript
from tests.infra.workloads import packages

Change = dict[str, Any]


Prepare = Callable[..., PreparedScript]
_HOW = ("log", "deadline", "stop_requested")


def _algorithm(**changes: str) -> dict[str, Any]:
    return {"algorithm": {"uri": "TMP/algorithm", "entry_point": "train.py", **changes}}


@pytest.fixture
def prepare(
    given: Callable[..., Training], run_dir: RunDirectory, home: Home, settings: Settings
) -> Prepare:
    def prepared(*, retried: bool = False, **changes: Any) -> PreparedScript:
        how: dict[str, Any] = {"log": lambda _: None}
        how |= {name: changes.pop(name) for name in _HOW if name in changes}
        return training_steps.prepare(
            given(**changes), run_dir, home, settings, retried=retried, **how
        )

    return prepared


class TestPrepare:
    def test_the_contract(self, prepare: Prepare, run_dir: RunDirectory, tmp_path: Path) -> None:
        found = prepare(
            **_algorithm(entry_point="deep/train.py"),
            hyperparameters={
                "epochs": 5, "rate": 1e-05, "verbose": True, "quiet": False, "name": "a b",
                "learning-rate": 0.5,
            },
            datasets=[
                {"name": "train", "uri": "TMP/data"}, {"name": "held-out", "uri": "TMP/data.csv"},
            ],
        )  # fmt: skip

        assert found.command == [
            sys.executable, str(run_dir.source / "deep/train.py"),
            "--epochs", "5", "--learning-rate", "0.5", "--name", "a b", "--quiet", "false",
            "--rate", "1e-05", "--verbose", "true",
        ]  # fmt: skip
        held_out = str(run_dir.datasets / "held-out")
        assert json.loads(found.env.pop("EM_HPS")) == {
            "epochs": 5, "rate": 1e-05, "verbose": True, "quiet": False, "name": "a b",
            "learning-rate": 0.5,
        }  # fmt: skip
        assert json.loads(found.env.pop("EM_DATASETS")) == {
            "train": str(tmp_path / "data"),
            "held-out": held_out,
        }
        assert found.env == {
            "EM_SOURCE_DIR": str(run_dir.source),
            "EM_ENTRY_POINT": "deep/train.py",
            "EM_MODEL_DIR": str(run_dir.model),
            "EM_CHECKPOINT_DIR": str(run_dir.checkpoints),
            "EM_TENSORBOARD_LOG_DIR": str(run_dir.tensorboard),
            "EM_REGION": "KR1",
            "EM_APPKEY": "key",
            "EM_DATASET_TRAIN": str(tmp_path / "data"),
            "EM_DATASET_HELD_OUT": held_out,
            "EM_DATASET_HELD-OUT": held_out,
            "EM_HP_EPOCHS": "5",
            "EM_HP_RATE": "1e-05",
            "EM_HP_VERBOSE": "true",
            "EM_HP_QUIET": "false",
            "EM_HP_NAME": "a b",
            "EM_HP_LEARNING_RATE": "0.5",
            "EM_HP_LEARNING-RATE": "0.5",
        }
        assert not found.resumed
        for folder in (run_dir.model, run_dir.checkpoints, run_dir.tensorboard):
            assert folder.is_dir()
            assert not any(folder.iterdir())
        assert (run_dir.datasets / "held-out" / "data.csv").read_text() == "1"

    def test_a_script_that_writes_through_a_link_writes_to_its_copy(
        self, prepare: Prepare, run_dir: RunDirectory, tmp_path: Path
    ) -> None:
        (tmp_path / "algorithm" / "config").symlink_to(tmp_path / "algorithm" / "notes")

        prepare()
        (run_dir.source / "config").write_text("changed by the run")

        assert (tmp_path / "algorithm" / "notes").read_text() == ""

    def test_a_data_sets_name_is_that_of_the_file(
        self, prepare: Prepare, run_dir: RunDirectory, tmp_path: Path
    ) -> None:
        (tmp_path / "a b.csv").write_text("1")

        prepare(datasets=[{"name": "a", "uri": "file://TMP/a%20b.csv"}])

        assert [path.name for path in (run_dir.datasets / "a").iterdir()] == ["a b.csv"]

    def test_without_anything_more(self, prepare: Prepare) -> None:
        found = prepare()

        assert (found.env["EM_HPS"], found.env["EM_DATASETS"]) == ("{}", "{}")
        assert "EM_CHECKPOINT_INPUT_DIR" not in found.env

    def test_a_shell_script_is_run_by_bash(self, prepare: Prepare, run_dir: RunDirectory) -> None:
        found = prepare(**_algorithm(entry_point="train.sh"), hyperparameters={"a": 1})

        assert found.command == ["bash", str(run_dir.source / "train.sh"), "--a", "1"]

    @pytest.mark.parametrize("order", [["a_b", "a-b"], ["a-b", "a_b"]])
    def test_a_variable_that_a_key_spells_exactly_is_that_keys(
        self, prepare: Prepare, order: list[str]
    ) -> None:
        values = {"a_b": "exact", "a-b": "similar"}

        found = prepare(hyperparameters={key: values[key] for key in order})

        assert found.env["EM_HP_A_B"] == "exact"
        assert found.env["EM_HP_A-B"] == "similar"

    def test_the_algorithm_is_copied(
        self, prepare: Prepare, run_dir: RunDirectory, tmp_path: Path
    ) -> None:
        prepare()
        (run_dir.source / "train.py").write_text("changed")

        assert (tmp_path / "algorithm" / "train.py").read_text() == ""

    def test_a_link_out_of_the_algorithm_is_refused(
        self, prepare: Prepare, run_dir: RunDirectory
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            prepare(**_algorithm(uri="TMP/linked"))

        assert raised.value.code == "LinkPointsOutside"
        assert raised.value.message.startswith("algorithm.uri: The link ")
        assert not run_dir.source.exists()

    def test_what_was_removed_meanwhile_is_missing(self, prepare: Prepare, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            prepare(**_algorithm(uri="TMP/nowhere"))

    def test_a_full_disk_is_told(self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "mkdir", full)

        with pytest.raises(DiskFullError):
            prepare()

    def test_requirements_beside_the_entry_point_are_installed(
        self, prepare: Prepare, home: Home, monkeypatch: pytest.MonkeyPatch, run_dir: RunDirectory
    ) -> None:
        asked: list[tuple[Path, Path]] = []
        released: list[bool] = []

        @contextlib.contextmanager
        def using(requirements: Path, overlays: Path, *_: Any) -> Iterator[Interpreter]:
            asked.append((requirements, overlays))
            yield Interpreter("/overlay/bin/python", (7,))
            released.append(True)

        monkeypatch.setattr(training_steps.overlay, "using", using)

        found = prepare(**_algorithm(entry_point="deep/train.py"))

        assert asked == [(run_dir.source / "deep" / "requirements.txt", home.overlays)]
        assert found.command[0] == "/overlay/bin/python"
        assert found.keep == (7,)
        assert not released
        found.held.close()
        assert released

    @pytest.mark.parametrize(
        ("more", "error"),
        [
            ({"deadline": 0.001, "max_minutes": 2}, RunFailedError),
            ({"stop_requested": lambda: True}, InstallCancelledError),
            ({"stop_requested": lambda: True, "deadline": 0.001}, InstallCancelledError),
        ],
        ids=["late", "stopped", "both"],
    )
    @pytest.mark.integration
    def test_the_installation_heeds_a_stop_and_the_deadline(
        self, prepare: Prepare, home: Home, tmp_path: Path, more: dict[str, Any],
        error: type[Exception],
    ) -> None:  # fmt: skip
        (tmp_path / "algorithm" / "requirements.txt").write_text(
            str(packages.slow_source(tmp_path / "slow", tmp_path))
        )
        log: list[str] = []
        with pytest.raises(error) as caught:
            prepare(log=log.append, **more)

        assert log == ["Installing requirements.txt"]
        if isinstance(caught.value, RunFailedError):
            assert (caught.value.code, caught.value.state) == ("Timeout", "TIMED OUT")
            assert "installed its requirements for its 2 minutes" in caught.value.message
        assert list(home.overlays.glob("*/")) == []

    def test_input_checkpoints_are_read_where_they_are(
        self, prepare: Prepare, tmp_path: Path
    ) -> None:
        found = prepare(checkpoint_input_uri="TMP/data")

        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == str(tmp_path / "data")
        assert not found.resumed

    def test_an_input_checkpoint_that_is_a_file_gets_a_folder(
        self, prepare: Prepare, run_dir: RunDirectory
    ) -> None:
        found = prepare(checkpoint_input_uri="TMP/data.csv")

        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == str(run_dir.checkpoint_input)
        assert (run_dir.checkpoint_input / "data.csv").read_text() == "1"

    @pytest.mark.parametrize("uri", [None, "TMP/checkpoints"])
    def test_a_retry_resumes_from_its_own_checkpoints(
        self, prepare: Prepare, uri: str | None
    ) -> None:
        changes = {"checkpoint_input_uri": "TMP/data", "checkpoint_uri": uri}
        folder = Path(prepare(**changes).env["EM_CHECKPOINT_DIR"])
        (folder / "epoch-1").write_text("1")

        found = prepare(retried=True, **changes)

        assert (found.resumed, found.checkpoints) == (True, folder)
        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == found.env["EM_CHECKPOINT_DIR"]
        assert (folder / "epoch-1").read_text() == "1"

    def test_a_retry_without_checkpoints_begins_as_the_first_did(
        self, prepare: Prepare, tmp_path: Path
    ) -> None:
        prepare(checkpoint_input_uri="TMP/data")

        found = prepare(retried=True, checkpoint_input_uri="TMP/data")

        assert not found.resumed
        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == str(tmp_path / "data")

    def test_a_first_attempt_does_not_resume_from_what_lies_there(
        self, prepare: Prepare, tmp_path: Path
    ) -> None:
        (tmp_path / "data" / "old").touch()

        assert not prepare(checkpoint_uri="TMP/data").resumed

    def test_an_attempt_clears_what_the_last_one_left(
        self, prepare: Prepare, run_dir: RunDirectory
    ) -> None:
        prepare(datasets=[{"name": "a", "uri": "TMP/data.csv"}])
        for folder in (run_dir.source, run_dir.model, run_dir.datasets):
            (folder / "rubbish").touch()

        prepare(retried=True, datasets=[{"name": "a", "uri": "TMP/data.csv"}])

        for folder in (run_dir.source, run_dir.model, run_dir.datasets):
            assert not (folder / "rubbish").exists()

    def test_a_transfer_can_be_gone_on_from(self, prepare: Prepare, run_dir: RunDirectory) -> None:
        prepare()
        partial = run_dir.datasets / "a" / ".files.0123.partial"
        partial.mkdir(parents=True)
        (partial / "data").touch()
        (run_dir.datasets / "a" / "files").mkdir()
        (run_dir.datasets / "b").mkdir()

        prepare(retried=True)

        assert (partial / "data").exists()
        assert [path.name for path in run_dir.datasets.rglob("*")] == ["a", partial.name, "data"]

    def test_clearing_leaves_the_users_data(
        self, prepare: Prepare, run_dir: RunDirectory, tmp_path: Path
    ) -> None:
        prepare(
            datasets=[{"name": "a", "uri": "TMP/data.csv"}, {"name": "b", "uri": "TMP/data"}],
            checkpoint_input_uri="TMP/data", checkpoint_uri="TMP/checkpoints",
        )  # fmt: skip
        (tmp_path / "checkpoints" / "one").touch()
        (run_dir.tensorboard / "events").touch()

        run_dir.clear()

        assert (tmp_path / "data.csv").read_text() == "1"
        assert (tmp_path / "data").is_dir()
        assert (tmp_path / "checkpoints" / "one").exists()
        assert (run_dir.tensorboard / "events").exists()
        assert not run_dir.source.exists()


class TestScriptEnvironment:
    @pytest.fixture
    def environment(self, home: Home, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        for name, value in {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
            "MLFLOW_TRACKING_TOKEN": "secret-1",
            "MLFLOW_TRACKING_USERNAME": "modelyard",
            "MLFLOW_TRACKING_PASSWORD": "secret-6",
            "MODELYARD_DATABASE_URL": "secret-2",
            "PREFECT_API_KEY": "secret-3",
            "PREFECT__FLOW_RUN_ID": "secret-4",
            "_MLFLOW_SERVER_FILE_STORE": "secret-5",
            "PYTHONSAFEPATH": "1",
            "EM_CHECKPOINT_INPUT_DIR": "/of/another/run",
            "EM_HP_OLD": "of another run",
            "COLOUR": "blue",
            "PATH": "/usr/bin:/bin",
        }.items():
            monkeypatch.setenv(name, value)
        prepared = PreparedScript(
            ["/overlay/bin/python", "train.py"], {"EM_HPS": "{}"}, Path("/checkpoints"), False
        )
        return training_steps.script_environment(
            prepared, home=home, flow_run_id="flow-run", mlflow_run_id="e" * 32,
            experiment_id="7",
        )  # fmt: skip

    def test_no_secret_of_ours_is_in_it(self, environment: dict[str, str]) -> None:
        assert not [value for value in environment.values() if value.startswith("secret")]
        assert not [name for name in environment if name.startswith(("PREFECT_", "_MLFLOW_"))]
        assert "MODELYARD_DATABASE_URL" not in environment

    def test_metrics_land_in_the_same_run(self, environment: dict[str, str]) -> None:
        assert environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:1"
        assert environment["MLFLOW_RUN_ID"] == "e" * 32
        assert environment["MLFLOW_EXPERIMENT_ID"] == "7"

    def test_its_credential_opens_its_own_run(self, environment: dict[str, str]) -> None:
        user = environment["MLFLOW_TRACKING_USERNAME"]
        password = environment["MLFLOW_TRACKING_PASSWORD"]

        assert run_scope.verify(Credential("secret-6"), user, password) == "e" * 32

    def test_the_contract_and_the_users_own_are_in_it(self, environment: dict[str, str]) -> None:
        assert environment["EM_HPS"] == "{}"
        assert environment["COLOUR"] == "blue"
        assert environment["PYTHONUNBUFFERED"] == "1"
        assert "PYTHONSAFEPATH" not in environment

    def test_nothing_of_another_runs_contract_is_in_it(self, environment: dict[str, str]) -> None:
        assert {name for name in environment if name.startswith("EM_")} == {"EM_HPS"}

    def test_its_commands_are_found_first(self, environment: dict[str, str]) -> None:
        assert environment["PATH"].split(os.pathsep) == [
            "/overlay/bin", str(Path(sys.executable).parent), "/usr/bin", "/bin",
        ]  # fmt: skip

    def test_it_bears_the_runs_mark(self, environment: dict[str, str], home: Home) -> None:
        assert f"flow-run@{home.root}" in environment.values()


def test_a_script_sees_the_contract(
    prepare: Prepare, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    (tmp_path / "algorithm" / "train.py").write_text(
        "import json, os, sys, helper\n"
        "print(json.dumps([sys.argv[1:], os.environ['EM_HP_EPOCHS'], helper.VALUE]))\n"
    )
    (tmp_path / "algorithm" / "helper.py").write_text("VALUE = 7\n")
    found = prepare(hyperparameters={"epochs": 5})

    done = subprocess.run(
        found.command,
        env=training_steps.script_environment(
            found, home=home, flow_run_id="f", mlflow_run_id="m"
        ),
        capture_output=True,
        text=True,
    )

    assert json.loads(done.stdout) == [["--epochs", "5"], "5", 7]
