"""``modelyard schedule`` and ``modelyard apply``: what each verb asks for, and how it answers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import scheduling
from modelyard import main, times
from modelyard.commands import schedule as command
from schedules import metrics, verbs, views
from schedules.views import ScheduleDetailView, ScheduleView, SlotView

Do = Callable[..., tuple[int, str]]
NOTHING = {"trigger": None, "policy": None, "parameters": None}
SLOT = {
    "slot": "2027-01-15T09:00:00Z", "kind": "scheduled", "fate": "skipped", "reason": "NotLatest",
    "run": None, "state": None, "decided": "2027-01-15T12:00:00Z", "decided_by": "somebody",
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked for, in order; each answers with a small mapping."""
    calls: list[tuple[Any, ...]] = []

    def record(verb: str) -> Callable[..., dict[str, Any]]:
        def asked(*args: Any, **kwargs: Any) -> dict[str, Any]:
            calls.append((verb, *args, kwargs) if kwargs else (verb, *args))
            return {"did": verb}

        return asked

    for module, verbs_ in (
        (scheduling, ("create", "update", "copy", "apply", "show")),
        (verbs, ("start", "stop", "trigger_now", "backfill", "delete")),
        (views, ("list_all",)),
    ):
        for verb in verbs_:
            monkeypatch.setattr(module, verb, record(verb))
    monkeypatch.setattr(command, "connected", contextlib.nullcontext)
    return calls


@pytest.fixture
def do(
    asked: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Do:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return raised.value.code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (
            ["create", "s", "train", "--cron", "@daily", "--timezone", "Asia/Seoul", "--start",
             "2027-01-01", "--end", "2028-01-01", "--policy", "max_concurrency=2", "--policy",
             "catchup=false", "-p", "a.b=1", "--description", "d", "--stopped"],
            ("create", "s", "train", {
                "cron": "@daily", "interval_seconds": None, "timezone": "Asia/Seoul",
                "start": "2027-01-01", "end": "2028-01-01", "description": "d", "enabled": False,
                "policy": {"max_concurrency": 2, "catchup": False}, "parameters": {"a": {"b": 1}},
            }),
        ),
        (
            ["create", "s", "a/b", "--interval", "60"],
            ("create", "s", "a/b", {
                "cron": None, "interval_seconds": 60, "timezone": None, "start": None,
                "end": None, "description": "", "enabled": True, "policy": {}, "parameters": {},
            }),
        ),
        (["list"], ("list_all", {"deleted": False})),
        (["list", "--deleted"], ("list_all", {"deleted": True})),
        (["show", "s", "-n", "3", "--last", "4"], ("show", "s", {"following": 3, "last": 4})),
        (
            ["update", "s", "--end", "", "--interval", "1h30m"],
            ("update", "s", {
                **NOTHING, "new_name": None, "description": None, "deployment": None,
                "trigger": {"end": "", "interval_seconds": 5400},
            }),
        ),
        (
            ["update", "s", "--name", "t", "--description", "", "--deployment", "tune",
             "--policy", "grace=", "-p", "a=", "-p", "b=2"],
            ("update", "s", {
                **NOTHING, "new_name": "t", "description": "", "deployment": "tune",
                "policy": {"grace": None}, "parameters": {"a": None, "b": 2},
            }),
        ),
        (["start", "s"], ("start", "s")),
        (["stop", "s"], ("stop", "s")),
        (
            ["copy", "s", "t"],
            ("copy", "s", "t", {
                **NOTHING, "description": None, "deployment": None, "enabled": None,
            }),
        ),
        (
            ["copy", "s", "t", "--cron", "@daily", "-p", "a=1", "--description", "d",
             "--deployment", "tune", "--stopped"],
            ("copy", "s", "t", {
                **NOTHING, "description": "d", "trigger": {"cron": "@daily"},
                "parameters": {"a": 1}, "deployment": "tune", "enabled": False,
            }),
        ),
        (["trigger", "s"], ("trigger_now", "s")),
        (["backfill", "s", "--start", "a", "--end", "b"], ("backfill", "s", "a", "b")),
        (["delete", "s"], ("delete", "s")),
    ],
)  # fmt: skip
def test_verbs(arguments: list[str], call: Any, do: Do, asked: list[Any]) -> None:
    code, out = do("schedule", *arguments, "--json")

    assert code == 0
    assert asked == [call]
    assert json.loads(out) == {"did": call[0]}


