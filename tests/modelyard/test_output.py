"""How the command answers people."""

from modelyard import output

RUN = {
    "id": "4d85f16e-bf12-49ba-bd11-6ba7d2a3d977",
    "name": "digits",
    "state": "COMPLETE (SuggestionEndReached)",
    "started": "2026-11-21 17:49",
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


def test_a_list_of_things_is_a_table_wherever_it_stands(capsys):
    found = [{"slot": "09:00", "reason": "", "detail": {"a": 1}}, {"slot": "[x]", "until": 5}]

    output.thing({"slots": found, "words": ["a"]}, as_json_=False)

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["slots"], ["slot", "detail", "until"], ["09:00", "a=1"], ["[x]", "5"], ["words"], ["a"],
    ]  # fmt: skip


def test_a_table_takes_what_room_there_is(monkeypatch, capsys):
    monkeypatch.setattr(output.console, "_width", 400)
    monkeypatch.setattr(output.console, "_height", 25)
    long = {"words": "a " * 120}

    output.rows([long], ["words"], as_json_=False)

    assert len(capsys.readouterr().out.splitlines()) == 2
