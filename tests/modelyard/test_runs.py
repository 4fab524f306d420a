"""``modelyard runs``: what the list shows, and what an update asks for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import submission
from modelyard import main, output, run_watch
from modelyard.api import verbs
from modelyard.commands import runs as command
from registry import experiments
from registry.runs import run_comparison, runs
from registry.runs.run_comparison import ComparedRunView, RunComparisonView
from registry.runs.run_filters import RunGroup
from registry.runs.run_views import RunOutcomeView, RunView
from registry.schedules import scheduled_runs
from tasks import run_logs

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
    monkeypatch.setattr(runs, "list_all", lambda flow, limit, ids, **filters: kept)
    for module in (command, verbs):
        monkeypatch.setattr(module, "connected", lambda **_: contextlib.nullcontext())
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
            "id-tuned", "tuned", "tune", "COMPLETE", "(GoalReached)", "2026-11-21", "17:49:31",
            "UTC", "3.5", "12", "done,", "1", "failed", "0.123457",
        ]  # fmt: skip
        assert plain[4:] == ["2026-11-21", "17:49:31", "UTC", "3.5"]

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

    @pytest.fixture
    def asked(self, found: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What the registry was asked for: the positional arguments, and the filters."""
        asked: list[Any] = []
        monkeypatch.setattr(
            runs, "list_all", lambda *given, **filters: asked.append((given, filters)) or []
        )
        for module in (scheduled_runs, experiments):
            monkeypatch.setattr(module, "group", lambda name: RunGroup((name,)))
        return asked

    def test_those_of_a_schedule(self, do: Do, asked: list[Any]) -> None:
        do("list", "--schedule", "nightly", "-n", "7")
        do("list", "--flow", "train")

        none = {"states": (), "name": "", "tags": (), "since": None}
        assert asked == [
            ((None, 7, [RunGroup(("nightly",))]), none), (("train", 50, []), none),
        ]  # fmt: skip

    def test_filters_are_asked_of_the_registry(self, do: Do, asked: list[Any]) -> None:
        do("list", "--state", "fail train", "--state", "STOPPED", "--name", "dig",
           "--tag", "a", "--tag", "b", "--since", "2026-01-02T00:00:00Z")  # fmt: skip
        do("list", "--experiment", "first")
        do("list", "--experiment", "first", "--schedule", "nightly", "-n", "7")

        assert asked[0] == ((None, 50, []), {
            "states": ["fail train", "STOPPED"], "name": "dig", "tags": ["a", "b"],
            "since": datetime(2026, 1, 2, tzinfo=UTC),
        })  # fmt: skip
        assert asked[1][0][2] == [RunGroup(("first",))]
        assert asked[2][0][2] == [RunGroup(("nightly",)), RunGroup(("first",))]

    def test_a_time_that_is_none_is_refused(self, do: Do, asked: list[Any]) -> None:
        code, out = do("list", "--since", "soon", "--json")

        assert (code, json.loads(out)["error"]["code"], asked) == (1, "TimeInvalid", [])

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


