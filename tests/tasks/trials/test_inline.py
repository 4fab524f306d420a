"""Trials beside their tuning, by the contract and beyond it."""

from __future__ import annotations

import errno
import json
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.summary import Writer

from infra import gpus
from infra.errors import BadInputError
from infra.mlflow import Metric, MlflowException
from registry import tracking
from registry.tunings import trial_runs
from tasks.training import training_steps
from tasks.trials import inline
from tasks.trials.base import Launcher, TrialEnded
from tasks.trials.inline import InlineLauncher
from tests.processes import eventually
from tests.tasks.trials.beside import children, history, kill, processes
from tests.tasks.trials.contract import Contract
from tests.tasks.trials.scene import Scene, ended, our_threads, trial

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inline, "_POLL_SECONDS", 0.05)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestInline(Contract):
    def make(self, scene: Scene) -> InlineLauncher:
        return InlineLauncher(scene.trial_context(), scene.events.append)

    def kill(self, launcher: Launcher) -> None:
        assert isinstance(launcher, InlineLauncher)
        kill(launcher)

    def test_nothing_runs_when_all_is_closed(self, scene: Scene, launcher: Launcher) -> None:
        before = _open_files()
        another = self.make(scene)
        for number in range(3):
            another.launch(
                trial(number, reports="[1]", until=str(scene.scratch / "never"), ignore="1")
            )
        eventually(lambda: all(scene.values(number) for number in range(3)), "they run")
        assert len(processes(scene)) >= 3

        another.close()

        assert processes(scene) == []
        eventually(lambda: _open_files() <= before, "every file is closed")

    def test_a_script_that_was_killed_has_failed(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, dies=1))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "OOMKilled"

    def test_its_model_is_kept_with_its_log(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[0.5]", leaves="a.bin,b.bin"))
        scene.end(0)
        launcher.conclude(ended(scene.begun(trial(0))))
        run_dir = scene.trial_context().run_dir(0)
        assert not run_dir.model.exists()
        launcher.close()

        repository = tracking.client().repository(scene.run_of(0).info.run_id)
        names = {name for name, _ in tracking.files_of(repository)}
        assert names == {"model/a.bin", "model/b.bin", "logs/train.log"}

    def test_a_model_that_mlflow_cannot_keep_fails_it(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0, leaves="a#b"))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "FileNameInvalid"

    def test_what_was_done_for_a_failed_one_is_removed_once_its_row_says_so(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0, leaves="a#b"))
        scene.end(0)
        run_dir = scene.trial_context().run_dir(0)
        assert run_dir.model.exists()

        launcher.conclude(ended(scene.begun(trial(0))))

        assert {path.name for path in run_dir.root.iterdir()} >= {"reports", "train.log"}
        assert not any(
            path.exists() for path in (run_dir.model, run_dir.finished_marker, run_dir.source)
        )

    @pytest.mark.parametrize(
        ("problem", "code", "told"),
        [
            (BadInputError("A requirement is wrong.", code="Wrong"), "Wrong", "A requirement"),
            (OSError(errno.ENOSPC, "No space left on device"), "DiskFull", "is full"),
            (OSError(errno.EACCES, "Permission denied"), "RunFailed", "Permission denied"),
            (KeyError("surprise"), "RunFailed", "KeyError: 'surprise'"),
        ],
    )  # fmt: skip
    def test_one_that_cannot_be_prepared_has_failed(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch,
        problem: Exception, code: str, told: str,
    ) -> None:  # fmt: skip
        def prepare(*_: Any, **__: Any) -> None:
            raise problem

        monkeypatch.setattr(training_steps, "prepare", prepare)
        launcher.launch(trial(0))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == code
        assert told in end.error.message
        assert scene.kinds(0) == ["TrialEnded"]

    def test_a_full_disk_fails_it(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(inline.Reports, "_write", full)
        launcher.launch(trial(0, reports="[0.5]", until=str(scene.scratch / "never")))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "DiskFull"
        assert processes(scene) == []

    def test_mlflow_that_makes_no_run_fails_it(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(trial_runs, "open_trial", _refused)
        launcher.prepare_next(0)
        launcher.launch(trial(0))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "MlflowFailed"
        assert scene.kinds(0) == ["TrialEnded"]

    def test_mlflow_that_does_not_take_the_model_fails_it(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tracking, "log_files", _refused)
        launcher.launch(trial(0, reports="[1]", leaves="a"))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "MlflowFailed"

    @pytest.mark.parametrize("lasts", [True, False])
    def test_on_a_machine_that_goes_its_tensorboard_logs_are_kept(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, lasts: bool
    ) -> None:
        kept: list[tuple[str, str]] = []
        monkeypatch.setattr(
            inline.tensorboard_logs, "keep",
            lambda run, folder, _: kept.append((run, folder.parent.name)),
        )  # fmt: skip
        scene.settings = scene.settings.model_copy(update={"home_lasts": lasts})
        launcher = InlineLauncher(scene.trial_context(), scene.events.append)
        launcher.launch(trial(7, reports="[1]"))
        scene.end(7)
        launcher.close()

        assert kept == ([] if lasts else [(scene.run_of(7).info.run_id, "7")])

    def test_there_may_be_no_further_thread(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: Any) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            launcher.launch(trial(0))

        end = scene.end(0)
        assert end.error is not None
        assert "new thread" in end.error.message

    def test_one_out_of_its_time_has_failed(self, scene: Scene, launcher: Launcher) -> None:
        another = InlineLauncher(scene.trial_context(max_minutes=0.001), scene.events.append)
        another._context.training.__dict__["max_minutes"] = 0.005
        another.launch(trial(0, until=str(scene.scratch / "never")))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "Timeout"
        another.close()

    def test_one_that_waits_for_a_gpu_can_be_stopped(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = f"{scene.tuning}-gpu"
        monkeypatch.setenv("TMPDIR", str(scene.scratch))
        scene.settings = scene.settings.model_copy(update={"gpus": names})
        made = InlineLauncher(
            scene.trial_context(resources={"instance_type": "gpu.t4"}), scene.events.append
        )
        made.launch(trial(0, reports="[1]", until=str(scene.scratch / "never")))
        eventually(lambda: scene.values(0), "the first has the GPU")
        made.launch(trial(1))
        queue = gpus.folder() / "queue.lock"
        eventually(queue.exists, "the second waits")

        made.stop(1)

        assert scene.end(1) == TrialEnded(1, stopped=True)
        assert scene.kinds(1) == ["TrialEnded"]
        made.close()

    def test_its_log_is_copied_whatever_became_of_it(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        logs = scene.scratch / "logs"
        made = InlineLauncher(scene.trial_context(logs={"uri": str(logs)}), scene.events.append)
        made.launch(trial(0, reports="[1]"))
        made.launch(trial(1, reports="[2]", code=1))
        scene.end(0)
        scene.end(1)
        made.close()

        assert {path.name: path.read_text() for path in logs.iterdir()} == {
            f"{scene.tuning}-0.log": "loss=1\n",
            f"{scene.tuning}-1.log": "loss=2\n",
        }

    def test_a_log_that_cannot_be_copied_fails_no_trial(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        file = scene.scratch / "file"
        file.touch()
        made = InlineLauncher(
            scene.trial_context(logs={"uri": f"{file}/logs"}), scene.events.append
        )
        made.launch(trial(0, reports="[1]"))

        assert scene.end(0) == TrialEnded(0)
        assert "The log was not copied" in scene.warnings.said[0]
        made.close()


class TestUnused:
    """MLflow runs that are made ahead."""

    def test_one_that_was_made_ahead_is_used(self, scene: Scene) -> None:
        launcher = InlineLauncher(scene.trial_context(), scene.events.append)
        launcher.prepare_next(0)
        eventually(lambda: children(scene), "it is made")
        launcher.launch(trial(0))
        scene.end(0)
        launcher.conclude(ended(scene.begun(trial(0))))
        launcher.close()

        assert list(children(scene)) == ["trial 0"]

    def test_those_that_no_trial_used_are_deleted(self, scene: Scene) -> None:
        parent = trial_runs.parent(scene.parent.run_id)
        killed = [trial_runs.open_trial(parent, number) for number in (0, 0, 5)]
        launcher = InlineLauncher(scene.trial_context(), scene.events.append)
        launcher.prepare_next(1)
        launcher.prepare_next(2)
        launcher.launch(trial(0))
        launcher.launch(trial(1))
        scene.end(0)
        scene.end(1)
        launcher.close()

        used = {scene.run_of(number).info.run_id for number in (0, 1)}
        assert killed[0] in used
        assert set(trial_runs.children(parent).values()) == used

    def test_those_of_rows_are_kept(self, scene: Scene) -> None:
        parent = trial_runs.parent(scene.parent.run_id)
        _, second = (trial_runs.open_trial(parent, 0) for _ in range(2))
        launcher = InlineLauncher(scene.trial_context(), scene.events.append)
        launcher.settle([replace(trial(0), mlflow_run_id=second)])
        launcher.close()

        assert set(trial_runs.children(parent).values()) == {second}

    def test_what_was_lost_on_its_way_is_made_again(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really = trial_runs.open_trial
        lost = iter([True])

        def open_trial(parent: Any, number: int) -> str:
            made = really(parent, number)
            if next(lost, False):
                raise MlflowException("The answer is lost.")
            return made

        monkeypatch.setattr(trial_runs, "open_trial", open_trial)
        launcher = InlineLauncher(scene.trial_context(), scene.events.append)
        launcher.prepare_next(0)
        launcher.launch(trial(0))
        assert scene.end(0) == TrialEnded(0)
        launcher.close()

        parent = trial_runs.parent(scene.parent.run_id)
        assert trial_runs.children(parent) == {0: scene.run_of(0).info.run_id}


class TestMetrics:
    @pytest.fixture
    def launcher(self, scene: Scene) -> Any:
        made = InlineLauncher(scene.trial_context(), scene.events.append)
        yield made
        made.close()

    @pytest.mark.parametrize("how", ["prints", "json", "pushes"])
    def test_each_comes_once_and_in_order(
        self, scene: Scene, launcher: Launcher, how: str
    ) -> None:
        reports = [0.5, 0.25, 0.25, 0.75]
        launcher.launch(trial(0, reports=json.dumps(reports), how=how))
        scene.end(0)
        launcher.close()

        assert scene.values(0) == reports
        steps = [10 * step for step in range(4)] if how == "json" else list(range(4))
        assert history(scene, 0) == list(zip(steps, reports, strict=True))

    def test_scalars_of_event_files(self, scene: Scene, launcher: Launcher) -> None:
        until = scene.scratch / "until"
        launcher.launch(trial(0, until=str(until)))
        eventually(lambda: scene.kinds(0), "it begins")
        writer = Writer(str(scene.trial_context().run_dir(0).tensorboard))
        for step, value in enumerate((0.5, 0.25)):
            writer.add_scalar("loss", value, step, wall_time=1000.0 + step)
            writer.add_scalar("other", value, step, wall_time=1e300)
        writer.close()
        until.touch()
        scene.end(0)
        launcher.close()

        assert scene.values(0) == [0.5, 0.25]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25)]
        assert history(scene, 0, "other") == [(0, 0.5), (1, 0.25)]

    def test_printed_first_and_pushed_as_well(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[0.5]", until=str(scene.scratch / "until")))
        eventually(lambda: scene.values(0), "it is printed")
        run_id = scene.run_of(0).info.run_id
        for step in range(5):
            tracking.client().log_batch(run_id, [Metric("loss", 0.5, 1000, step)])
        looked = _looks(launcher)
        eventually(lambda: looked() > 2, "somebody looks for more")
        (scene.scratch / "until").touch()
        scene.end(0)

        assert scene.values(0) == [0.5]

    def test_pushed_first_and_printed_as_well(self, scene: Scene, launcher: Launcher) -> None:
        until = scene.scratch / "until"
        launcher.launch(
            trial(0, reports="[0.5, 0.25]", how="pushes prints first", until=str(until))
        )
        eventually(lambda: scene.values(0), "it is found in MLflow")
        until.touch()
        scene.end(0)
        launcher.close()

        assert scene.values(0) == [0.5, 0.25]
        assert history(scene, 0) == [(0, 0.5), (1, 0.25)]

    def test_mlflow_that_does_not_answer_holds_up_no_script(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hangs, asked = threading.Event(), threading.Event()

        def history(*_: Any) -> list[float]:
            asked.set()
            hangs.wait(60)
            return []

        monkeypatch.setattr(trial_runs, "history", history)
        until = scene.scratch / "until"
        launcher.launch(trial(0, reports="[0.5, 0.25]", how="prints first", until=str(until)))
        asked.wait(30)
        until.touch()
        eventually(lambda: len(scene.values(0)) == 2, "it reports meanwhile")

        assert scene.end(0) == TrialEnded(0)
        hangs.set()

    def test_a_value_that_comes_while_mlflow_is_asked_counts_once(
        self, scene: Scene, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, printed = threading.Event(), threading.Event()

        def history(*_: Any) -> list[float]:
            asked.set()
            printed.wait(60)
            return [0.5]

        monkeypatch.setattr(trial_runs, "history", history)
        until, more = scene.scratch / "until", scene.scratch / "more"
        launcher.launch(trial(0, reports="[0.5]", how="prints first", until=str(until)))
        asked.wait(30)
        until.touch()
        eventually(lambda: scene.values(0), "it reports")
        printed.set()
        more.touch()

        scene.end(0)
        assert scene.values(0) == [0.5]


def _looks(launcher: Any) -> Any:
    """Counts how often the launcher looks for pushed metrics from now on."""
    count = [0]
    really = launcher._look_for_pushed

    def look(*given: Any) -> None:
        really(*given)
        count[0] += 1

    launcher._look_for_pushed = look
    return lambda: count[0]


def _refused(*_: Any) -> None:
    raise MlflowException("It is refused.")


def test_closing_takes_a_bounded_time_though_mlflow_is_dead(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = InlineLauncher(scene.trial_context(), scene.events.append)
    launcher.stop_timeout_seconds = 0.1
    monkeypatch.setattr(inline, "_LAST_WORDS_SECONDS", 0.2)
    dead = threading.Event()
    launcher._writer._client.log_batch = lambda *_: dead.wait(60)  # type: ignore[method-assign]
    monkeypatch.setattr(trial_runs, "open_trial", lambda *_: dead.wait(60) and "")
    launcher.prepare_next(0)
    launcher.launch(trial(0))
    launcher._writer.log_params("1", {"x": 1})
    launcher._writer.set_tags("1", {"state": "SUCCEEDED"})

    launcher.close()  # and not after MLflow's own minutes

    assert scene.end(0) == TrialEnded(0, stopped=True)
    assert "MLflow has not received" in scene.warnings.said[-1]
    dead.set()
    eventually(lambda: not our_threads(), f"{our_threads()} end")


def test_a_signal_for_the_group_of_its_processes_reaches_the_script(scene: Scene) -> None:
    launcher = InlineLauncher(scene.trial_context(), scene.events.append)
    launcher.launch(trial(0, reports="[1]", until=str(scene.scratch / "never")))
    eventually(lambda: scene.values(0), "it runs")
    for process in processes(scene):
        process.send_signal(signal.SIGTERM)

    assert scene.end(0).error is not None
    launcher.close()
