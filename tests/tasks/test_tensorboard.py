from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from infra import run_lock
from infra.home import Home
from registry.runs.run_views import RunView
from registry.runs.tensorboard_logs import Fetched
from registry.tunings import trials
from tasks import tensorboard
from tasks.run_directory import RunDirectory

_DAY = 86400
_HERE = Fetched(Path("/nowhere"))


def _logs(home: Home, run: str, age_days: float = 0) -> Path:
    folder = RunDirectory(home.runs / run).tensorboard
    (folder / "train").mkdir(parents=True)
    file = folder / "train" / "events.out.tfevents.1"
    file.touch()
    when = time.time() - age_days * _DAY
    for path in (file, file.parent, folder):
        os.utime(path, (when, when))
    return folder


def _run(run: str, name: str, flow: str = "train", *, final: bool = False) -> RunView:
    state = "COMPLETE" if final else "RUNNING"
    return RunView(id=run, name=name, flow=flow, state=state, is_final=final)


def _trial(number: int, run: str | None, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "flow_run_id": run, "state": "RUNNING", "mlflow_run_id": None, **more,
    }  # fmt: skip


def _shown(view: Path) -> dict[str, Path]:
    """The links of a view; a folder in it without any would be missed."""
    assert all(any(path.iterdir()) for path in view.iterdir() if not path.is_symlink())
    links = (path for path in view.rglob("*") if path.is_symlink())
    return {str(path.relative_to(view)): path.readlink() for path in links}


class TestLink:
    def test_runs_are_shown_by_name(self, home: Home, tmp_path: Path) -> None:
        first, second = _logs(home, "id-1"), _logs(home, "id-2")
        view = tmp_path / "view"
        runs = [_run("id-1", "a"), _run("id-2", "b/c"), _run("x", "x")]

        assert tensorboard.link_logs(view, runs, home, single=False, fetched=_HERE) == 2
        assert _shown(view) == {"a": first, "b_c": second}

    def test_two_of_one_name_are_told_apart(self, home: Home, tmp_path: Path) -> None:
        _logs(home, "id-1")
        _logs(home, "id-2")
        runs = [_run("id-1", "a"), _run("id-2", "a")]

        assert (
            tensorboard.link_logs(tmp_path / "view", runs, home, single=False, fetched=_HERE) == 2
        )
        assert {path.name for path in (tmp_path / "view").iterdir()} == {"a", "a id-2"}

    def test_a_run_that_has_written_nothing_does_not_count(
        self, home: Home, tmp_path: Path
    ) -> None:
        RunDirectory(home.runs / "id-1").tensorboard.mkdir(parents=True)

        assert (
            tensorboard.link_logs(
                tmp_path / "view", [_run("id-1", "a")], home, single=True, fetched=_HERE
            )
            == 0
        )
        assert (tmp_path / "view" / "a").exists()  # it may yet write

    def test_again_it_follows_the_runs(self, home: Home, tmp_path: Path) -> None:
        _logs(home, "id-1")
        second = _logs(home, "id-2")
        view = tmp_path / "view"
        both = [_run("id-1", "a"), _run("id-2", "b")]
        tensorboard.link_logs(view, both, home, single=False, fetched=_HERE)

        tensorboard.link_logs(view, [_run("id-2", "a")], home, single=False, fetched=_HERE)

        assert _shown(view) == {"a": second}


class _Elsewhere(Fetched):
    """Has the logs of these runs, and notes which it is asked for."""

    def __init__(self, root: Path, *there: str) -> None:
        super().__init__(root)
        self.asked: list[tuple[str, str | None]] = []
        for run in there:
            (root / run).mkdir(parents=True)
            (root / run / "events.out.tfevents.1").touch()

    def folder(self, flow_run_id: str, mlflow_run_id: str | None = None) -> Path:
        self.asked.append((flow_run_id, mlflow_run_id))
        return self._root / flow_run_id


