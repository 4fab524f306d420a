from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.soaking import examples
from tests.tuning.plots.tunings import (
    FAILED,
    SPACE,
    drawn,
    many,
    trial,
)
from tuning.plots import (
    FILES,
    plots,
)
from tuning.space import Parameter
from tuning.trials import Trial, TrialState


def test_every_plot_is_a_png_of_its_size() -> None:
    assert drawn(many(30, 2), "minimize", "maximize") == set(FILES)
    assert drawn(many(30)) == set(FILES) - {"pareto-front.png"}


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], set()),
        ([trial(0, state=TrialState.CREATED), trial(1, state=FAILED)], set()),
        ([trial(0, 1.0)], {"history.png"}),
        ([trial(0, math.nan)], set()),
        ([trial(0, 1.0, state=TrialState.RUNNING)], set()),
        ([trial(0, state=FAILED, reports=(3.0, 2.0))], {"early-stopping.png"}),
        ([trial(0, state=FAILED, reports=(3.0,))], set()),
        ([trial(0, state=FAILED, reports=(math.nan, math.inf))], set()),
        ([trial(0, 1.0), trial(1, 2.0)], {"history.png", "parallel-coordinates.png"}),
        (
            many(9),
            {"history.png", "parallel-coordinates.png", "early-stopping.png", "slices.png"},
        ),
    ],
)
def test_what_has_nothing_to_show_is_left_out(trials: list[Trial], expected: set[str]) -> None:
    assert drawn(trials) == expected


def test_without_parameters_there_are_only_values() -> None:
    assert drawn(many(20), space=[]) == {"history.png", "early-stopping.png"}


def test_plots_are_the_same_in_threads() -> None:
    trials = many(20, 2)
    arguments = (trials, SPACE, ["loss", "time"], ["minimize", "minimize"])
    expected = plots(*arguments)
    found: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: found.append(plots(*arguments))) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == len(threads)
    for one in found:
        assert one.keys() == expected.keys()
        assert {name: png for name, png in one.items() if png != expected[name]} == {}


def test_nobody_elses_settings_are_touched() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    backend = matplotlib.get_backend(auto_select=False)

    drawn(many(12))

    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend(auto_select=False) == backend


_NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e308, -1e308, 5e-324, 1e100, 1e-99])


_WORDS = st.text(max_size=30) | st.sampled_from(["$", "$x$", r"\frac", "$$a$$", "가", "\n", "%"])


@st.composite
def _spaces(draw: st.DrawFn) -> list[Parameter]:
    made = []
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["int", "double", "categorical", "discrete"]))
        if kind == "int":
            low = draw(st.integers(-(10**6), 10**6))
            high = low + draw(st.integers(0, 10**6))
            bounds: dict[str, Any] = {
                "min": low,
                "max": high,
                "log": low > 0 and draw(st.booleans()),
            }
        elif kind == "double":
            low, high = sorted(draw(st.tuples(*[st.floats(-1e18, 1e18)] * 2)))
            bounds = {"min": low, "max": high, "log": low > 0 and draw(st.booleans())}
        elif kind == "categorical":
            bounds = {"values": draw(st.lists(_WORDS, min_size=1, max_size=4, unique=True))}
        else:
            bounds = {"values": draw(st.lists(st.integers(-9, 9), min_size=1, unique=True))}
        made.append(Parameter(name=f"p{number}", type=kind, **bounds))
    return made


@st.composite
def _tunings(draw: st.DrawFn) -> tuple[list[Trial], list[Parameter], list[str], list[str]]:
    space = draw(_spaces())
    count = draw(st.integers(1, 4))
    points = st.fixed_dictionaries(
        {},
        optional={
            one.name: st.sampled_from(one.values) if one.values
            else st.integers(int(one.min or 0), int(one.max or 0)) if one.type == "int"
            else st.floats(one.min, one.max)
            for one in space
        },
    )  # fmt: skip
    trials = [
        Trial(
            number,
            draw(points),
            draw(st.sampled_from(TrialState)),
            draw(st.none() | st.tuples(*[_NUMBERS] * count)),
            tuple(draw(st.lists(_NUMBERS, max_size=5))),
            violations=tuple(draw(st.lists(_NUMBERS, max_size=2))),
        )
        for number in range(draw(st.integers(0, 14)))
    ]
    names = draw(st.lists(_WORDS, min_size=count, max_size=count))
    directions = draw(
        st.lists(st.sampled_from(["minimize", "maximize"]), min_size=count, max_size=count)
    )
    return trials, space, names, directions


@given(_tunings())
@example(([trial(0, 1e99), trial(1, -1e99)], SPACE, ["$"], ["minimize"]))
@example(([trial(0, 5e-324), trial(1, 1e-320)], SPACE, [""], ["maximize"]))
@hypothesis_settings(
    database=None,
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_was_tried_is_drawn(tuning: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = plots(*tuning)

    assert set(drawn) <= set(FILES)
