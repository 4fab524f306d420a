"""``modelyard runs``: what the list shows, and what an update asks for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from flows import submission
from modelyard import main
from modelyard.commands import runs as command
from registry.runs import runs
from registry.runs.run_views import RunView
from schedules import views

Do = Callable[..., tuple[int, str]]


def _row(name: str, **more: Any) -> RunView:
    given = {
        "id": f"id-{name}", "name": name, "flow": "train", "state": "COMPLETE",
        "started": "2026-11-21T17:49:31+00:00", "seconds": 3.5, **more,
    }  # fmt: skip
    return RunView.model_validate(given)


TUNED = _row(
    "tuned", flow="tune", detail="GoalReached",
    tuning={"best": 0.123456789, "trials": {"done": 12, "running": 0, "failed": 1}},
)  # fmt: skip


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[RunView]:
    kept: list[RunView] = []
    monkeypatch.setattr(runs, "list_all", lambda flow, limit, ids: kept)
    monkeypatch.setattr(command, "connected", lambda **_: contextlib.nullcontext())
    return kept


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["modelyard", "runs", *arguments])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return raised.value.code, capsys.readouterr().out

    return run


class TestList:
    def test_a_tuning_tells_of_its_trials_and_its_best(self, do: Do, found: list[RunView]) -> None:
        found += [TUNED, _row("plain")]
        code, out = do("list")

        head, tuned, plain = (line.split() for line in out.splitlines())
        assert code == 0
        assert head == ["id", "name", "flow", "state", "started", "seconds", "trials", "best"]
        assert tuned == [
            "id-tuned", "tuned", "tune", "COMPLETE", "(GoalReached)", "2026-11-21", "17:49",
            "3.5", "12", "done,", "1", "failed", "0.123457",
        ]  # fmt: skip
        assert plain == ["id-plain", "plain", "train", "COMPLETE", "2026-11-21", "17:49", "3.5"]

    def test_what_a_run_waits_for_has_a_column_where_any_does(
        self, do: Do, found: list[RunView]
    ) -> None:
        found += [_row("plain"), _row("queued", waiting="for 8 GPUs")]
        _, out = do("list")
        head, plain, queued = out.splitlines()

        assert head.split()[-1] == "waiting"
        assert plain.split()[-1] == "3.5"
        assert queued.rstrip().endswith("for 8 GPUs")

    def test_a_long_wait_is_cut_and_json_has_it_whole(self, do: Do, found: list[RunView]) -> None:
        found.append(_row("queued", waiting="for " + "very " * 100 + "long"))
        _, shown = do("list")
        _, whole = do("list", "--json")

        assert shown.rstrip().endswith("very ...")
        assert len(shown.splitlines()) == 2
        assert "very long" in whole

    def test_without_a_tuning_there_are_no_such_columns(
        self, do: Do, found: list[RunView]
    ) -> None:
        found.append(_row("plain", started=None))
        _, out = do("list")

        assert out.split()[:6] == ["id", "name", "flow", "state", "started", "seconds"]
        assert "trials" not in out

    def test_one_that_has_no_best_yet(self, do: Do, found: list[RunView]) -> None:
        none = {"done": 0, "running": 0, "failed": 0}
        found.append(_row("tuned", flow="tune", tuning={"best": None, "trials": none}))
        _, out = do("list")

        assert "None" not in out
        assert "0 done" not in out

    def test_those_of_a_schedule(self, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(runs, "list_all", lambda *given: asked.append(given) or [])
        monkeypatch.setattr(views, "runs_of", lambda *given: list(map(str, given)))

        do("list", "--schedule", "nightly", "-n", "7")
        do("list", "--flow", "train")
        assert asked == [(None, 7, ["nightly", "7"]), ("train", 50, None)]

    def test_programs_get_the_rows_as_they_are(self, do: Do, found: list[RunView]) -> None:
        found += [TUNED, _row("plain")]
        _, out = do("list", "--json")

        assert json.loads(out) == [
            {
                "id": "id-tuned", "name": "tuned", "flow": "tune", "state": "COMPLETE",
                "detail": "GoalReached", "created": None, "started": "2026-11-21T17:49:31+00:00",
                "ended": None, "seconds": 3.5, "best": 0.123456789,
                "trials": {"done": 12, "running": 0, "failed": 1},
            },
            {
                "id": "id-plain", "name": "plain", "flow": "train", "state": "COMPLETE",
                "detail": "", "created": None, "started": "2026-11-21T17:49:31+00:00",
                "ended": None, "seconds": 3.5,
            },
        ]  # fmt: skip


class TestUpdate:
    @pytest.fixture(autouse=True)
    def _asked(self, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        monkeypatch.setattr(
            submission, "update", lambda *given: self.asked.append(given) or {"did": 1}
        )

    @pytest.mark.parametrize(
        ("arguments", "asked"),
        [
            (["--name", "n"], ("r", "n", None, {})),
            (["--description", ""], ("r", None, "", {})),
            (
                ["-p", "max_trials=9", "-p", "parallel_trials=2"],
                ("r", None, None, {"max_trials": 9, "parallel_trials": 2}),
            ),
            (["-p", "max_failed_trials=null"], ("r", None, None, {"max_failed_trials": None})),
            (["--name", "n", "-p", "max_trials=9"], ("r", "n", None, {"max_trials": 9})),
        ],
    )
    def test_what_it_asks_for(self, do: Do, arguments: list[str], asked: tuple[Any, ...]) -> None:
        assert do("update", "r", *arguments, "--json") == (0, '{"did": 1}\n')
        assert self.asked == [asked]

    @pytest.mark.parametrize("arguments", [[], ["-p", "nonsense"]])
    def test_what_it_refuses(self, do: Do, arguments: list[str]) -> None:
        code, out = do("update", "r", *arguments, "--json")

        assert code != 0
        assert json.loads(out)["error"]["hint"]
        assert self.asked == []
