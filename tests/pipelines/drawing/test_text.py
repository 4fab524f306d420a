from __future__ import annotations

import pytest

from pipelines.drawing import text


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("a\n b\t\tc", "a b c"),
        ("red \x1b[31m", "red �[31m"),
        ("turned \u202e around", "turned � around"),
        ("half \ud83d", "half �"),
        ("null \0", "null �"),
        ("none \ufffe", "none �"),
        ("모델 <b>", "모델 <b>"),
    ],
)
def test_others_text_is_on_one_line_and_harmless(written: str, plain: str) -> None:
    assert text.plain(written) == plain


def test_a_short_text_stays() -> None:
    assert text.shorten("train", 13, 200) == "train"


@pytest.mark.parametrize("name", ["a" * 500, "길" * 500, "preprocess-" * 30 + "17"])
def test_a_long_text_is_cut_in_its_middle(name: str) -> None:
    cut = text.shorten(name, 13, 150)

    assert text.width(cut, 13) <= 150
    beginning, ending = cut.split("…")
    assert name.startswith(beginning)
    assert name.endswith(ending)
    assert beginning
    assert ending


def test_where_there_is_no_room_there_is_an_ellipsis() -> None:
    assert text.shorten("name", 13, 0) == "…"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-1, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (185, "3 min 5 s"), (3600, "1 h"), (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_a_time_span_is_told_in_units_that_matter(seconds: float, told: str) -> None:
    assert text.duration(seconds) == told


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("pipelinechannel--coin", "coin"),
        ("pipelinechannel--rows-loop-item", "rows[]"),
        ("pipelinechannel--rows-loop-item-subvar-kind", "rows[].kind"),
        ("pipelinechannel--rows-loop-item-subvar-sizes-loop-item", "rows[].sizes[]"),
        ("pipelinechannel--loop-item-param-1", "item"),
        ("pipelinechannel--loop-item-param-1-subvar-side", "item.side"),
        ("loop-items", "loop-items"),
    ],
)
def test_names_of_the_compiler_are_told_as_people_would(written: str, told: str) -> None:
    assert text.channel(written) == told


def test_a_condition_is_told_as_people_would() -> None:
    written = "!(inputs.parameter_values['pipelinechannel--coin-Output'] == 'heads') && 1 < 2"

    assert text.condition(written) == "!(coin-Output == 'heads') && 1 < 2"
