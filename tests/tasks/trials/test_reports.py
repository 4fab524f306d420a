"""What a trial has reported, kept beside it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.trials.reports import Report, Reports, Source
from tuning.metrics import Observation


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports"


class Told(list[tuple[str, float]]):
    def __call__(self, metric: str, value: float) -> None:
        self.append((metric, value))


def reports(path: Path, told: Told | None = None, *metrics: str) -> Reports:
    made = Reports(path, metrics or ("loss",), Told() if told is None else told)
    made.start_reporting()
    return made


def test_what_was_taken_is_told_and_there_again(path: Path) -> None:
    told, again = Told(), Told()
    first = reports(path, told)
    first.take(Observation("loss", 0.5))
    first.take(Observation("loss", 0.25, step=7, at=3.0))
    first.take(Observation("loss", math.nan))
    first.close()

    second = reports(path, again)

    assert repr(told) == repr(again) == "[('loss', 0.5), ('loss', 0.25), ('loss', nan)]"
    assert [(one.source, one.step) for one in second.earlier] == [
        (Source.LINES, 0), (Source.EVENTS, 7), (Source.LINES, 8),
    ]  # fmt: skip


def test_nothing_is_told_before_it_is_let_nor_after_the_end(path: Path) -> None:
    told = Told()
    made = Reports(path, {"loss"}, told)

    assert made.take(Observation("loss", 1)) is None
    assert made.awaiting_push() == {}
    made.start_reporting()
    made.take(Observation("loss", 2))
    made.close()
    assert made.take(Observation("loss", 3)) is None
    made.push("loss", 1, [4])
    assert told == [("loss", 2)]


def test_what_nobody_waits_for_goes_on_to_mlflow_as_it_is(path: Path) -> None:
    told = Told()
    other = Observation("other", 1, 2, 3)

    assert reports(path, told).take(other) is other
    assert told == []
    assert path.read_bytes() == b""


def test_a_value_gets_the_next_step_and_its_time(path: Path) -> None:
    made = reports(path)
    steps = [None, None, 9, None, 4, None]

    found = [made.take(Observation("loss", 0, step)) for step in steps]

    assert [one.step for one in found if one] == [0, 1, 9, 10, 4, 11]
    assert all(one and one.at and one.at > 1e9 for one in found)


class TestSources:
    def test_what_was_printed_first_is_not_looked_for_in_mlflow(self, path: Path) -> None:
        told = Told()
        made = reports(path, told, "loss", "other")
        assert made.awaiting_push() == {"loss": 0, "other": 0}

        made.take(Observation("loss", 1))

        assert made.awaiting_push() == {"other": 0}
        made.push("loss", 0, [1])
        made.push("loss", 1, [1])
        assert told == [("loss", 1)]

    def test_what_was_pushed_first_is_not_taken_from_lines(self, path: Path) -> None:
        told = Told()
        made = reports(path, told)
        made.push("loss", 0, [1, 2])

        assert made.take(Observation("loss", 1)) is None
        assert made.awaiting_push() == {"loss": 2}
        made.push("loss", 2, [3])
        assert told == [("loss", 1), ("loss", 2), ("loss", 3)]

    def test_the_same_answer_twice_counts_once(self, path: Path) -> None:
        told = Told()
        made = reports(path, told)
        made.push("loss", 0, [1, 2])
        made.push("loss", 0, [1, 2, 3])

        assert told == [("loss", 1), ("loss", 2)]

    @pytest.mark.parametrize("pushed", [True, False])
    def test_it_stays_so_after_a_restart(self, path: Path, pushed: bool) -> None:
        first = reports(path)
        if pushed:
            first.push("loss", 0, [1])
        else:
            first.take(Observation("loss", 1))
        first.close()

        second = reports(path)

        assert second.awaiting_push() == ({"loss": 1} if pushed else {})
        assert (second.take(Observation("loss", 2)) is None) is pushed

    def test_after_what_mlflow_has_kept_either_may_come(self, path: Path) -> None:
        for pushed in (True, False):
            path.unlink(missing_ok=True)
            told = Told()
            made = Reports(path, {"loss"}, told)
            made.keep("loss", [1, 2], 6)
            made.start_reporting()
            assert made.awaiting_push() == {"loss": 2}
            if pushed:
                made.push("loss", 2, [3])
            else:
                taken = made.take(Observation("loss", 3))
                assert taken is not None
                assert taken.step == 6
            assert told == [("loss", 1), ("loss", 2), ("loss", 3)]
            made.close()


class TestFile:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.lists(st.floats(), max_size=5), st.integers(0, 200))
    def test_cut_anywhere_it_holds_what_was_whole(
        self, path: Path, values: list[float], cut: int
    ) -> None:
        path.unlink(missing_ok=True)
        first = reports(path)
        for value in values:
            first.take(Observation("loss", value))
        first.close()
        data = path.read_bytes()[:cut]
        path.write_bytes(data)

        second = reports(path)
        found = len(second.earlier)
        assert repr([one.value for one in second.earlier]) == repr(values[:found])
        assert found in {data.count(b"\n"), data.count(b"\n") + 1}  # a line may lack its end only
        second.take(Observation("loss", 7))
        second.close()

        third = reports(path)
        assert [repr(one) for one in third.earlier[:-1]] == [repr(one) for one in second.earlier]
        assert third.earlier[-1].value == 7

    def test_a_full_disk_is_told_and_costs_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = Told()
        made = reports(path, told)
        made.take(Observation("loss", 1))
        really = made._file

        class Full:
            def write(self, data: bytes) -> int:
                return really.write(data[:5])

        monkeypatch.setattr(made, "_file", Full())
        with pytest.raises(OSError, match="full"):
            made.take(Observation("loss", 2))
        monkeypatch.setattr(made, "_file", really)
        made.take(Observation("loss", 3))
        made.close()

        assert told == [("loss", 1), ("loss", 3)]
        assert [one.value for one in reports(path).earlier] == [1, 3]

    def test_what_is_no_report_is_passed_over(self, path: Path) -> None:
        path.write_bytes(
            b'[1]\n{}\nxyz\n["loss", 1, "elsewhere", 0, 0]\n["loss", 1, "lines", 0, 2]\n'
        )

        assert reports(path).earlier == [Report("loss", 1, Source.LINES, 0, 2)]
