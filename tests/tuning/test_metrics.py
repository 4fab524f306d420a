from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from infra.errors import BadInputError
from tuning.metrics import MetricCollector, MetricPattern, Observation


def _collect(log: str, *metrics: MetricPattern) -> list[tuple[str, float]]:
    collector = MetricCollector(metrics)
    found = [one for line in log.splitlines() for one in collector.collect(line)]
    return [(one.name, one.value) for one in found]


def _default(log: str, *names: str) -> list[tuple[str, float]]:
    return _collect(log, *(MetricPattern(name=name) for name in names))


@pytest.mark.parametrize(
    ("line", "name", "values"),
    [
        # What Katib's default filter misses.
        ("loss: 0.5", "loss", [0.5]),
        ("loss:0.5", "loss", [0.5]),
        ("loss : 0.5", "loss", [0.5]),
        ('{"loss": 0.5, "accuracy": 0.9}', "loss", [0.5]),
        ("{'loss': 0.5}", "loss", [0.5]),
        ("loss=.5", "loss", [0.5]),
        ("loss=5.", "loss", [5.0]),
        ("loss=1.e3", "loss", [1000.0]),
        ("loss=+1e+3", "loss", [1000.0]),
        ("loss=inf", "loss", [math.inf]),
        ("loss=-Infinity", "loss", [-math.inf]),
        # A name is a whole name.
        ("val/accuracy=0.9", "accuracy", []),
        ("val/accuracy=0.9", "val/accuracy", [0.9]),
        ("val-loss=0.9", "loss", []),
        ("val.loss=0.9", "loss", []),
        ("val_loss=0.9", "loss", []),
        ("lossy=0.9", "loss", []),
        ("loss2=0.9", "loss", []),
        ("Loss=0.9", "loss", []),
        ("f1(macro)=0.9", "f1(macro)", [0.9]),
        ("acc.1=0.9", "acc.1", [0.9]),
        ("accx1=0.9", "acc.1", []),
        # A value is a whole number.
        ("loss=1.2.3", "loss", []),
        ("loss=5abc", "loss", []),
        ("loss=high", "loss", []),
        ("loss=", "loss", []),
        ("loss=nano", "loss", []),
        ("loss=0.5.", "loss", [0.5]),
        ("The loss: 5.", "loss", [5.0]),
        ("loss=0.5%", "loss", [0.5]),
        # Several.
        ("loss=0.5 loss=0.4", "loss", [0.5, 0.4]),
        ("epoch 3/10 - loss: 0.42 - accuracy: 0.9", "accuracy", [0.9]),
        ("nothing here", "loss", []),
        ("", "loss", []),
    ],
)
def test_the_default_pattern(line: str, name: str, values: list[float]) -> None:
    assert _default(line, name) == [(name, value) for value in values]


def test_nan_is_not_a_number() -> None:
    ((name, value),) = _default("loss=nan", "loss")

    assert name == "loss"
    assert math.isnan(value)


@given(value=st.floats(), separator=st.sampled_from(["=", ": ", " = ", ":"]))
@hypothesis_settings(database=None, max_examples=300, deadline=None)
def test_every_float_that_is_printed_is_found(value: float, separator: str) -> None:
    ((_, found),) = _default(f"step 3, loss{separator}{value!r}, done", "loss")

    assert found == value or (math.isnan(found) and math.isnan(value))


@given(value=st.integers())
@hypothesis_settings(database=None, deadline=None)
def test_every_integer_that_is_printed_is_found(value: int) -> None:
    assert _default(f"[count={value}]", "count") == [("count", float(value))]


@given(
    name=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1),
    value=st.floats(allow_nan=False),
)
@hypothesis_settings(database=None, deadline=None)
def test_every_name_can_be_found(name: str, value: float) -> None:
    assert (name, value) in _default(f"{name}={value!r}", name)


