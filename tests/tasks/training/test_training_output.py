"""How a training's script ended, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, DiskFullError, ModelyardError
from infra.storage import copying as file_storage
from infra.workloads.exit_status import ExitStatus
from tasks.run_directory import RunDirectory
from tasks.training import model_publishing, training_steps
from tasks.training.training_request import Training


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
        found = training_steps.script_error(ExitStatus(code, tail=tail), "/log")

        assert found is not None
        assert (found.code, found.state) == (expected, "FAIL TRAIN")
        assert all(line in found.message for line in tail)
        assert found.hint

    def test_a_good_end_is_none(self) -> None:
        assert training_steps.script_error(ExitStatus(0, tail=("exitcode : -9",)), "/log") is None

    @pytest.mark.parametrize(
        ("code", "told"), [(3, "exit code 3"), (-15, "signal 15"), (-9, "exit code -9")]
    )
    def test_how_it_ended_is_told(self, code: int, told: str) -> None:
        found = training_steps.script_error(ExitStatus(code), "/the/log")

        assert found is not None
        assert told in found.message
        assert "(it printed nothing)" in found.message

    def test_where_the_log_is_is_told(self) -> None:
        found = training_steps.script_error(ExitStatus(1), "/the/log")

        assert found is not None
        assert "/the/log" in found.hint


class TestOutput:
    def test_there_is_a_model_if_anything_was_left(self, run_dir: RunDirectory) -> None:
        assert not model_publishing.has_model(run_dir)
        run_dir.model.mkdir(parents=True)
        assert not model_publishing.has_model(run_dir)
        (run_dir.model / "model.bin").touch()
        assert model_publishing.has_model(run_dir)

    def test_a_file_in_the_place_of_its_folder_is_not_dropped(self, run_dir: RunDirectory) -> None:
        run_dir.root.mkdir(parents=True, exist_ok=True)
        run_dir.model.write_text("weights")

        with pytest.raises(BadInputError) as raised:
            model_publishing.has_model(run_dir)
        assert raised.value.code == "ModelNotAFolder"

    @pytest.mark.parametrize("target", ["nowhere", "latest"])
    def test_a_link_that_leads_nowhere_is_called_one(
        self, run_dir: RunDirectory, target: str
    ) -> None:
        run_dir.model.mkdir(parents=True)
        (run_dir.model / "latest").symlink_to(target)

        with pytest.raises(BadInputError, match=r"The link latest in .* leads to no file"):
            model_publishing.check_model(run_dir)

    @pytest.mark.parametrize("name", ["w#1", "w?", "a%20b", "a\tb", "deep/w#1"])
    def test_a_name_that_mlflow_cannot_keep_is_refused(
        self, run_dir: RunDirectory, name: str
    ) -> None:
        file = run_dir.model / name
        file.parent.mkdir(parents=True)
        file.touch()

        with pytest.raises(BadInputError) as raised:
            model_publishing.check_model(run_dir)

        assert raised.value.code == "FileNameInvalid"

    def test_other_names_are_kept(self, run_dir: RunDirectory) -> None:
        run_dir.model.mkdir(parents=True)
        for name in ("a b", "a+b", "100%.txt", "한글", "a;b&c=d", ".hidden"):
            (run_dir.model / name).touch()

        model_publishing.check_model(run_dir)

    def test_a_link_to_a_folder_is_refused(self, run_dir: RunDirectory) -> None:
        (run_dir.model / "v1").mkdir(parents=True)
        (run_dir.model / "latest").symlink_to("v1")

        with pytest.raises(BadInputError) as raised:
            model_publishing.check_model(run_dir)

        assert raised.value.code == "LinkToFolder"

    def test_a_model_that_waits_is_kept_and_said(self, run_dir: RunDirectory) -> None:
        run_dir.model.mkdir(parents=True)
        error = DiskFullError("Full.", "Make room.")
        assert training_steps.with_model_hint(error, run_dir, lasts=True).hint == "Make room."

        run_dir.finished_marker.touch()
        run_dir.clear()

        assert run_dir.model.exists()
        assert (
            str(run_dir.model) in training_steps.with_model_hint(error, run_dir, lasts=True).hint
        )
        run_dir.mark_published()
        assert (
            training_steps.with_model_hint(
                DiskFullError("Full.", "Make room."), run_dir, lasts=True
            ).hint
            == "Make room."
        )
        run_dir.clear()
        assert not run_dir.model.exists()

    def test_one_on_a_machine_that_is_gone_is_not_promised(self, run_dir: RunDirectory) -> None:
        run_dir.finished_marker.parent.mkdir(parents=True, exist_ok=True)
        run_dir.finished_marker.touch()
        hint = training_steps.with_model_hint(
            DiskFullError("Full.", "Make room."), run_dir, lasts=False
        ).hint

        assert "a retry runs the script again" in hint
        assert str(run_dir.root) not in hint

    def test_where_the_whole_log_is(self, run_dir: RunDirectory) -> None:
        assert training_steps.log_location(run_dir, lasts=True) == str(run_dir.log)
        assert "logs/train.log" in training_steps.log_location(run_dir, lasts=False)

    def test_the_model_is_published(
        self, given: Callable[..., Training], run_dir: RunDirectory, tmp_path: Path
    ) -> None:
        run_dir.model.mkdir(parents=True)
        (run_dir.model / "model.bin").write_text("m")

        model_publishing.publish_output(given(), run_dir)
        model_publishing.publish_output(given(output_uri="TMP/out/model"), run_dir)

        assert (tmp_path / "out" / "model" / "model.bin").read_text() == "m"
        assert run_dir.model.exists()

    def test_a_full_disk_leaves_no_half_model(
        self, given: Callable[..., Training], run_dir: RunDirectory, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        run_dir.model.mkdir(parents=True)
        monkeypatch.setattr(file_storage.shutil, "copytree", full)

        with pytest.raises(ModelyardError) as raised:
            model_publishing.publish_output(given(output_uri="TMP/out"), run_dir)

        assert raised.value.code == "DiskFull"
        assert not (tmp_path / "out").exists()
