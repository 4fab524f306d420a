"""The tuner where it is interrupted, and where launchers are late."""

from __future__ import annotations

import threading

import pytest

from tasks.trials.base import MetricReported, TrialEnded, TrialStarted
from tasks.tuning.tuning_loop import Interruption, Tuner
from tests.tasks.tuning.test_tuning_loop import FAILED, LOSS, Points, Scene, Scripted, _row
from tuning.completion import TuningLimits, TuningOutcome
from tuning.early_stopping import EarlyStopping
from tuning.objectives import Objective


class Interrupt(BaseException):
    """A signal's, at any moment."""


@pytest.fixture
def scene():
    return Scene()


def _run(tuner, launcher, stop=lambda: False):
    return tuner.run(launcher, deadline=None, stop_requested=stop)


class TestAttempts:
    """How often a trial was begun, and which one is given up."""

    def _restored(self, scene, *rows, limits=TuningLimits(9, None, 1)):  # noqa: B008
        tuner = scene.tuner(limits)
        tuner.restore(rows)
        return tuner

    def test_each_begin_counts_once(self, scene):
        rows = [_row(0, "RUNNING", started=1.0)]
        for _ in range(3):  # killed before it begins again, and again
            tuner = self._restored(scene, *rows)
            rows = [scene.rows[0]]
            assert (rows[0].state, rows[0].attempts) == ("CREATED", 1)

        scene.points = Points(0)
        tuner = self._restored(scene, *rows)
        assert _run(tuner, Scripted(tuner)) is TuningOutcome.SUGGESTION_END_REACHED
        assert scene.rows[0].attempts == 2

    def test_a_stop_before_it_begins_again_does_not_count(self, scene):
        tuner = self._restored(scene, _row(0, "KILLED", started=1.0, attempts=3, ended=2.0))
        assert _run(tuner, Scripted(tuner), stop=lambda: True) is Interruption.STOPPED
        assert (scene.rows[0].state, scene.rows[0].attempts) == ("KILLED", 3)

    def test_what_is_stopped_may_be_begun_any_number_of_times(self, scene):
        tuner = self._restored(
            scene, _row(0, "KILLED", started=1.0, attempts=9), limits=TuningLimits(1, None, 1)
        )
        _run(tuner, Scripted(tuner))
        assert (scene.rows[0].state, scene.rows[0].attempts) == ("SUCCEEDED", 10)

    def test_a_launcher_may_know_better(self, scene):
        class Knows(Scripted):
            def launch(self, trial, *, again=False):
                self.active.add(trial.number)
                for attempts in (1, 2):
                    self.tuner.emit(TrialStarted(trial.number, "m", "f", attempts))
                self.tuner.emit(MetricReported(trial.number, "loss", 0.5))
                self._end(TrialEnded(trial.number))

        tuner = self._restored(
            scene,
            _row(0, "RUNNING", started=1.0, flow_run_id="f"),
            limits=TuningLimits(1, None, 1),
        )
        _run(tuner, Knows(tuner))
        assert (scene.rows[0].attempts, scene.rows[0].flow_run_id) == (2, "f")

    def test_one_that_is_given_up_is_concluded_by_the_launcher(self, scene):
        tuner = self._restored(scene, _row(0, "RUNNING", started=1.0, attempts=2, losses=1))
        launcher = Scripted(tuner)
        _run(tuner, launcher, stop=lambda: True)
        (known,) = launcher.settled
        assert (known.state, known.ended is not None) == ("FAILED", True)


class TestInterrupted:
    """A signal raises an exception anywhere in the thread that decides."""

    @pytest.mark.parametrize("at", ["save", "saved", "tell", "on_change", "conclude"])
    @pytest.mark.parametrize("end", [None, FAILED])
    def test_the_end_of_a_trial_is_not_lost(self, scene, at, end):
        fired = []

        def fire(name, trial):
            done = getattr(trial, "ended", None) is not None
            if name == at and done and not fired:
                fired.append(trial)
                raise Interrupt

        class Told(Points):
            def tell(self, trial):
                fire("tell", trial)
                super().tell(trial)

        class Concludes(Scripted):
            def conclude(self, trial):
                fire("conclude", trial)
                super().conclude(trial)

        def save(trial):
            fire("save", trial)
            scene.rows.save(trial)
            fire("saved", trial)

        tuner = Tuner(
            scene.tuner(TuningLimits(4, None, 1))._plan, Told(), save=save,
            on_change=lambda trial: fire("on_change", trial),
        )  # fmt: skip
        launcher = Concludes(tuner, end=lambda _: end)
        with pytest.raises(Interrupt):
            _run(tuner, launcher)

        state = "FAILED" if end else "SUCCEEDED"
        assert fired
        assert [trial.state for trial in scene.rows.values()] == [state]
        assert scene.rows[0].reports == (0.5,)
        assert [trial.state for trial in launcher.concluded] == [state]
        assert launcher.closed

    def test_the_others_are_stopped_and_saved(self, scene):
        class Concludes(Scripted):
            def conclude(self, trial):
                super().conclude(trial)
                if len(self.concluded) == 1:
                    raise Interrupt

        tuner = scene.tuner(TuningLimits(9, None, 3))
        launcher = Concludes(tuner, runs={0, 1})
        with pytest.raises(Interrupt):
            _run(tuner, launcher)

        assert set(scene.states()) == {"SUCCEEDED", "KILLED"}
        assert not launcher.active