class TestLogs:
    @pytest.fixture(autouse=True)
    def _lines(self, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "find", lambda key: f"id-{key}")
        monkeypatch.setattr(run_logs, "read", lambda key: iter(["[bold]", f"{key} :x:"]))
        monkeypatch.setattr(run_logs, "follow", lambda key: iter(["new", key]))

    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            ([], "[bold]\nid-r :x:\n"),
            (["-f"], "new\nid-r\n"),
            (["--json"], '["[bold]", "id-r :x:"]\n'),
            (["--follow", "--json"], '{"line": "new"}\n{"line": "id-r"}\n'),
        ],
    )
    def test_lines_are_printed_as_they_are(
        self, do: Do, arguments: list[str], printed: str
    ) -> None:
        assert do("logs", "r", *arguments) == (0, printed)

    def test_ctrl_c_is_status_130(self, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_: str) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(run_logs, "follow", interrupted)

        assert do("logs", "r", "-f") == (130, "")


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", 0), ("FAIL TRAIN", 1), ("STOPPED", 1)])
def test_watch_is_done_only_if_the_run_is_complete(
    do: Do, found: Any, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    def watch(run: str, *, quiet: bool, log: bool) -> RunOutcomeView:
        assert (run, quiet, log) == ("id", True, False)
        return RunOutcomeView(
            flow_run_id=run, state=state, detail="", message="", result=None, links={}
        )

    monkeypatch.setattr(runs, "find", lambda _: "id")
    monkeypatch.setattr(run_watch, "watch", watch)
    code, out = do("watch", "r", "--json")

    assert (code, json.loads(out)["state"]) == (status, state)


class TestCompare:
    @pytest.fixture(autouse=True)
    def _compared(self, found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        sides = [
            ComparedRunView(
                id=f"id-{name}", name=name, flow="train", state="COMPLETE", started=None,
                seconds=75.0, mlflow_run_id=None,
            )
            for name in ("first", "second")
        ]  # fmt: skip
        self.view = RunComparisonView(
            runs=sides,
            parameters={
                "algorithm": ["cnn", "mlp"], "hyperparameters.epochs": [3, None],
            },
            metrics={"loss": [0.5, 1]},
        )  # fmt: skip
        monkeypatch.setattr(run_comparison, "compare", lambda keys: self.view)
        monkeypatch.setattr(run_comparison, "curves", lambda _: {"loss": [[(0, 1.0)], []]})

    def test_a_letter_stands_for_a_run(self, do: Do) -> None:
        code, out = do("compare", "first", "second")

        assert code == 0
        assert [line.split() for line in out.splitlines() if line] == [
            ["id", "name", "state", "duration"],
            ["A", "id-first", "first", "COMPLETE", "1", "min", "15", "s"],
            ["B", "id-second", "second", "COMPLETE", "1", "min", "15", "s"],
            ["parameter", "A", "B"], ["hyperparameters.epochs", "3"],
            ["metric", "A", "B"], ["loss", "0.5", "1"],
            ["parameter", "A", "B"], ["algorithm", "cnn", "mlp"],
        ]  # fmt: skip

    def test_it_fits_a_narrow_terminal(self, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
        self.view = self.view.model_copy(update={"parameters": {"data": ["x" * 90, "y" * 90]}})
        terminal = Console(force_terminal=True, color_system=None, width=80, soft_wrap=True)
        for module in (output, command):
            monkeypatch.setattr(module, "console", terminal)
        _, out = do("compare", "first", "second")

        assert max(map(len, out.splitlines())) <= 80

    def test_where_nothing_differs_it_says_so(self, do: Do) -> None:
        self.view = self.view.model_copy(update={"parameters": {}, "metrics": {}})
        _, out = do("compare", "first", "second")

        assert out.splitlines()[-3:] == ["No parameter differs.", "", "No metrics."]

    @pytest.mark.parametrize(("name", "begin"), [("p.svg", b"<?xml"), ("p.PNG", b"\x89PNG")])
    def test_curves_are_drawn_to_a_file(
        self, do: Do, tmp_path: Path, name: str, begin: bytes
    ) -> None:
        code, out = do("compare", "first", "second", "--plot", str(tmp_path / name), "--json")
        told = json.loads(out)

        assert (code, told["plot"]) == (0, str(tmp_path / name))
        assert list(told) == ["runs", "parameters", "metrics", "plot"]
        assert (tmp_path / name).read_bytes().startswith(begin)

    @pytest.mark.parametrize(
        ("name", "error"),
        [("p.gif", "PlotInvalid"), ("p", "PlotInvalid"), ("none/p.svg", "FileNotWritable"),
         ("folder.svg", "FileNotWritable")],
    )  # fmt: skip
    def test_a_file_that_cannot_be_is_refused(
        self, do: Do, tmp_path: Path, name: str, error: str
    ) -> None:
        (tmp_path / "folder.svg").mkdir()
        code, out = do("compare", "a", "b", "--plot", str(tmp_path / name), "--json")

        assert (code, json.loads(out)["error"]["code"]) == (1, error)
