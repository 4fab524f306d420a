from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import catalogue
from infra.errors import BadInputError
from infra.stack import parts
from modelyard import main, output


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON value that was printed."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Do = Callable[..., Done]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Do:
    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        with pytest.raises(SystemExit) as raised:
            main.main()
        assert isinstance(raised.value.code, int)
        return Done(raised.value.code, *capsys.readouterr())

    return run


def test_help_lists_every_verb(do: Do) -> None:
    done = do("--help")

    unwrapped = re.sub(r"\n {6,}", " ", done.out)
    listed = re.findall(r"^  (\w+)  +(.+)$", unwrapped, re.MULTILINE)
    assert done.code == 0
    assert [verb for verb, _ in listed] == list(main._VERBS)
    assert all(text.endswith(".") for _, text in listed)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def test_the_help_of_every_command_fits_80_columns(
    do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands: list[tuple[str, ...]] = [()]
    for verb in main._VERBS:
        commands += _commands(main.cli.get_command(None, verb), (verb,))
    flows = [(verb, flow) for verb in ("run", "call") for flow in catalogue.names()]

    wide = {}
    for command in [*commands, *flows]:
        done = do(*command, "--help")
        assert done.code == 0
        if lines := [line for line in done.out.splitlines() if len(line) > 80]:
            wide[command] = lines
    assert wide == {}


def test_it_tells_its_version(do: Do) -> None:
    told = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    version = told["project"]["version"]

    assert do("--version").out.strip() == version
    assert do("--version", "--json").value == {"version": version}


def test_without_a_verb_it_shows_the_help_once(do: Do) -> None:
    done = do()

    assert (done.out + done.err).count("Usage") == 1
    assert "  up " in done.out + done.err


@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_every_verb_has_help_and_json(do: Do, verb: str) -> None:
    done = do(verb, "--help")

    assert done.code == 0
    assert f"modelyard {verb}" in done.out
    assert "--json" in done.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere",),
        ("status", "--nowhere"),
        ("status", "extra"),
        ("--nowhere",),
        ("status", "-n"),
        ("notify", "add", "a", "--on", "odd"),
    ],
)
def test_what_it_does_not_know_is_a_usage_error(do: Do, arguments: tuple[str, ...]) -> None:
    done = do(*arguments)

    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Usage ")
    assert "Value error" not in done.err
    assert "--help" in done.err


@pytest.mark.parametrize(
    "arguments", [("nowhere",), ("status", "--nowhere"), ("status", "-n", "many"), ()]
)
def test_a_usage_error_is_one_json_object(do: Do, arguments: tuple[str, ...]) -> None:
    done = do(*arguments, "--json")

    assert done.code == 2
    assert done.err == ""
    assert done.value["error"]["code"] == "Usage"


def test_status_of_nothing_is_a_failure(do: Do) -> None:
    assert do("status").code == 1
    done = do("status", "--json")
    assert done.code == 1
    assert done.value == {"running": False, "ready": False, "parts": [], "links": {}}


def test_down_of_nothing_is_done(do: Do) -> None:
    done = do("down", "--json")

    assert done.code == 0
    assert done.value == {"running": False, "was_running": False}


def test_a_log_that_is_not_there_is_an_error(do: Do) -> None:
    done = do("status", "--logs", "nowhere", "--json")

    assert done.code == 1
    assert "nowhere" in done.value["error"]["message"]


def test_the_end_of_a_log_is_shown(do: Do, monkeypatch: pytest.MonkeyPatch, home: Any) -> None:
    (home.logs / "worker.log").write_text("one\ntwo [bold]\nthree\n")

    assert do("status", "--logs", "worker", "-n", "2").out == "two [bold]\nthree\n"
    assert do("status", "--logs", "worker", "-n", "2", "--json").value == ["two [bold]", "three"]


