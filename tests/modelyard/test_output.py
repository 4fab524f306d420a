"""How the command answers people."""

import time

import pytest
from rich.console import Console

from infra.errors import NotFoundError
from modelyard import output


@pytest.fixture
def terminal(monkeypatch):
    console = Console(
        force_terminal=True, color_system=None, width=80, highlight=False, soft_wrap=True
    )
    monkeypatch.setattr(output, "console", console)


RUN = {
    "id": "4d85f16e-bf12-49ba-bd11-6ba7d2a3d977",
    "name": "digits",
    "state": "COMPLETE (SuggestionEndReached)",
    "started": "2026-11-21 17:49:31 UTC",
    "trials": "12 done, 2 running, 1 failed",
}


def test_a_row_is_a_line_however_narrow_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr(output.console, "_width", 60)
    monkeypatch.setattr(output.console, "_height", 25)

    output.rows([RUN], list(RUN), as_json_=False)
    output.thing({"result": {"trials": [RUN]}}, as_json_=False)

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if all(value in line for value in RUN.values())] == [
        lines[1], lines[-1],
    ]  # fmt: skip


@pytest.mark.usefixtures("terminal")
def test_a_list_on_a_narrow_terminal_leaves_out_what_the_name_finds(capsys):
    long = {
        **RUN, "name": "digits of a long name", "note": "y" * 90, "nothing": "",
        "source_uri": "s3://lake/" + "x" * 80,
    }  # fmt: skip

    output.rows([long], list(long), as_json_=False)

    printed = capsys.readouterr()
    head, row = [line.rstrip() for line in printed.out.splitlines()]
    told, _, _ = printed.err.partition(" (--json")
    assert told == "Columns left out: id, source_uri"
    assert len(row) <= 80
    assert long["name"] in row
    assert "…" in row
    assert not {"id", "source_uri", "nothing"} & set(head.split())


TRIAL = {
    "number": 10, "state": "EARLY_STOPPED", "value": 0.9756, "mlflow_run_id": "a" * 32,
    "parameters": {"learning_rate": 0.0280944, "hidden": 14, "activation": "logistic"},
    "attempts": 1,
}  # fmt: skip


@pytest.mark.usefixtures("terminal")
def test_a_table_in_a_block_is_as_wide_as_the_terminal(capsys):
    output.thing({"result": {"trials": [TRIAL, {**TRIAL, "parameters": {}}]}}, as_json_=False)

    _, _, head, *rows = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert head.split() == ["number", "state", "value", "parameters", "attempts"]
    assert len(rows) == 3  # the first one's parameters take two lines
    assert rows[1].split() == ["activation=logistic"]
    assert max(map(len, rows)) <= 80


@pytest.mark.usefixtures("terminal")
def test_a_table_in_a_block_breaks_no_word(capsys):
    pod = {"rank": 0, "machine": "m" * 30, "pod": "p" * 40, "started": "2026-01-02T03:04:05Z"}
    deed = {"at": "2026-01-02T03:04:05Z", "verb": "create", "detail": f"version=1, run={'a' * 36}"}

    output.thing({"nodes": [pod], "history": [deed]}, as_json_=False)

    shown = capsys.readouterr().out
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[1:3] == ["  - rank: 0", f"    machine: {'m' * 30}"]  # no table would fit
    assert f"run={'a' * 36}" in shown
    assert max(map(len, lines)) <= 80


def test_an_error_is_wrapped_at_words_on_a_terminal(monkeypatch, capsys):
    problem = NotFoundError("It is not there. " * 6, "Look:\n  a  b\n" + "/" + "x" * 90)
    output.error(problem, as_json_=False)
    plain = capsys.readouterr().err
    terminal = Console(
        stderr=True, force_terminal=True, color_system=None, width=80, highlight=False,
        soft_wrap=True,
    )  # fmt: skip
    monkeypatch.setattr(output, "_errors", terminal)
    output.error(problem, as_json_=False)

    lines = capsys.readouterr().err.splitlines()
    assert len(lines[0]) <= 80
    assert lines[0].startswith("NotFound It is not there. ")
    assert lines[-3:] == ["Look:", "  a  b", "/" + "x" * 90]
    assert " ".join(plain.split()) == " ".join(" ".join(lines).split())


def test_a_list_of_things_is_a_table_wherever_it_stands(capsys):
    found = [{"slot": "09:00", "reason": "", "detail": {"a": 1}}, {"slot": "[x]", "until": 5}]

    output.thing({"slots": found, "words": ["a"]}, as_json_=False)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["slots"], ["slot", "detail", "until"], ["09:00", "a=1"], ["[x]", "5"], ["words"], ["a"],
    ]  # fmt: skip


def test_what_is_nested_in_a_cell_is_in_brackets(capsys):
    detail = {"a": 1, "b": {"c": 2, "d": [3, 4]}}

    output.rows([{"detail": detail}], ["detail"], as_json_=False)

    assert capsys.readouterr().out.splitlines()[1].strip() == "a=1, b={c=2, d=[3, 4]}"


def test_a_table_takes_what_room_there_is(monkeypatch, capsys):
    monkeypatch.setattr(output.console, "_width", 400)
    monkeypatch.setattr(output.console, "_height", 25)
    long = {"words": "a " * 120}

    output.rows([long], ["words"], as_json_=False)

    assert len(capsys.readouterr().out.splitlines()) == 2