class TestElsewhere:
    """Runs whose folder went with their pod."""

    def test_one_that_has_ended_is_fetched(self, home: Home, tmp_path: Path) -> None:
        here = _logs(home, "id-2")
        (home.runs / "id-3").mkdir()  # it was run here, and its logs were forgotten
        fetched = _Elsewhere(tmp_path / "fetched", "id-1")
        runs = [
            *(_run(run, run, final=True) for run in ("id-1", "id-2", "id-3", "id-5")),
            _run("id-4", "id-4"),
        ]

        assert (
            tensorboard.link_logs(tmp_path / "v", runs, home, single=False, fetched=fetched) == 2
        )
        assert _shown(tmp_path / "v") == {"id-1": tmp_path / "fetched" / "id-1", "id-2": here}
        assert fetched.asked == [("id-1", None), ("id-5", None)]

    def test_so_are_a_tunings_trials(
        self, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [
            _trial(0, "pool-0", state="SUCCEEDED", mlflow_run_id="m0"),
            _trial(1, None, state="FAILED", mlflow_run_id="m1"),
            _trial(2, "pool-2", state="RUNNING", mlflow_run_id="m2"),
            _trial(3, "pool-3", state="FAILED"),
        ]
        monkeypatch.setattr(trials, "outline", {"t": rows}.__getitem__)
        fetched = _Elsewhere(tmp_path / "fetched", "pool-0", "t-1")
        run = _run("t", "a", "tune")

        assert (
            tensorboard.link_logs(tmp_path / "v", [run], home, single=True, fetched=fetched) == 2
        )
        assert set(_shown(tmp_path / "v")) == {"trial 0", "trial 1"}
        assert fetched.asked == [("pool-0", "m0"), ("t-1", "m1")]


class TestTuning:
    @pytest.fixture(autouse=True)
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
        """Trials of tunings: two beside tuning t, one in a pool."""
        found = {
            "t": [
                _trial(number, run)
                for number, run in ((0, None), (7, None), (8, "pool-1"), (9, None))
            ],
            "u": [_trial(0, None)],
        }
        monkeypatch.setattr(trials, "outline", found.__getitem__)
        return found

    def logs(self, home: Home) -> dict[str, Path]:
        return {
            "trial 0": _logs(home, "t/trials/0"),
            "trial 7": _logs(home, "t/trials/7"),
            "trial 8": _logs(home, "pool-1"),
        }

    def test_its_trials_are_shown_by_number(self, home: Home, tmp_path: Path) -> None:
        logs = self.logs(home)
        view = tmp_path / "view"

        assert (
            tensorboard.link_logs(view, [_run("t", "a", "tune")], home, single=True, fetched=_HERE)
            == 3
        )
        assert _shown(view) == logs

    def test_among_others_they_are_below_its_name(self, home: Home, tmp_path: Path) -> None:
        logs = self.logs(home)
        training, other = _logs(home, "id-1"), _logs(home, "u/trials/0")
        view = tmp_path / "view"
        runs = [
            _run("id-1", "a/b"), _run("t", "a/b", "tune"), _run("u", "c/d", "tune"),
        ]  # fmt: skip

        assert tensorboard.link_logs(view, runs, home, single=False, fetched=_HERE) == 5
        assert _shown(view) == {
            "a_b": training, "c_d/trial 0": other, **{f"a_b t/{n}": at for n, at in logs.items()},
        }  # fmt: skip

    def test_again_it_follows_the_trials(
        self, home: Home, tmp_path: Path, rows: dict[str, list[dict[str, Any]]]
    ) -> None:
        logs = self.logs(home)
        view = tmp_path / "view"
        tensorboard.link_logs(view, [_run("t", "a", "tune")], home, single=False, fetched=_HERE)
        late = _logs(home, "t/trials/9")
        rows["t"] = rows["t"][1:]

        tensorboard.link_logs(view, [_run("t", "a", "tune")], home, single=False, fetched=_HERE)

        assert _shown(view) == {
            "a/trial 7": logs["trial 7"], "a/trial 8": logs["trial 8"], "a/trial 9": late,
        }  # fmt: skip

    def test_a_name_may_pass_from_a_tuning_to_a_run_and_back(
        self, home: Home, tmp_path: Path
    ) -> None:
        self.logs(home)
        _logs(home, "id-1")
        view = tmp_path / "view"
        for flow, run, links in (("tune", "t", 3), ("train", "id-1", 1), ("tune", "t", 3)):
            tensorboard.link_logs(view, [_run(run, "a", flow)], home, single=False, fetched=_HERE)
            assert len(_shown(view)) == links

    def test_without_logs_nothing_is_shown(self, home: Home, tmp_path: Path) -> None:
        view = tmp_path / "view"

        assert (
            tensorboard.link_logs(
                view, [_run("t", "a", "tune")], home, single=False, fetched=_HERE
            )
            == 0
        )
        assert _shown(view) == {}


def _nobody(_: str) -> None:
    """No flow run is a trial."""


class TestForget:
    def test_only_what_is_old_goes(self, home: Home) -> None:
        old, new = _logs(home, "old", 121), _logs(home, "new", 119)

        assert tensorboard.prune(home, 120, _nobody) == 1
        assert not old.exists()
        assert old.parent.exists()
        assert new.exists()

    def test_one_new_file_keeps_all(self, home: Home) -> None:
        old = _logs(home, "old", 121)
        (old / "train" / "events.out.tfevents.2").touch()

        assert tensorboard.prune(home, 120, _nobody) == 0
        assert old.exists()

    def test_a_run_that_goes_on_keeps_its_own(self, home: Home) -> None:
        old = _logs(home, "old", 121)
        with run_lock.scope():
            run_lock.acquire(home, "old")
            assert tensorboard.prune(home, 120, _nobody) == 0
        assert old.exists()
        assert tensorboard.prune(home, 120, _nobody) == 1

    def test_an_empty_home(self, home: Home, tmp_path: Path) -> None:
        assert tensorboard.prune(home, 120, _nobody) == 0
        assert tensorboard.prune(Home(tmp_path / "none"), 120, _nobody) == 0

    def test_of_a_tuning_all_go_together(self, home: Home) -> None:
        first, last = _logs(home, "t/trials/0", 130), _logs(home, "t/trials/1", 119)

        assert tensorboard.prune(home, 120, _nobody) == 0
        assert tensorboard.prune(home, 118, _nobody) == 1
        assert not first.exists()
        assert not last.exists()

    def test_a_tuning_that_goes_on_keeps_those_of_its_trials(self, home: Home) -> None:
        beside, in_pool = _logs(home, "t/trials/0", 121), _logs(home, "pool-1", 121)
        another = _logs(home, "pool-2", 121)

        def owner(run: str) -> tuple[str, int] | None:
            return {"pool-1": ("t", 1), "pool-2": ("u", 1)}.get(run)

        with run_lock.scope():
            run_lock.acquire(home, "t")
            assert tensorboard.prune(home, 120, owner) == 1
        assert beside.exists()
        assert in_pool.exists()
        assert not another.exists()
        assert tensorboard.prune(home, 120, owner) == 2

    def test_whose_trial_a_run_is_is_asked_only_where_it_matters(self, home: Home) -> None:
        asked: list[str] = []
        _logs(home, "new", 1)
        _logs(home, "old", 121)

        tensorboard.prune(home, 120, asked.append)

        assert asked == ["old"]
