from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.door import run_scope
from infra.door.credential import Credential
from infra.errors import BadInputError, DiskFullError, ModelyardError, NotFoundError
from infra.home import Home
from infra.script import Ended, Ending
from infra.settings import Settings
from infra.storage import copying as file_storage
from tasks import training
from tasks.training import Prepared, Workplace
from tasks.training_request import Training

Change = dict[str, Any]


Prepare = Callable[..., Prepared]


def _algorithm(**changes: str) -> dict[str, Any]:
    return {"algorithm": {"uri": "TMP/algorithm", "entry_point": "train.py", **changes}}


@pytest.fixture
def prepare(
    given: Callable[..., Training], place: Workplace, home: Home, settings: Settings
) -> Prepare:
    def prepared(*, retried: bool = False, **changes: Any) -> Prepared:
        return training.prepare(
            given(**changes), place, home, settings, retried=retried, say=lambda _: None
        )

    return prepared


class TestPrepare:
    def test_the_contract(self, prepare: Prepare, place: Workplace, tmp_path: Path) -> None:
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
            sys.executable, str(place.source / "deep/train.py"),
            "--epochs", "5", "--learning-rate", "0.5", "--name", "a b", "--quiet", "false",
            "--rate", "1e-05", "--verbose", "true",
        ]  # fmt: skip
        held_out = str(place.datasets / "held-out")
        assert json.loads(found.env.pop("EM_HPS")) == {
            "epochs": 5, "rate": 1e-05, "verbose": True, "quiet": False, "name": "a b",
            "learning-rate": 0.5,
        }  # fmt: skip
        assert json.loads(found.env.pop("EM_DATASETS")) == {
            "train": str(tmp_path / "data"),
            "held-out": held_out,
        }
        assert found.env == {
            "EM_SOURCE_DIR": str(place.source),
            "EM_ENTRY_POINT": "deep/train.py",
            "EM_MODEL_DIR": str(place.model),
            "EM_CHECKPOINT_DIR": str(place.checkpoints),
            "EM_TENSORBOARD_LOG_DIR": str(place.tensorboard),
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
        for folder in (place.model, place.checkpoints, place.tensorboard):
            assert folder.is_dir()
            assert not any(folder.iterdir())
        assert (place.datasets / "held-out" / "data.csv").read_text() == "1"

    def test_a_script_that_writes_through_a_link_writes_to_its_copy(
        self, prepare: Prepare, place: Workplace, tmp_path: Path
    ) -> None:
        (tmp_path / "algorithm" / "config").symlink_to(tmp_path / "algorithm" / "notes")

        prepare()
        (place.source / "config").write_text("changed by the run")

        assert (tmp_path / "algorithm" / "notes").read_text() == ""

    def test_a_data_sets_name_is_that_of_the_file(
        self, prepare: Prepare, place: Workplace, tmp_path: Path
    ) -> None:
        (tmp_path / "a b.csv").write_text("1")

        prepare(datasets=[{"name": "a", "uri": "file://TMP/a%20b.csv"}])

        assert [path.name for path in (place.datasets / "a").iterdir()] == ["a b.csv"]

    def test_without_anything_more(self, prepare: Prepare) -> None:
        found = prepare()

        assert (found.env["EM_HPS"], found.env["EM_DATASETS"]) == ("{}", "{}")
        assert "EM_CHECKPOINT_INPUT_DIR" not in found.env

    def test_a_shell_script_is_run_by_bash(self, prepare: Prepare, place: Workplace) -> None:
        found = prepare(**_algorithm(entry_point="train.sh"), hyperparameters={"a": 1})

        assert found.command == ["bash", str(place.source / "train.sh"), "--a", "1"]

    @pytest.mark.parametrize("order", [["a_b", "a-b"], ["a-b", "a_b"]])
    def test_a_variable_that_a_key_spells_exactly_is_that_keys(
        self, prepare: Prepare, order: list[str]
    ) -> None:
        values = {"a_b": "exact", "a-b": "similar"}

        found = prepare(hyperparameters={key: values[key] for key in order})

        assert found.env["EM_HP_A_B"] == "exact"
        assert found.env["EM_HP_A-B"] == "similar"

    def test_the_algorithm_is_copied(
        self, prepare: Prepare, place: Workplace, tmp_path: Path
    ) -> None:
        prepare()
        (place.source / "train.py").write_text("changed")

        assert (tmp_path / "algorithm" / "train.py").read_text() == ""

    def test_a_link_out_of_the_algorithm_is_refused(
        self, prepare: Prepare, place: Workplace
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            prepare(**_algorithm(uri="TMP/linked"))

        assert raised.value.code == "LinkPointsOutside"
        assert not place.source.exists()

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
        self, prepare: Prepare, home: Home, monkeypatch: pytest.MonkeyPatch, place: Workplace
    ) -> None:
        asked: list[tuple[Path, Path]] = []

        def python_for(requirements: Path, overlays: Path) -> str:
            asked.append((requirements, overlays))
            return "/overlay/bin/python"

        monkeypatch.setattr(training.overlay, "python_for", python_for)

        found = prepare(**_algorithm(entry_point="deep/train.py"))

        assert asked == [(place.source / "deep" / "requirements.txt", home.overlays)]
        assert found.command[0] == "/overlay/bin/python"

    def test_input_checkpoints_are_read_where_they_are(
        self, prepare: Prepare, tmp_path: Path
    ) -> None:
        found = prepare(checkpoint_input_uri="TMP/data")

        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == str(tmp_path / "data")
        assert not found.resumed

    def test_an_input_checkpoint_that_is_a_file_gets_a_folder(
        self, prepare: Prepare, place: Workplace
    ) -> None:
        found = prepare(checkpoint_input_uri="TMP/data.csv")

        assert found.env["EM_CHECKPOINT_INPUT_DIR"] == str(place.checkpoint_input)
        assert (place.checkpoint_input / "data.csv").read_text() == "1"

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
        self, prepare: Prepare, place: Workplace
    ) -> None:
        prepare(datasets=[{"name": "a", "uri": "TMP/data.csv"}])
        for folder in (place.source, place.model, place.datasets):
            (folder / "rubbish").touch()

        prepare(retried=True, datasets=[{"name": "a", "uri": "TMP/data.csv"}])

        for folder in (place.source, place.model, place.datasets):
            assert not (folder / "rubbish").exists()

    def test_a_transfer_can_be_gone_on_from(self, prepare: Prepare, place: Workplace) -> None:
        prepare()
        partial = place.datasets / "a" / ".files.0123.partial"
        partial.mkdir(parents=True)
        (partial / "data").touch()
        (place.datasets / "a" / "files").mkdir()
        (place.datasets / "b").mkdir()

        prepare(retried=True)

        assert (partial / "data").exists()
        assert [path.name for path in place.datasets.rglob("*")] == ["a", partial.name, "data"]

    def test_clearing_leaves_the_users_data(
        self, prepare: Prepare, place: Workplace, tmp_path: Path
    ) -> None:
        prepare(
            datasets=[{"name": "a", "uri": "TMP/data.csv"}, {"name": "b", "uri": "TMP/data"}],
            checkpoint_input_uri="TMP/data", checkpoint_uri="TMP/checkpoints",
        )  # fmt: skip
        (tmp_path / "checkpoints" / "one").touch()
        (place.tensorboard / "events").touch()

        place.clear()

        assert (tmp_path / "data.csv").read_text() == "1"
        assert (tmp_path / "data").is_dir()
        assert (tmp_path / "checkpoints" / "one").exists()
        assert (place.tensorboard / "events").exists()
        assert not place.source.exists()


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
        prepared = Prepared(
            ["/overlay/bin/python", "train.py"], {"EM_HPS": "{}"}, Path("/checkpoints"), False
        )
        return training.script_environment(
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


class TestFailure:
    @pytest.mark.parametrize(
        ("code", "tail", "expected"),
        [
            (1, ("ValueError: odd",), "ScriptFailed"),
            (-15, (), "ScriptFailed"),
            (-11, (), "ScriptFailed"),
            (-9, (), "OOMKilled"),
            (137, ("Killed",), "OOMKilled"),
            (1, ("  exitcode  : -9 (pid: 1234)", "  error_file: <N/A>"), "OOMKilled"),
            (1, ("failed (exitcode: -9) local_rank: 0 (pid: 12)",), "OOMKilled"),
            (1, ("worker exit code: -9",), "OOMKilled"),
            (1, ("  exitcode  : -99",), "ScriptFailed"),
            (1, ("  exitcode  : 1 (pid: 9)",), "ScriptFailed"),
        ],
    )
    def test_kinds(self, code: int, tail: tuple[str, ...], expected: str) -> None:
        found = training.failure(Ended(Ending.EXITED, code, tail), "/log")

        assert found is not None
        assert (found.code, found.state) == (expected, "FAIL TRAIN")
        assert all(line in found.message for line in tail)
        assert found.hint

    def test_a_good_end_is_none(self) -> None:
        assert training.failure(Ended(Ending.EXITED, 0, ("exitcode : -9",)), "/log") is None

    @pytest.mark.parametrize(
        ("code", "told"), [(3, "exit code 3"), (-15, "signal 15"), (-9, "exit code -9")]
    )
    def test_how_it_ended_is_told(self, code: int, told: str) -> None:
        found = training.failure(Ended(Ending.EXITED, code, ()), "/the/log")

        assert found is not None
        assert told in found.message
        assert "(it printed nothing)" in found.message

    def test_where_the_log_is_is_told(self) -> None:
        found = training.failure(Ended(Ending.EXITED, 1, ()), "/the/log")

        assert found is not None
        assert "/the/log" in found.hint


class TestOutput:
    def test_there_is_a_model_if_anything_was_left(self, place: Workplace) -> None:
        assert not training.has_model(place)
        place.model.mkdir(parents=True)
        assert not training.has_model(place)
        (place.model / "model.bin").touch()
        assert training.has_model(place)

    def test_a_file_in_the_place_of_its_folder_is_not_dropped(self, place: Workplace) -> None:
        place.root.mkdir(parents=True, exist_ok=True)
        place.model.write_text("weights")

        with pytest.raises(BadInputError) as raised:
            training.has_model(place)
        assert raised.value.code == "ModelNotAFolder"

    @pytest.mark.parametrize("target", ["nowhere", "latest"])
    def test_a_link_that_leads_nowhere_is_called_one(self, place: Workplace, target: str) -> None:
        place.model.mkdir(parents=True)
        (place.model / "latest").symlink_to(target)

        with pytest.raises(BadInputError, match=r"The link latest in .* leads to no file"):
            training.check_model(place)

    @pytest.mark.parametrize("name", ["w#1", "w?", "a%20b", "a\tb", "deep/w#1"])
    def test_a_name_that_mlflow_cannot_keep_is_refused(self, place: Workplace, name: str) -> None:
        file = place.model / name
        file.parent.mkdir(parents=True)
        file.touch()

        with pytest.raises(BadInputError) as raised:
            training.check_model(place)

        assert raised.value.code == "FileNameInvalid"

    def test_other_names_are_kept(self, place: Workplace) -> None:
        place.model.mkdir(parents=True)
        for name in ("a b", "a+b", "100%.txt", "한글", "a;b&c=d", ".hidden"):
            (place.model / name).touch()

        training.check_model(place)

    def test_a_link_to_a_folder_is_refused(self, place: Workplace) -> None:
        (place.model / "v1").mkdir(parents=True)
        (place.model / "latest").symlink_to("v1")

        with pytest.raises(BadInputError) as raised:
            training.check_model(place)

        assert raised.value.code == "LinkToFolder"

    def test_a_model_that_waits_is_kept_and_said(self, place: Workplace) -> None:
        place.model.mkdir(parents=True)
        error = DiskFullError("Full.", "Make room.")
        assert training.kept(error, place, lasts=True).hint == "Make room."

        place.finished.touch()
        place.clear()

        assert place.model.exists()
        assert str(place.model) in training.kept(error, place, lasts=True).hint
        place.mark_published()
        assert (
            training.kept(DiskFullError("Full.", "Make room."), place, lasts=True).hint
            == "Make room."
        )
        place.clear()
        assert not place.model.exists()

    def test_one_on_a_machine_that_is_gone_is_not_promised(self, place: Workplace) -> None:
        place.finished.parent.mkdir(parents=True, exist_ok=True)
        place.finished.touch()
        hint = training.kept(DiskFullError("Full.", "Make room."), place, lasts=False).hint

        assert "a retry runs the script again" in hint
        assert str(place.root) not in hint

    def test_where_the_whole_log_is(self, place: Workplace) -> None:
        assert training.log_for_people(place, lasts=True) == str(place.log)
        assert "logs/train.log" in training.log_for_people(place, lasts=False)

    def test_the_model_is_published(
        self, given: Callable[..., Training], place: Workplace, tmp_path: Path
    ) -> None:
        place.model.mkdir(parents=True)
        (place.model / "model.bin").write_text("m")

        training.publish_output(given(), place)
        training.publish_output(given(output_uri="TMP/out/model"), place)

        assert (tmp_path / "out" / "model" / "model.bin").read_text() == "m"
        assert place.model.exists()

    def test_a_full_disk_leaves_no_half_model(
        self, given: Callable[..., Training], place: Workplace, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        place.model.mkdir(parents=True)
        monkeypatch.setattr(file_storage.shutil, "copytree", full)

        with pytest.raises(ModelyardError) as raised:
            training.publish_output(given(output_uri="TMP/out"), place)

        assert raised.value.code == "DiskFull"
        assert not (tmp_path / "out").exists()


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
        env=training.script_environment(found, home=home, flow_run_id="f", mlflow_run_id="m"),
        capture_output=True,
        text=True,
    )

    assert json.loads(done.stdout) == [["--epochs", "5"], "5", 7]