def test_a_setting_that_does_not_parse_is_an_error(
    do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_PREFECT_PORT", "many")

    done = do("status", "--json")

    assert done.code == 1
    assert done.value["error"]["code"] == "BadInput"
    assert done.value["error"]["message"].startswith("MODELYARD_PREFECT_PORT: ")
    assert "MODELYARD_PREFECT_PORT" in done.value["error"]["hint"]


def test_ctrl_c_is_status_130(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.cli, "main", interrupted)

    assert do("status").code == 130


class TestOutput:
    def test_rows_are_a_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = [{"name": "a", "n": 1, "more": 2}, {"name": "b", "n": None}]

        output.rows(found, ("name", "n"), as_json_=False)

        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines == [["name", "n"], ["a", "1"], ["b"]]

    def test_rows_show_names_as_they_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        names = ["[draft] one", "[bold]two[/bold]", "[/] three"]

        output.rows([{"name": name} for name in names], ("name",), as_json_=False)

        shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
        assert shown == ["name", *names]

    def test_rows_as_json_are_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = [{"name": "a", "more": {"b": [1]}}]

        output.rows(found, ("name",), as_json_=True)

        assert json.loads(capsys.readouterr().out) == found

    def test_no_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.rows([], ("name",), as_json_=False)
        assert capsys.readouterr().out == "None.\n"
        output.rows([], ("name",), as_json_=True)
        assert capsys.readouterr().out == "[]\n"

    def test_a_thing_is_its_fields(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = {
            "name": "[draft]", "empty": None, "none": [], "zero": 0,
            "links": {"a": "http://x"}, "list": ["[b]"],
        }  # fmt: skip

        output.thing(found, as_json_=False)

        assert capsys.readouterr().out.splitlines() == [
            "name: [draft]", "zero: 0", "links", "  a: http://x", "list", "  [b]",
        ]  # fmt: skip

    def test_a_thing_as_json_is_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.thing({"name": "a", "empty": None, "path": Path("/x")}, as_json_=True)

        assert json.loads(capsys.readouterr().out) == {"name": "a", "empty": None, "path": "/x"}

    def test_an_error_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.error(BadInputError("[bold] is wrong.", "Mend it.", code="Odd"), as_json_=False)

        out, err = capsys.readouterr()
        assert out == ""
        assert err == "Odd [bold] is wrong.\nMend it.\n"

    def test_an_error_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.error(BadInputError("Wrong.", "Mend it.", code="Odd"), as_json_=True)

        out, err = capsys.readouterr()
        assert err == ""
        assert json.loads(out) == {
            "error": {"code": "Odd", "message": "Wrong.", "hint": "Mend it."}
        }

    def test_json_has_no_nan(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            output.as_json({"loss": float("nan")})


def test_an_error_names_the_settings_that_the_stack_was_started_without(
    do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = do("status", "--logs", "none", "--json").value["error"]
    monkeypatch.setenv("MODELYARD_UNHEEDED", "MODELYARD_NAS")
    found = do("status", "--logs", "none", "--json").value["error"]

    assert found["hint"].startswith(plain["hint"])
    assert "started without MODELYARD_NAS" in found["hint"]
    assert "modelyard down" in found["hint"]
    assert "modelyard down" not in plain["hint"]


def test_what_the_fork_server_runs_is_imported_before_it_forks() -> None:
    """Each run and each command would take the seconds of what is missing."""
    flows = {entrypoint.partition(":")[0] for entrypoint in catalogue.FLOWS.values()}
    commands = {main._VERBS[verb][0] for verb in main._FORKED}

    assert flows | commands <= set(parts._OF_RUNS)


def test_verbs_that_import_prefect_run_in_the_fork_server() -> None:
    """But those that go on in the caller's process, and those that read the code anew."""
    may = main._FORKED | {"call", "deploy", "demo", "serve"}
    light = sorted({module for verb, (module, _) in main._VERBS.items() if verb not in may})
    script = f"import sys, {', '.join(light)}; sys.exit('prefect' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script]).returncode == 0, light
