import os

import pytest

from pipelines import evaluation, expressions
from pipelines.expressions import ExpressionUndecidedError

_NAMES = frozenset({"x"})


def _parsed(text):
    return expressions.parse(text, _NAMES)


@pytest.fixture
def children(monkeypatch):
    """The processes that were started."""
    started = []
    run = evaluation.subprocess.run

    def counted(*args, **kwargs):
        started.append(args)
        return run(*args, **kwargs)

    monkeypatch.setattr(evaluation.subprocess, "run", counted)
    return started


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x['a'] == 3", {"a": 3.0}),
        (" && ".join(f"!(x['a'] == '{n}')" for n in range(300)), {"a": "300"}),
        ("x.exists(i, i == 2)", [float(n) for n in range(300)]),
        ("x['a'] == 3 && x['b'] != 'heads'", {"a": 3.0, "b": "tails", "c": list(range(10_000))}),
    ],
)
def test_what_is_cheap_needs_no_process(text, value, children):
    assert evaluation.evaluate(_parsed(text), {"x": value}) is True
    assert children == []


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("x.exists(i, i == 2)", [float(n) for n in range(2_000)], True),
        ("x.map(i, i + 1.0)[1]", [float(n) for n in range(2_000)], 2.0),
        ("x.map(i, {'a': b'\\x01'})[1]", [None] * 2_000, {"a": b"\1"}),
    ],
)
def test_what_may_cost_much_has_the_same_value_from_a_process(text, value, expected, children):
    found = evaluation.evaluate(_parsed(text), {"x": value})

    assert found == expected
    assert found == _parsed(text).value({"x": value})
    assert len(children) == 1


def test_what_has_no_value_has_none_from_a_process_either(children):
    with pytest.raises(ExpressionUndecidedError, match="is compared with"):
        evaluation.evaluate(_parsed("x.all(i, i == 'a')"), {"x": ["a"] * 2_000 + [1.0]})
    assert len(children) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"[{'0,' * 9_000}0].all(i, i in [{','.join(['1'] * 900)}] || x == x)",
        "x.all(i, x == x)",
    ],
    ids=["literals", "values"],
)
def test_what_takes_too_long_is_ended(text):
    before = os.times()

    with pytest.raises(ExpressionUndecidedError, match="1 s of processor time"):
        evaluation.evaluate(_parsed(text), {"x": [0.0] * 20_000}, cpu_seconds=1)

    after = os.times()
    assert after.children_user + after.children_system > before.children_user + 0.5


def test_what_takes_too_much_memory_is_ended():
    with pytest.raises(ExpressionUndecidedError, match=r"0\.5 GiB of memory"):
        evaluation.evaluate(
            _parsed("x.map(i, i + i).size() > 0"), {"x": ["a" * 10**6] * 1_000},
            cpu_seconds=60, memory_bytes=500 * 2**20,
        )  # fmt: skip