NIGHTLY = {
    "name": "s", "state": "ENABLED", "detail": "", "deployment": "train", "when": "0 2 * * *",
    "timezone": "Asia/Seoul", "trigger": {"cron": "0 2 * * *"},
    "next_slot": "2027-01-15T17:00:00Z",
}  # fmt: skip
EVERY = {**NIGHTLY, "when": "every 10s", "trigger": {"interval_seconds": 10}}
OF_NIGHTLY = "train, 0 2 * * * (Asia/Seoul)."
NEXT = f"Next run: {times.local('2027-01-15T17:00:00Z')}"
DISABLED = "It is disabled. Start it: modelyard schedule start s"


@pytest.mark.parametrize(
    ("arguments", "view", "first", "second"),
    [
        (["create", "s", "train", "--cron", "0 2 * * *"], {}, f"Created s: {OF_NIGHTLY}", NEXT),
        (["start", "s"], EVERY, "Started s: train, every 10s.", NEXT),
        (["update", "s", "--policy", "grace=1"], {}, f"Changed s: {OF_NIGHTLY}", NEXT),
        (
            ["copy", "r", "s", "--stopped"], {"state": "CREATE REQUESTED", "next_slot": None},
            f"Copied to s: {OF_NIGHTLY}", DISABLED,
        ),
        (
            ["stop", "s"], {"state": "DISABLED", "next_slot": None},
            "Stopped s; its active runs continue.", DISABLED,
        ),
        (
            ["update", "s", "--end", "2027-01-01"], {"detail": "EXPIRED", "next_slot": None},
            f"Changed s: {OF_NIGHTLY}", "ENABLED (EXPIRED)",
        ),
    ],
)  # fmt: skip
def test_people_read_what_was_done_and_when_it_runs_next(
    arguments: list[str], view: dict[str, Any], first: str, second: str, do: Do,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shown = ScheduleDetailView.model_construct(**{**NIGHTLY, **view})
    for module in (scheduling, verbs):
        monkeypatch.setattr(module, arguments[0], lambda *_, **__: shown, raising=False)
    code, out = do("schedule", *arguments)

    assert code == 0
    assert out.splitlines() == [first, second, "See it: modelyard schedule show s"]


@pytest.mark.parametrize(
    ("backlog", "lines"),
    [
        ((2, "2027-01-15T17:00:00Z"), ["2 missed slots run first (catchup: all).", NEXT]),
        ((1, None), ["1 missed slot runs first (catchup: all)."]),
        ((0, "2027-01-15T17:00:00Z"), [NEXT]),
    ],
)
def test_people_read_of_missed_slots_rather_than_a_time_of_the_past(
    backlog: tuple[int, str | None], lines: list[str], do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = {**EVERY, "id": "i", "policy": {"catchup": "all"}, "next_slot": "2020-01-15T17:00:00Z"}
    shown = ScheduleDetailView.model_construct(**late)
    monkeypatch.setattr(verbs, "start", lambda _: shown)
    monkeypatch.setattr(views, "backlog", lambda _: backlog)
    _, out = do("schedule", "start", "s")

    assert out.splitlines()[1:-1] == lines


@pytest.mark.parametrize("arguments", [("trigger",), ("backfill", "--start", "a", "--end", "b")])
def test_people_read_where_the_runs_of_requested_slots_are(
    arguments: tuple[str, ...], do: Do
) -> None:
    verb, *options = arguments
    _, out = do("schedule", verb, "a b", *options)

    assert out.splitlines()[-1] == "Its runs: modelyard schedule slots 'a b'"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create", "s"], "Usage"),
        (["create", "s", "train", "--interval", "often"], "Usage"),
        (["update", "s", "--interval", "1 day"], "Usage"),
        (["preview", "--interval", "-5"], "IntervalInvalid"),
        (["create", "s", "train", "-p", "a"], "BadInput"),
        (["create", "s", "train", "--policy", "a"], "BadInput"),
        (["update", "s"], "BadInput"),
        (["show", "s", "--last", "-1"], "Usage"),
        (["slots", "s", "--fate", "lost"], "FateUnknown"),
        (["backfill", "s", "--start", "a"], "Usage"),
        (["preview"], "TriggerMissing"),
        (["preview", "--cron", "@daily", "--end", "2020-01-01"], "TriggerNeverFires"),
        (["preview", "--cron", "60 * * * * *"], "CronValueOutOfRange"),
        (["preview", "--cron", "@daily", "--after", "soon"], "TimeInvalid"),
        (["delete"], "Usage"),
    ],
)
def test_what_is_refused_asks_nothing(
    arguments: list[str], error: str, do: Do, asked: list[Any]
) -> None:
    code, out = do("schedule", *arguments, "--json")

    assert code != 0
    assert json.loads(out)["error"]["code"] == error
    assert asked == []