class TestLateLaunchers:
    def test_what_comes_after_a_trials_end_is_passed_over(self, scene):
        class Chatty(Scripted):
            def _end(self, finished):
                super()._end(finished)
                self.tuner.emit(MetricReported(finished.number, "loss", 0.0))
                self.tuner.emit(TrialStarted(finished.number, "another"))
                self.tuner.emit(TrialEnded(finished.number, FAILED))

        tuner = scene.tuner(TuningLimits(3, None, 1))
        assert _run(tuner, Chatty(tuner)) is TuningOutcome.MAX_TRIALS_REACHED
        assert scene.states() == ["SUCCEEDED"] * 3
        assert scene.rows[0].values == (0.5,)
        assert scene.rows[0].mlflow_run_id == "mlflow 0"

    def test_one_that_does_not_end_is_not_waited_for_long(self, scene):
        class Stuck(Scripted):
            def stop(self, number):
                self.stopped.append(number)

            def close(self):
                self.closed = True
                for number in list(self.active):
                    self._end(TrialEnded(number, stopped=True))

            def conclude(self, trial):
                self.concluded.append(trial)

        tuner = scene.tuner(TuningLimits(3, None, 2))
        launcher = Stuck(tuner, runs={0, 1})
        launcher.stop_timeout_seconds = 0.0
        begun = iter([False] * 4)
        assert _run(tuner, launcher, stop=lambda: next(begun, True)) is Interruption.STOPPED
        assert scene.states() == ["KILLED", "KILLED"]

    def test_what_runs_at_the_goal_is_stopped_and_waited_for(self, scene):
        """However long its model takes: its end is worth having."""
        goal = Objective(metric="loss", direction="minimize", goal=0.1)

        class Slow(Scripted):
            def stop(self, number):
                self.stopped.append(number)
                threading.Timer(0.1, self._end, [TrialEnded(number)]).start()

        tuner = scene.tuner(TuningLimits(9, None, 2), objectives=(goal,))
        launcher = Slow(tuner, runs={0}, reports=lambda trial: [0.1 if trial.number == 1 else 0.5])
        launcher.stop_timeout_seconds = 0.0
        assert _run(tuner, launcher) is TuningOutcome.GOAL_REACHED
        assert launcher.stopped == [0]
        assert scene.states() == ["SUCCEEDED", "SUCCEEDED"]

    def test_events_come_before_the_next_point_is_sought(self, scene):
        """A search can take its time: a hopeless trial is not left running meanwhile."""

        class Asks(Points):
            def ask(self, number):
                asked.append((number, list(launcher.stopped)))
                return super().ask(number)

        asked = []
        scene.points = Asks()
        rule = EarlyStopping(min_trials=1, start_step=1).make("minimize")
        tuner = scene.tuner(TuningLimits(4, None, 2), rule=rule)
        launcher = Scripted(
            tuner, runs={1}, reports=lambda trial: [0.9 if trial.number == 1 else 0.5]
        )
        _run(tuner, launcher)
        assert asked[2] == (2, [1])


def test_a_point_at_a_time_follows_a_limit_that_sinks(scene):
    limits = [TuningLimits(9, None, 5)]
    tuner = scene.tuner(lambda: limits[0])

    class Sinks(Scripted):
        def launch(self, trial, *, again=False):
            super().launch(trial, again=again)
            limits[0] = TuningLimits(9, None, 2)

    launcher = Sinks(tuner, runs=range(9))
    begun = iter([False] * 5)
    _run(tuner, launcher, stop=lambda: next(begun, True))
    assert launcher.most_active == 2


def test_no_trial_more_than_the_maximum_though_several_were_killed(scene):
    tuner = scene.tuner(TuningLimits(3, None, 3))
    tuner.restore([_row(number, "KILLED", started=1.0) for number in range(5)])
    launcher = Scripted(tuner)
    assert _run(tuner, launcher) is TuningOutcome.MAX_TRIALS_REACHED
    assert max(one.number for one in launcher.launched) < 5
    assert all(trial.state != "CREATED" for trial in tuner.trials.values())


def test_the_reports_of_an_earlier_attempt_are_judged_once(scene):
    rule = EarlyStopping(min_trials=1, start_step=2).make("minimize")
    tuner = scene.tuner(TuningLimits(2, None, 1), objectives=(LOSS,), rule=rule)
    tuner.restore([
        _row(0, "SUCCEEDED", values=(0.5,), reports=(0.5, 0.5)),
        _row(1, "RUNNING", started=1.0),
    ])  # fmt: skip
    launcher = Scripted(tuner, runs={1}, reports=lambda _: [0.4, 0.9, 0.9])
    later = iter([False] * 3)

    def stop():
        if next(later, None) is None and 1 in launcher.active:
            launcher.release(1)
        return False

    _run(tuner, launcher, stop=stop)
    assert tuner.trials[1].state == "SUCCEEDED"
