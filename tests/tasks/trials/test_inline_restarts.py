"""Trials beside a tuning that was killed: what it has left is gone on with."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary import Writer

from infra.mlflow import MlflowException
from registry import tracking
from tasks.training import checkpoints
from tasks.trials import inline
from tasks.trials.base import TrialEnded, TrialStarted
from tasks.trials.inline import InlineLauncher
from tests.processes import eventually
from tests.tasks.trials.beside import history, kill
from tests.tasks.trials.contract import lines
from tests.tasks.trials.scene import Scene, ended, trial


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "_POLL_SECONDS", 0.05)


def _refused(*_: Any) -> None:
    raise MlflowException("It is refused.")


class TestAfterAKill:
    """What an earlier attempt has left is gone on with."""

    @pytest.fixture
    def launcher(self, scene: Scene) -> Any:
        made = InlineLauncher(scene.trial_context(), scene.events.append)
        yield made
        made.close()

    def kill(self, launcher: InlineLauncher) -> None:
        kill(launcher)

    def _again(self, scene: Scene, row: Any) -> InlineLauncher:
        scene.events.clear()
        again = InlineLauncher(scene.trial_context(), scene.events.append)
        again.settle([row])
        again.launch(row, again=True)
        return again

    def test_it_resumes_from_its_checkpoint_and_its_reports_come_first(
        self, scene: Scene, launcher: InlineLauncher
    ) -> None:
        ledger, until = scene.scratch / "ledger", scene.scratch / "until"
        asked = {"ledger": str(ledger), "until": str(until), "how": "prints first"}
        reports = json.dumps([0.5, 0.25, 0.125])
        # It waits before its first report is printed, so that the first attempt has none.
        launcher.launch(trial(0, reports=reports, **asked))
        eventually(lambda: lines(ledger), "it begins")
        row = scene.begun(trial(0, reports=reports, **asked))
        self.kill(launcher)

        again = self._again(scene, row)
        until.touch()
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert scene.values(0) == [0.5, 0.25, 0.125]
        assert lines(ledger) == [*["begins 0.0 after 0"] * 2, "ends 0.0"]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25), (2, 0.125)]

    def test_steps_go_on_and_what_mlflow_has_missed_is_told_again(
        self, scene: Scene, launcher: InlineLauncher
    ) -> None:
        ledger, until = scene.scratch / "ledger", scene.scratch / "until"
        asked = {"ledger": str(ledger), "until": str(until), "reports": "[0.5, 0.25]"}
        launcher._writer._retry = lambda _: True  # type: ignore[method-assign]
        launcher.launch(trial(0, **asked))
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(trial(0, **asked))
        self.kill(launcher)
        assert history(scene, 0) == []

        again = self._again(scene, row)
        eventually(lambda: len(lines(ledger)) == 2, "it begins again")
        until.touch()
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert lines(ledger)[1:] == ["begins 0.0 after 2", "ends 0.0"]
        assert scene.values(0) == [0.5, 0.25]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25)]

    def test_on_another_machine_it_resumes_from_its_checkpoint_uri(self, scene: Scene) -> None:
        ledger, until = scene.scratch / "ledger", scene.scratch / "until"
        asked = {"ledger": str(ledger), "until": str(until), "reports": "[0.5, 0.25]"}
        trial_context = scene.trial_context(checkpoint_uri=str(scene.scratch / "kept"))
        launcher = InlineLauncher(trial_context, scene.events.append)
        launcher.launch(trial(0, **asked))
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(trial(0, **asked))
        self.kill(launcher)
        launcher.close()
        shutil.rmtree(trial_context.run_dir(0).root)

        scene.events.clear()
        again = InlineLauncher(trial_context, scene.events.append)
        again.launch(row, again=True)
        until.touch()
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert lines(ledger)[1:] == ["begins 0.0 after 2", "ends 0.0"]

    @pytest.mark.parametrize("how", ["prints", "pushes"])
    def test_reports_before_and_after_each_count_once(
        self, scene: Scene, launcher: InlineLauncher, how: str
    ) -> None:
        until = scene.scratch / "until"
        first = {"reports": "[0.5, 0.25]", "until": str(until), "how": how}
        launcher.launch(trial(0, **first))
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(trial(0, **{**first, "reports": "[0.5, 0.25, 0.125]"}))
        self.kill(launcher)
        until.touch()

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert scene.values(0) == [0.5, 0.25, 0.125]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25), (2, 0.125)]

    def test_on_another_machine_its_reports_are_read_from_mlflow(
        self, scene: Scene, launcher: InlineLauncher
    ) -> None:
        until = scene.scratch / "until"
        asked = {"reports": "[0.5, 0.25]", "until": str(until)}
        launcher.launch(trial(0, **asked))
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(trial(0, **asked))
        eventually(lambda: len(history(scene, 0)) == 2, "MLflow has them")
        self.kill(launcher)
        (scene.trial_context().run_dir(0).root / "reports").unlink()
        until.touch()
        (scene.trial_context().run_dir(0).checkpoints / "step").write_text("1")

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert scene.values(0) == [0.5, 0.25, 0.25]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25), (2, 0.25)]

    def test_one_whose_mlflow_run_was_deleted_gets_another(
        self, scene: Scene, launcher: InlineLauncher
    ) -> None:
        until = scene.scratch / "until"
        asked = {"reports": "[0.5, 0.25]", "until": str(until)}
        launcher.launch(trial(0, **asked))
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(trial(0, **asked))
        self.kill(launcher)
        tracking.delete_run(row.mlflow_run_id)
        until.touch()

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert scene.begun(row).mlflow_run_id != row.mlflow_run_id
        assert history(scene, 0) == [(0, 0.5), (1, 0.25)]

    def _ended(self, scene: Scene, launcher: InlineLauncher, **asked: Any) -> Any:
        """The row of a trial whose script has ended well before it could be saved."""
        asked = {"ledger": str(scene.scratch / "ledger"), "leaves": "a", **asked}
        launcher.launch(trial(0, **asked))
        scene.end(0)
        row = scene.begun(trial(0, **asked))
        self.kill(launcher)
        return row

    @pytest.mark.parametrize("published", [True, False])
    def test_a_script_that_has_ended_well_is_not_run_again(
        self, scene: Scene, launcher: InlineLauncher, monkeypatch: pytest.MonkeyPatch,
        published: bool,
    ) -> None:  # fmt: skip
        with monkeypatch.context() as patched:
            if not published:  # it is killed at that moment
                patched.setattr(tracking, "log_files", _refused)
            row = self._ended(scene, launcher, reports="[0.5, 0.25]")

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.conclude(ended(scene.begun(row)))
        again.close()

        assert lines(scene.scratch / "ledger") == ["begins 0.0 after 0", "ends 0.0"]
        assert scene.values(0) == [0.5, 0.25]
        assert [one.attempts for one in scene.of(0) if isinstance(one, TrialStarted)] == [1]
        repository = tracking.client().repository(scene.run_of(0).info.run_id)
        assert "model/a" in {name for name, _ in tracking.files_of(repository)}
        assert not scene.trial_context().run_dir(0).finished_marker.exists()
        assert not scene.trial_context().run_dir(0).model.exists()

    def test_its_last_scalars_are_read_all_the_same(
        self, scene: Scene, launcher: InlineLauncher
    ) -> None:
        until = scene.scratch / "until"
        asked = {"until": str(until), "ledger": str(scene.scratch / "ledger")}
        launcher.launch(trial(0, **asked))
        eventually(lambda: scene.kinds(0), "it begins")
        folder = str(scene.trial_context().run_dir(0).tensorboard)
        writer = Writer(folder)
        for step, value in enumerate((0.5, 0.25)):
            writer.add_scalar("loss", value, step, wall_time=1000.0 + step)
        writer.close()
        until.touch()
        scene.end(0)
        row = scene.begun(trial(0, **asked))
        self.kill(launcher)
        kept = scene.trial_context().run_dir(0).root / "reports"
        kept.write_bytes(kept.read_bytes().splitlines(keepends=True)[0])  # the last one was lost

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert scene.values(0) == [0.5, 0.25]
        assert lines(scene.scratch / "ledger") == ["begins 0.0 after 0", "ends 0.0"]

    def test_its_last_checkpoints_are_copied(
        self, scene: Scene, launcher: InlineLauncher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(tracking, "log_files", _refused)
            row = self._ended(scene, launcher)
        copied: list[Path] = []
        monkeypatch.setattr(checkpoints, "copy", lambda folder, _: copied.append(folder))

        again = self._again(scene, row)
        assert scene.end(0) == TrialEnded(0)
        again.close()

        assert copied == [scene.trial_context().run_dir(0).checkpoints]

    def test_one_that_was_killed_on_the_way_to_its_end_keeps_its_model(
        self, scene: Scene, launcher: InlineLauncher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever stops a tuning while a model is uploaded loses no model."""
        stuck = threading.Event()
        monkeypatch.setattr(tracking, "log_files", lambda *_: stuck.wait(60))
        launcher.stop_timeout_seconds = 0.1
        asked = {"leaves": "a", "ledger": str(scene.scratch / "ledger")}
        launcher.launch(trial(0, **asked))
        run_dir = scene.trial_context().run_dir(0)
        eventually(run_dir.finished_marker.exists, "the script has ended")
        launcher.close()
        assert scene.end(0).stopped
        launcher.conclude(ended(trial(0), "KILLED"))

        assert run_dir.finished_marker.exists()
        assert (run_dir.model / "a").exists()
        stuck.set()