@pytest.mark.parametrize("verb", [["update", "s"], ["copy", "s", "t"]])
@pytest.mark.parametrize(("deployment", "read"), [("train", "2026"), ("sync/mine", 2026)])
def test_parameters_are_read_as_the_flow_of_the_schedule_has_them(
    verb: list[str], deployment: str, read: Any, do: Do, asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(views, "show", lambda _: SimpleNamespace(deployment=deployment))

    assert do("schedule", *verb, "-p", "name=2026", "--json")[0] == 0
    assert asked[0][-1]["parameters"] == {"name": read}


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--interval", "1.5"], "--interval"),
        (["--policy", "catchup"], "--policy key=value"),
        (["-p", "a"], "-p key=value"),
    ],
)
@pytest.mark.parametrize("verb", [["create", "s", "train"], ["update", "s"], ["copy", "s", "t"]])
def test_the_option_is_named(verb: list[str], arguments: list[str], option: str, do: Do) -> None:
    _, out = do("schedule", *verb, *arguments, "--json")

    error = json.loads(out)["error"]
    assert option in f"{error['message']} {error['hint']}"


EXPIRED = {"name": "s", "state": "ENABLED", "detail": "EXPIRED"}


@pytest.mark.parametrize("verb", ["list", "show"])
def test_people_read_a_state_in_one_place(
    verb: str, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = ScheduleView.model_construct(**EXPIRED)
    monkeypatch.setattr(views, "list_all", lambda **_: [expired])
    monkeypatch.setattr(scheduling, "show", lambda *_, **__: expired)
    words = [verb] if verb == "list" else [verb, "s"]

    _, out = do("schedule", *words)
    assert "ENABLED (EXPIRED)" in out
    assert out.count("EXPIRED") == 1
    _, out = do("schedule", *words, "--json")
    found = json.loads(out)
    assert (found[0] if verb == "list" else found) == EXPIRED


class TestSlots:
    @pytest.fixture(autouse=True)
    def _kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        many = {**SLOT, "until": "2027-01-15T10:00:00Z", "count": 61, "reason": "OutsideWindow"}
        both = [SlotView.model_validate(one) for one in (SLOT, many)]
        monkeypatch.setattr(
            scheduling, "slots_of", lambda name, last, fate: both[:last] if name == "s" else []
        )

    def test_people_get_a_table(self, do: Do) -> None:
        _, out = do("schedule", "slots", "s")

        head, one, many = out.splitlines()
        assert head.split() == ["slot", "kind", "fate", "reason", "run", "state", "decided"]
        first, last, decided = (
            times.local(f"2027-01-15T{hour}:00:00Z") for hour in ("09", "10", "12")
        )
        assert " ".join(one.split()) == f"{first} scheduled skipped NotLatest {decided}"
        assert f"{first} to {last}, 61 slots" in many

    def test_of_one_schedule_they_have_the_same_columns_and_local_times(
        self, do: Do, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slots = scheduling.slots_of("s", last=2, fate=None)
        found = ScheduleDetailView.model_construct(
            name="s", state="ENABLED", detail="", slots=slots, next=["2027-01-16T09:00:00Z"],
            scheduler={"holder": "vm:1", "token": 1, "seconds": 6.0},
        )  # fmt: skip
        monkeypatch.setattr(scheduling, "show", lambda *_, **__: found)
        _, out = do("schedule", "show", "s")

        lines = [line.split() for line in out.splitlines()]
        local = times.local("2027-01-15T09:00:00Z")
        assert ["slot", "kind", "fate", "reason", "decided"] in lines
        assert f"  {local} to {times.local('2027-01-15T10:00:00Z')}, 61 slots" in out
        assert times.local("2027-01-16T09:00:00Z").split() in lines
        assert "holder" not in out
        assert "holder" in do("schedule", "show", "s", "--json")[1]

    def test_programs_get_the_rows(self, do: Do) -> None:
        _, out = do("schedule", "slots", "s", "--last", "1", "--json")
        assert json.loads(out) == [SLOT]

    def test_none(self, do: Do) -> None:
        assert do("schedule", "slots", "t") == (0, "None.\n")


def test_metrics_are_printed_as_they_are(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "text", lambda: 'a{b="[c]"} 1\n')
    assert do("schedule", "metrics") == (0, 'a{b="[c]"} 1\n')


def test_preview(do: Do) -> None:
    _, out = do("schedule", "preview", "--cron", "30 9 * * *", "--after", "2027-01-01", "-n", "2")

    notice, *slots = out.splitlines()
    assert "minute first" in notice or "five" in notice.lower()
    assert slots == [times.local(f"2027-01-0{day}T09:30:00Z") for day in (1, 2)]
    of_interval = ("--interval", "1h30m", "--start", "2027-01-01", "--after", "2027-01-01")
    _, out = do("schedule", "preview", *of_interval, "-n", "2")
    expected = ["2027-01-01T01:30:00Z", "2027-01-01T03:00:00Z"]
    assert out.splitlines() == list(map(times.local, expected))


@pytest.mark.parametrize(
    "command",
    [
        ("show", "s", "--next", "1000000000"), ("slots", "s", "--last", "1000000000"),
        ("preview", "--interval", "1", "-n", "1000000000"), ("show", "s", "--next", "-1"),
    ],
)  # fmt: skip
def test_no_answer_is_endless(command: tuple[str, ...], do: Do, asked: list[Any]) -> None:
    code, out = do("schedule", *command, "--json")

    assert code != 0
    assert "or equal to" in json.loads(out)["error"]["message"]
    assert asked == []


class TestApply:
    def test_a_file(self, do: Do, asked: list[Any], tmp_path: Path) -> None:
        file = tmp_path / "nightly.yaml"
        file.write_text("schedules:\n- name: a\n  rate: 1e-4\n")
        code, out = do("apply", str(file), "--adopt", "--json")

        assert (code, json.loads(out)) == (0, {"did": "apply"})
        document = {"schedules": [{"name": "a", "rate": 1e-4}]}
        assert asked == [("apply", document, str(file), {"adopt": True})]

    def test_its_paths_are_relative_to_it(
        self, do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(scheduling, "apply", lambda *_, **__: {"in": str(Path.cwd())})
        (tmp_path / "f.yaml").write_text("schedules: []")
        _, out = do("apply", str(tmp_path / "f.yaml"), "--json")

        assert json.loads(out) == {"in": str(tmp_path)}
        assert Path.cwd() != tmp_path

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            (None, "FileMissing"), ("- a", "BadInput"), ("a: [", "BadInput"),
            ("a: 1\na: 2", "BadInput"), ("cron: * * * * *", "BadInput"),
            ("[" * 5000, "BadInput"),
        ],
    )  # fmt: skip
    def test_files_that_cannot_be_read(
        self, text: str | None, error: str, do: Do, asked: list[Any], tmp_path: Path
    ) -> None:
        file = tmp_path / "f.yaml"
        if text is not None:
            file.write_text(text)
        code, out = do("apply", str(file), "--json")

        assert code != 0
        assert json.loads(out)["error"]["code"] == error
        assert asked == []

    def test_one_that_is_no_mapping_is_told_what_it_should_hold(
        self, do: Do, tmp_path: Path
    ) -> None:
        (tmp_path / "f.yaml").write_text("- name: a")
        _, out = do("apply", str(tmp_path / "f.yaml"), "--json")

        assert "not a mapping of schedules" in json.loads(out)["error"]["message"]

    def test_people_read_what_was_done(
        self, do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        told = {"set": "f.yaml", "created": ["a", "b"], "changed": [], "unchanged": ["c"]}
        monkeypatch.setattr(scheduling, "apply", lambda *_, **__: told)
        (tmp_path / "f.yaml").write_text("schedules: []")
        _, out = do("apply", str(tmp_path / "f.yaml"))

        assert out.splitlines() == ["set: f.yaml", "created", "  a", "  b", "unchanged", "  c"]


def test_every_verb_has_help() -> None:
    _, text = main._VERBS["schedule"]
    named = {verb.strip(" .") for verb in text.partition(":")[2].split(",")}

    assert named == {
        verb.name or verb.callback.__name__  # type: ignore[union-attr]
        for verb in command.app.registered_commands
    }
