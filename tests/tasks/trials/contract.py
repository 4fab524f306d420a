"""The contract of everything that runs trials."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import tracking
from registry.tunings import trial_runs
from tasks.trials.base import Launcher, MetricReported, TrialEnded, TrialStarted
from tests.processes import eventually
from tests.tasks.trials.scene import Scene, ended, our_threads, trial
from tuning.trials import Trial


class Contract:
    """What every way to run trials keeps."""

    @pytest.fixture
    def launcher(self, scene: Scene) -> Iterator[Launcher]:
        """A launcher for the scene, which is closed at the end."""
        made = self.make(scene)
        yield made
        made.close()
        assert our_threads() == set()

    def make(self, scene: Scene) -> Launcher:
        """Another attempt of the same tuning."""
        raise NotImplementedError

    def kill(self, launcher: Launcher) -> None:
        """Leave all as it is when the process of the tuning is killed."""
        raise NotImplementedError

    def test_a_trials_events_come_in_order(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[0.5, 0.25, 0.75]"))

        assert scene.end(0) == TrialEnded(0)
        began, *reports, _ = scene.of(0)
        assert isinstance(began, TrialStarted)
        assert reports == [MetricReported(0, "loss", value) for value in (0.5, 0.25, 0.75)]

    def test_of_several_each_has_its_own(self, scene: Scene, launcher: Launcher) -> None:
        for number in range(4):
            launcher.launch(trial(number, reports=f"[{number}, {number + 1}]"))

        for number in range(4):
            assert scene.end(number) == TrialEnded(number)
            assert scene.kinds(number) == [
                "TrialStarted",
                "MetricReported",
                "MetricReported",
                "TrialEnded",
            ]
            assert scene.values(number) == [number, number + 1]
        assert len({scene.run_of(number).info.run_id for number in range(4)}) == 4

    def test_what_is_no_number_is_told_as_it_was(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[NaN, Infinity, 1, -Infinity]"))

        scene.end(0)
        assert repr(scene.values(0)) == "[nan, inf, 1.0, -inf]"

    def test_one_that_reports_nothing_ends_well(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0))

        assert scene.end(0) == TrialEnded(0)
        assert scene.kinds(0) == ["TrialStarted", "TrialEnded"]

    def test_one_that_fails_says_why(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[0.5]", code=3))

        end = scene.end(0)
        assert end.error is not None
        assert end.error.code == "ScriptFailed"
        assert "exit code 3" in end.error.message
        assert not end.stopped
        assert scene.values(0) == [0.5]

    def test_one_that_is_stopped_has_ended(self, scene: Scene, launcher: Launcher) -> None:
        launcher.launch(trial(0, reports="[0.5]", until=str(scene.scratch / "never")))
        eventually(lambda: scene.values(0), "it reports")

        launcher.stop(0)

        assert scene.end(0) == TrialEnded(0, stopped=True)

    def test_one_that_is_stopped_before_it_has_begun(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0, until=str(scene.scratch / "never")))
        launcher.stop(0)

        assert scene.end(0) == TrialEnded(0, stopped=True)

    def test_a_stop_of_one_that_has_ended_or_never_was_is_no_matter(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0))
        scene.end(0)

        launcher.stop(0)
        launcher.stop(7)

        assert [type(one) for one in scene.events].count(TrialEnded) == 1

    def test_closing_ends_all_and_each_once(self, scene: Scene, launcher: Launcher) -> None:
        for number in range(3):
            launcher.launch(trial(number, until=str(scene.scratch / "never")))
        launcher.launch(trial(3))
        eventually(lambda: scene.kinds(0), "the first begins")

        launcher.close()
        launcher.close()

        assert [scene.end(number) for number in range(3)] == [
            TrialEnded(number, stopped=True) for number in range(3)
        ]
        assert scene.kinds(3).count("TrialEnded") == 1
        assert our_threads() == set()

    @pytest.mark.parametrize(
        "state", ["SUCCEEDED", "EARLY_STOPPED", "KILLED", "FAILED", "METRICS_UNAVAILABLE"]
    )
    def test_what_became_of_it_is_in_mlflow(
        self, scene: Scene, launcher: Launcher, state: str
    ) -> None:
        launcher.launch(trial(0, reports="[0.5]"))
        scene.end(0)

        launcher.conclude(ended(scene.begun(trial(0)), state, reason="Because."))
        launcher.close()

        run = scene.run_of(0)
        assert run.data.tags[tracking.STATE_TAG] == state
        assert run.data.tags[tracking.REASON_TAG] == "Because."
        assert run.data.metrics == {"loss": 0.5}
        assert run.data.params["x"] == "0.0"
        assert run.info.status != "RUNNING"

    def _killed(self, scene: Scene, launcher: Launcher, first: Trial) -> Trial:
        """The row of a trial that runs when its tuning is killed after two reports."""
        launcher.launch(first)
        eventually(lambda: len(scene.values(first.number)) == 2, "it reports")
        row = scene.begun(first)
        self.kill(launcher)
        scene.events.clear()
        return row

    def test_one_of_a_killed_tuning_goes_on_where_it_was(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        until = scene.scratch / "until"
        asked = {"reports": "[0.5, 0.25]", "until": str(until)}
        row = self._killed(scene, launcher, trial(0, **asked))

        again = self.make(scene)
        again.settle([row])
        again.launch(row, again=True)
        until.touch()

        assert scene.end(0) == TrialEnded(0)
        assert scene.kinds(0) == ["TrialStarted", "MetricReported", "MetricReported", "TrialEnded"]
        assert scene.values(0) == [0.5, 0.25]
        assert scene.begun(row).mlflow_run_id == row.mlflow_run_id
        again.close()
        parent = trial_runs.parent(scene.parent.run_id)
        assert trial_runs.children(parent) == {0: row.mlflow_run_id}

    def test_one_that_was_begun_and_not_recorded_goes_on_as_well(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        until = scene.scratch / "until"
        created = trial(0, reports="[0.5, 0.25]", until=str(until))
        row = self._killed(scene, launcher, created)

        again = self.make(scene)
        again.settle([created])
        again.launch(created, again=True)
        until.touch()

        assert scene.end(0) == TrialEnded(0)
        assert scene.values(0) == [0.5, 0.25]
        assert scene.begun(created).mlflow_run_id == row.mlflow_run_id
        again.close()

    def test_one_that_was_stopped_goes_on_in_the_next_attempt(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        until = scene.scratch / "until"
        created = trial(0, reports="[0.5, 0.25]", until=str(until))
        launcher.launch(created)
        eventually(lambda: len(scene.values(0)) == 2, "it reports")
        row = scene.begun(created)
        launcher.close()
        assert scene.end(0).stopped
        scene.events.clear()

        again = self.make(scene)
        again.settle([row])
        again.launch(row, again=True)
        until.touch()

        assert scene.end(0) == TrialEnded(0)
        assert scene.values(0) == [0.5, 0.25]
        again.close()

    def test_the_end_of_a_trial_that_only_its_row_tells_of_is_written(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0, reports="[0.5]"))
        scene.end(0)
        row = ended(scene.begun(trial(0)))
        self.kill(launcher)

        again = self.make(scene)
        again.settle([row])
        again.close()

        status, state = scene.status(0)
        assert (status, state) == ("FINISHED", "SUCCEEDED")

    def test_an_end_that_is_written_is_not_written_again(
        self, scene: Scene, launcher: Launcher
    ) -> None:
        launcher.launch(trial(0))
        scene.end(0)
        row = ended(scene.begun(trial(0)))
        launcher.conclude(row)
        launcher.close()
        tracking.client().set_tag(row.mlflow_run_id, tracking.STATE_TAG, "as it was")

        again = self.make(scene)
        again.settle([row])
        again.close()

        assert scene.status(0)[1] == "as it was"


def lines(path: Path) -> list[str]:
    """What a script has written down."""
    return path.read_text().splitlines() if path.exists() else []