VERSION = {
    "version": 2, "uri": "models:/digits/2", "state": "ACTIVE", "description": "",
    "framework": "sklearn", "framework_version": "1.7",
    "source_uri": "mlflow-artifacts:/1/" + "x" * 80,
    "parameters": {"workers": 2, "since": "2026-01-02T03:04:05Z", "name": ""},
    "aliases": ["champion", "newest"], "run_name": None, "flow_run_id": "a" * 36,
    "mlflow_run_id": "b" * 32, "created": 1767323045678, "deletion_error": None,
}  # fmt: skip


@pytest.fixture
def _in_utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_utc")
def test_times_of_a_list_are_local_and_those_of_its_json_are_not(capsys):
    found = [{"started": "2026-01-02T03:04:05.678Z", "last": "sent 2026-01-02T03:04:05Z"}]

    output.rows(found, ["started", "last"], as_json_=False)
    output.rows(found, ["started", "last"], as_json_=True)

    _, row, value = capsys.readouterr().out.splitlines()
    assert row == "2026-01-02 03:04:05 UTC  sent 2026-01-02 03:04:05 UTC"
    assert "2026-01-02T03:04:05.678Z" in value


@pytest.mark.usefixtures("_in_utc")
def test_a_thing_with_fields_in_groups_and_lists(capsys):
    found = {
        "name": "digits", "seconds": 7500.0, "is_final": True, "none": {"a": None, "b": {"c": ""}},
        "started": "2026-01-02T03:04:05.678+00:00", "versions": [VERSION],
        "policy": {"grace": 3, "inner": {"loss": 0.30000000000000004}},
    }  # fmt: skip

    output.thing(found, as_json_=False)

    assert capsys.readouterr().out.splitlines() == [
        "name: digits",
        "duration: 2 h 5 min",
        "is_final: true",
        "started: 2026-01-02 03:04:05 UTC",
        "versions",
        "  - version: 2",
        "    uri: models:/digits/2",
        "    state: ACTIVE",
        "    framework: sklearn",
        "    framework_version: 1.7",
        f"    source_uri: {VERSION['source_uri']}",
        "    parameters",
        "      workers: 2",
        "      since: 2026-01-02T03:04:05Z",  # as the user wrote it
        "    aliases",
        "      champion",
        "      newest",
        f"    flow_run_id: {'a' * 36}",
        f"    mlflow_run_id: {'b' * 32}",
        "    created: 2026-01-02 03:04:05 UTC",
        "policy",
        "  grace: 3",
        "  inner",
        "    loss: 0.3",
    ]


def test_parameters_are_written_as_they_are_given(capsys):
    given = {
        "algorithm": {"uri": "/x", "provided": ""}, "datasets": [{"name": "a", "uri": "s3://b"}],
        "overwrite": False, "max_minutes": None, "hyperparameters": {"lr": 1e-7, "on": "true"},
    }  # fmt: skip

    output.thing({"parameters": given}, as_json_=False)

    assert capsys.readouterr().out.splitlines() == [
        "parameters",
        "  algorithm.uri: /x",
        '  datasets: [{"name": "a", "uri": "s3://b"}]',
        "  overwrite: false",
        "  hyperparameters.lr: 1e-07",
        "  hyperparameters.on: true",
    ]


def test_a_number_of_created_slots_is_no_time(capsys):
    output.thing({"fates": {"created": 3, "waiting Disabled": 1}}, as_json_=False)

    assert capsys.readouterr().out.split("\n")[1:3] == ["  created: 3", "  waiting Disabled: 1"]


def test_a_long_text_is_wrapped_at_words_on_a_terminal_only(monkeypatch, capsys):
    uri = "s3://bucket/" + "x" * 90
    text = f"It was written to {uri} and it was a long way to go.\nA second line."
    output.thing({"message": text, "uri": uri}, as_json_=False)
    plain = capsys.readouterr().out

    terminal = Console(
        force_terminal=True, color_system=None, width=60, highlight=False, soft_wrap=True
    )
    monkeypatch.setattr(output, "console", terminal)
    output.thing({"message": text, "uri": uri}, as_json_=False)
    wrapped = capsys.readouterr().out

    assert plain.splitlines()[0] == f"message: {text.splitlines()[0]}"
    lines = wrapped.splitlines()
    assert lines[0].startswith("message: It was written to")
    assert lines[1] == f"    {uri}"  # in one piece
    assert lines[-1] == f"uri: {uri}"
    assert all(len(line) <= 60 or uri in line for line in lines)
    assert "    A second line." in lines
    assert " ".join(wrapped.split()) == " ".join(plain.split())


@pytest.mark.usefixtures("terminal")
def test_lines_of_a_text_keep_their_indentation(capsys):
    message = "Failed:\nTraceback:\n  File x, line 1\n    " + "word " * 20
    output.thing({"message": message}, as_json_=False)

    assert capsys.readouterr().out.splitlines() == [
        "message: Failed:",
        "    Traceback:",
        "      File x, line 1",
        "        " + " ".join(["word"] * 14),
        "        " + " ".join(["word"] * 6),
    ]
