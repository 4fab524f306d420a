"""A tuning whose process is killed at random moments, again and again."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from registry import catalogue, tracking
from registry.tunings import trial_runs
from tasks.trials import rows
from tasks.trials.inline import InlineLauncher
from tasks.tuning.tuning_loop import Tuner, TuningPlan
from tests.processes import eventually, with_variable
from tests.tasks.trials.contract import lines
from tests.tasks.trials.scene import Scene
from tuning.completion import TuningLimits, TuningOutcome
from tuning.objectives import Objective
from tuning.search import Search
from tuning.space import Parameter
from tuning.trials import ACTIVE, Trial, TrialState

pytestmark = pytest.mark.integration

_SPACE = [Parameter(name="x", type="double", min=0, max=1)]
_LIMITS = TuningLimits(40, None, 3)
_KILLS = 12
_SECONDS = (0.3, 2.0)
_REPORTS = [0.9, 0.8, 0.7, 0.6]


def _search() -> Search:
    return Search(_SPACE, ["minimize"], strategy="random", seed=7)


def _tune(scene: Scene, ledger: Path) -> TuningOutcome | Any:
    """An attempt of the tuning, as its flow makes it."""
    fixed = {
        "reports": str(_REPORTS), "seconds": 0.05, "leaves": "model",
        "ledger": str(ledger),
    }  # fmt: skip
    tuner = Tuner(
        TuningPlan([Objective(metric="loss", direction="minimize")], [], lambda: _LIMITS),
        _search(),
        save=partial(rows.save, scene.tuning),
    )
    tuner.restore(rows.of(scene.tuning))
    launcher = InlineLauncher(scene.trial_context(hyperparameters=fixed), tuner.emit)
    return tuner.run(launcher, deadline=None, stop_requested=lambda: False)


def _forked(scene: Scene, ledger: Path) -> int:
    """An attempt in a process of its own, which ends with status 0 if the tuning is complete."""
    pid = os.fork()
    if pid:
        return pid
    try:
        catalogue._engine.cache_clear()  # its connections are the parent's
        ended = _tune(scene, ledger)
        os._exit(0 if ended is TuningOutcome.MAX_TRIALS_REACHED else 3)
    finally:
        os._exit(4)


def _kill(pid: int, scene: Scene, chance: random.Random, kills: collections.Counter[str]) -> bool:
    """Kill the attempt, or sometimes one of its scripts or leashes; whether it was the attempt."""
    scripts = with_variable("MODELYARD_RUN", f"{scene.tuning}@{scene.home.root}")
    if scripts and chance.random() < 0.2:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(scripts).kill()
            kills["script"] += 1
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kills["tuning"] += 1
    return True


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1])
def test_killed_at_random_no_trial_is_lost_and_none_that_has_ended_begins_again(
    scene: Scene, seed: int
) -> None:
    chance = random.Random(seed)
    ledger = scene.scratch / "ledger"
    kills: collections.Counter[str] = collections.Counter()
    ended: dict[int, tuple[TrialState, int]] = {}
    code = None
    while code is None:
        pid = _forked(scene, ledger)
        killed = False
        while kills.total() < _KILLS and not killed:
            deadline = time.monotonic() + chance.uniform(*_SECONDS)
            eventually(lambda: time.monotonic() > deadline, "its moment comes")  # noqa: B023
            killed = _kill(pid, scene, chance, kills)
        if not killed:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _note(scene, ledger, ended)
    assert code == 0
    _judge(scene, ledger, ended)
    if kills.total() < _KILLS:
        pytest.fail(f"only {kills} were killed: let it take longer")


def _note(scene: Scene, ledger: Path, ended: dict[int, tuple[TrialState, int]]) -> None:
    """Keep what has ended by now, with how often it was begun; it stays so."""
    eventually(
        lambda: not with_variable("MODELYARD_RUN", f"{scene.tuning}@{scene.home.root}"),
        "the scripts end with their tuning",
    )
    begins = _count(ledger, "begins")
    for trial in rows.of(scene.tuning):
        if trial.state not in ACTIVE and trial.state is not TrialState.KILLED:
            now = (trial.state, begins[trial.parameters["x"]])
            assert ended.setdefault(trial.number, now) == now, f"trial {trial.number} began again"


def _count(ledger: Path, word: str) -> collections.Counter[Any]:
    said = (line.split() for line in lines(ledger))
    return collections.Counter(float(words[1]) for words in said if words[0] == word)


def _judge(scene: Scene, ledger: Path, ended: dict[int, tuple[TrialState, int]]) -> None:
    found = rows.of(scene.tuning)
    search = _search()
    assert [trial.number for trial in found] == list(range(_LIMITS.max_trials or 0))
    assert [trial.parameters for trial in found] == [search.ask(one.number) for one in found]
    assert set(ended) == {trial.number for trial in found}
    begins, ends = _count(ledger, "begins"), _count(ledger, "ends")
    for trial in found:
        assert trial.state in {TrialState.SUCCEEDED, TrialState.FAILED}, trial
        assert begins[trial.parameters["x"]] <= 3, trial  # the second time may not be recorded
        if trial.state is TrialState.SUCCEEDED:
            assert ends[trial.parameters["x"]] >= 1, trial
            _judge_reports(trial, begins[trial.parameters["x"]])
        else:
            killed = trial.reason == "Its process was killed twice."
            assert killed or trial.reason.startswith(("OOMKilled", "ScriptFailed")), trial
    _judge_mlflow(scene, found)


def _judge_reports(trial: Trial, begins: int) -> None:
    """What a script had printed when its tuning was killed, and nobody had read yet, is lost."""
    rest = iter(_REPORTS)
    assert all(report in rest for report in trial.reports), trial  # in order, and none twice
    assert begins > 1 or len(trial.reports) == len(_REPORTS), trial
    assert trial.values == (min(trial.reports),), trial


def _judge_mlflow(scene: Scene, found: list[Trial]) -> None:
    """MLflow has a run for each trial, which tells of it, and no other."""
    parent = trial_runs.parent(scene.parent.run_id)
    assert trial_runs.unsettled(parent) == {}
    below = trial_runs.children(parent)
    assert below == {trial.number: trial.mlflow_run_id for trial in found if trial.mlflow_run_id}
    mlflow = tracking.client()
    for trial in found:
        if trial.mlflow_run_id is None:
            continue
        run = mlflow.get_run(trial.mlflow_run_id)
        assert run.data.tags[tracking.STATE_TAG] == trial.state
        assert run.info.status == trial_runs.status(trial.state)
        if trial.state is TrialState.SUCCEEDED:
            history = mlflow.get_metric_history(trial.mlflow_run_id, "loss")
            assert [(one.step, one.value) for one in history] == list(enumerate(trial.reports))
