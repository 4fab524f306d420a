"""Results of a batch inference are read in blocks, and handed out by their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import RunFailedError
from tasks.evaluation import result_lines
from tasks.evaluation.evaluation_request import Evaluation
from tasks.evaluation.result_lines import ABSENT, ResultLines

REQUEST = Evaluation(probabilities_field="scores")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_lines, "_BLOCK", 100)


def opened(folder: Path, lines: Iterable[str]) -> ResultLines:
    path = folder / "a.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return ResultLines(path, "a.csv", REQUEST)


def line(row: int, **more: Any) -> str:
    return json.dumps({"row": row, "prediction": f"p{row}", **more})


def test_rows_come_with_their_answers_over_blocks_and_gaps(tmp_path: Path) -> None:
    found = opened(tmp_path, [line(row, scores=[row]) for row in range(40) if row % 10 != 3])

    whole, gap, odd = found.of(range(3)), found.of(range(3, 20)), found.of([20, 22, 25])
    rest = found.of([21, 23, 24, *range(26, 40)])

    assert (whole.rows, whole.predictions) == ([0, 1, 2], ["p0", "p1", "p2"])
    assert whole.probabilities == [[0], [1], [2]]
    assert gap.rows == [row for row in range(4, 20) if row != 13]
    assert gap.predictions == [f"p{row}" for row in gap.rows]
    assert (odd.rows, odd.predictions) == ([20, 22, 25], ["p20", "p22", "p25"])
    assert rest.rows == [21, 24, *(row for row in range(26, 40) if row != 33)]
    assert found.is_read
    found.close()


def test_what_the_model_does_not_give_is_absent(tmp_path: Path) -> None:
    found = opened(tmp_path, [line(0, scores=None), '{"row": 1}'])

    assert found.of([0, 1]) == ([0, 1], ["p0", None], [None, ABSENT])


def test_a_lone_surrogate_is_read_as_python_reads_it(tmp_path: Path) -> None:
    found = opened(tmp_path, [line(0), line(1, prediction="\ud800")])

    assert found.of([0, 1]).predictions == ["p0", "\ud800"]


@pytest.mark.parametrize(
    "odd", ["", "[]", "1", '{"prediction": 1}', '{"row": "1"}', '{"row": true}', "{", "[" * 99_999,
            '{"row": 1}, {"row": 2}'],
)  # fmt: skip
def test_a_line_that_is_no_result_is_shown(tmp_path: Path, odd: str) -> None:
    with pytest.raises(RunFailedError, match="a line that is not a result") as raised:
        opened(tmp_path, [line(0), odd]).of([0, 1])

    assert raised.value.code == "ResultsDamaged"
    assert repr(f"{odd}\n"[:80]) in str(raised.value)


@pytest.mark.parametrize("rows", [[0, 0], [1, 0], [*range(9), 8]])
def test_rows_that_do_not_ascend_are_those_of_another_input(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(RunFailedError, match="rows that the input does not have"):
        opened(tmp_path, map(line, rows)).of(range(9))


def test_rows_that_were_never_asked_for_are_left(tmp_path: Path) -> None:
    found = opened(tmp_path, map(line, range(9)))

    found.of(range(5))

    assert not found.is_read