@pytest.mark.parametrize(
    ("pattern", "line", "values"),
    [
        (r"loss is (\S+)", "loss is 0.5", [0.5]),
        (r"loss is (\S+)", "loss is high", []),
        (r"(\w+) is ([\d.]+)", "loss is 0.5, accuracy is 0.9", [0.5]),
        (r"loss is ([\d.]+)( percent)?", "loss is 0.5 percent", [0.5]),
        (r"loss(?: is (\S+))?", "loss", []),
        (r"^loss=(\S+)", "val loss=1", []),
        (r"{name: (\w+), value: ([\d.]+)}", "{name: loss, value: 1", []),
        (r"{name: (\w+), value: ([\d.]+)}", "{name: loss, value: 1};{name: x, value: 2}", [1.0]),
    ],
)
def test_a_pattern_of_ones_own(pattern: str, line: str, values: list[float]) -> None:
    found = _collect(line, MetricPattern(name="loss", pattern=pattern))

    assert found == [("loss", value) for value in values]


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("loss=(", "MetricPatternInvalid"),
        ("[", "MetricPatternInvalid"),
        ("(" * 600 + "[0-9]+" + ")" * 600, "MetricPatternInvalid"),
        ("loss=.*", "MetricPatternWithoutGroup"),
        ("loss=(?:.*)", "MetricPatternWithoutGroup"),
        ("", "MetricPatternWithoutGroup"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern: str, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        MetricPattern(name="loss", pattern=pattern).expression()

    assert raised.value.code == code


@pytest.mark.parametrize("length", [4080, 4085, 4090, 4095, 4096, 100_000])
def test_a_value_that_a_long_line_cuts_is_not_taken_for_another(length: int) -> None:
    line = "x" * length + " loss=0.123456789"

    assert _default(line, "loss") in ([], [("loss", 0.123456789)])


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    told: list[str] = []
    metrics = [MetricPattern(name="bad", pattern="(a|aa)+$"), MetricPattern(name="loss")]
    collector = MetricCollector(metrics, told.append)

    found = list(collector.collect("a" * 60 + "b loss=1"))
    found += list(collector.collect("loss=2"))

    assert [(one.name, one.value) for one in found] == [("loss", 1.0), ("loss", 2.0)]
    assert len(told) == 1
    assert "'bad'" in told[0]


@pytest.mark.parametrize(
    ("line", "observed"),
    [
        ('{"loss": 0.5}', [("loss", 0.5, None)]),
        ('  {"loss": "0.5", "step": 3}\r', [("loss", 0.5, 3)]),
        ('{"step": "7", "loss": 1}', [("loss", 1.0, 7)]),
        ('{"epoch": 2, "loss": 1, "step": 9}', [("loss", 1.0, 9)]),
        ('{"epoch": 2, "loss": 1}', [("loss", 1.0, 2)]),
        ('{"step": 2.5, "loss": 1}', [("loss", 1.0, None)]),
        ('{"step": -1, "loss": 1}', [("loss", 1.0, None)]),
        ('{"step": 1e30, "loss": 1}', [("loss", 1.0, None)]),
        ('{"val/acc": 0.9, "loss": 1}', [("loss", 1.0, None), ("val/acc", 0.9, None)]),
        ('{"loss": Infinity}', [("loss", math.inf, None)]),
        ('{"loss": true}', []),
        ('{"loss": null}', []),
        ('{"loss": [1]}', []),
        ('{"message": "loss=0.5"}', []),
        ('{"loss": 0.5', [("loss", 0.5, None)]),  # no JSON, and yet a value
        ("[1, 2]", []),
        ("{" * 5000 + "}" * 5000, []),
        ('{"loss": 1' + "0" * 400 + "}", []),
    ],
)
def test_lines_of_json(line: str, observed: list[tuple[str, float, int | None]]) -> None:
    collector = MetricCollector([MetricPattern(name="loss"), MetricPattern(name="val/acc")])

    assert list(collector.collect(line)) == [Observation(*one) for one in observed]


def test_a_pattern_is_a_pattern_also_in_json() -> None:
    metric = MetricPattern(name="loss", pattern=r'"l": ([\d.]+)')

    assert list(MetricCollector([metric]).collect('{"l": 0.5, "loss": 9}')) == [
        Observation("loss", 0.5)
    ]
