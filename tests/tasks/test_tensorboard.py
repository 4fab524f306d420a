from __future__ import annotations

import os
import time
from pathlib import Path

from infra import run_lock
from infra.home import Home
from tasks import tensorboard
from tasks.training import Workplace

_DAY = 86400


def _logs(home: Home, run: str, age_days: float = 0) -> Path:
    folder = Workplace(home.runs / run).tensorboard
    (folder / "train").mkdir(parents=True)
    file = folder / "train" / "events.out.tfevents.1"
    file.touch()
    when = time.time() - age_days * _DAY
    for path in (file, file.parent, folder):
        os.utime(path, (when, when))
    return folder


class TestLink:
    def test_runs_are_shown_by_name(self, home: Home, tmp_path: Path) -> None:
        first, second = _logs(home, "id-1"), _logs(home, "id-2")
        view = tmp_path / "view"
        runs = [
            {"id": "id-1", "name": "a"},
            {"id": "id-2", "name": "b/c"},
            {"id": "x", "name": "x"},
        ]

        assert tensorboard.link(view, runs, home) == 2
        assert {path.name: path.readlink() for path in view.iterdir()} == {
            "a": first,
            "b_c": second,
        }

    def test_two_of_one_name_are_told_apart(self, home: Home, tmp_path: Path) -> None:
        _logs(home, "id-1")
        _logs(home, "id-2")
        runs = [{"id": "id-1", "name": "a"}, {"id": "id-2", "name": "a"}]

        assert tensorboard.link(tmp_path / "view", runs, home) == 2
        assert {path.name for path in (tmp_path / "view").iterdir()} == {"a", "a id-2"}

    def test_a_run_that_has_written_nothing_does_not_count(
        self, home: Home, tmp_path: Path
    ) -> None:
        Workplace(home.runs / "id-1").tensorboard.mkdir(parents=True)

        assert tensorboard.link(tmp_path / "view", [{"id": "id-1", "name": "a"}], home) == 0
        assert (tmp_path / "view" / "a").exists()  # it may yet write

    def test_again_it_follows_the_runs(self, home: Home, tmp_path: Path) -> None:
        _logs(home, "id-1")
        second = _logs(home, "id-2")
        view = tmp_path / "view"
        tensorboard.link(view, [{"id": "id-1", "name": "a"}, {"id": "id-2", "name": "b"}], home)

        tensorboard.link(view, [{"id": "id-2", "name": "a"}], home)

        assert {path.name: path.readlink() for path in view.iterdir()} == {"a": second}


class TestForget:
    def test_only_what_is_old_goes(self, home: Home) -> None:
        old, new = _logs(home, "old", 121), _logs(home, "new", 119)

        assert tensorboard.forget(home, 120) == 1
        assert not old.exists()
        assert old.parent.exists()
        assert new.exists()

    def test_one_new_file_keeps_all(self, home: Home) -> None:
        old = _logs(home, "old", 121)
        (old / "train" / "events.out.tfevents.2").touch()

        assert tensorboard.forget(home, 120) == 0
        assert old.exists()

    def test_a_run_that_goes_on_keeps_its_own(self, home: Home) -> None:
        old = _logs(home, "old", 121)
        with run_lock.scope():
            run_lock.take(home, "old")
            assert tensorboard.forget(home, 120) == 0
        assert old.exists()
        assert tensorboard.forget(home, 120) == 1

    def test_an_empty_home(self, home: Home, tmp_path: Path) -> None:
        assert tensorboard.forget(home, 120) == 0
        assert tensorboard.forget(Home(tmp_path / "none"), 120) == 0
