"""What models return, as arrays that can be stored, or the reason why not."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pytest
from modelyard_runtime import frames, predictions
from modelyard_runtime.frames import Frame, FrameError, objects
from modelyard_runtime.models.base import PREDICTION, Model, ModelError, outputs
from modelyard_runtime.predictor import serve

NAN = float("nan")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (np.array([1.5, NAN], dtype=np.float16), [1.5, NAN]),
        (np.array([1.5, 2], dtype=np.longdouble), [1.5, 2.0]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array(["2020-01-01T10", "NaT"], dtype="datetime64[s]"), ["2020-01-01T10:00:00", None]),
        (np.array([b"ab", b"c"]), [b"ab", b"c"]),
        (["a\ud800", "b"], ["a\ud800", "b"]),
        ([{"a": 1}, {"b": None}], [{"a": 1}, {"b": None}]),
        ([None, None], [None, None]),
        ([[1], [1, 2]], [[1], [1, 2]]),
        ([2**100, -1], [2**100, -1]),
        ([2**63, -1], [2**63, -1]),
        ((at for at in range(2)), [0, 1]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, NAN]),
        (np.ma.array([1, 2], mask=[False, True]), [1, None]),
        ([1, "a"], [1, "a"]),
    ],
)  # fmt: skip
def test_values_of_any_kind_are_kept(found: Any, expected: list[Any]) -> None:
    column = outputs(found)["prediction"]

    assert frames.encoded(Frame({}, {"prediction": column}))
    assert str(column.tolist()) == str(expected)


def test_values_of_pandas_are_kept() -> None:
    pandas = pytest.importorskip("pandas")
    times = pandas.to_datetime(["2020-01-01", None])
    table = pandas.DataFrame(
        {
            "whole": pandas.Series([1, None], dtype="Int64"),
            "time": times,
            "zone": times.tz_localize("Asia/Seoul"),
            "class": pandas.Series(["x", None], dtype="category"),
        }
    )

    found = outputs(table)

    assert found["time"][0].startswith("2020-01-01T00:00:00")
    assert found["time"][1] is None
    assert frames.plain(found["zone"][0]) == "2020-01-01T00:00:00+09:00"
    assert frames.plain(found["zone"][1]) is None
    assert found["class"][0] == "x"
    assert frames.encoded(Frame({}, found))


def test_tensors_are_kept() -> None:
    torch = pytest.importorskip("torch")
    ones = torch.ones(2, requires_grad=True)

    assert outputs(ones)["prediction"].tolist() == [1, 1]
    assert outputs([ones, ones])["prediction"].tolist() == [[1, 1], [1, 1]]
    assert outputs(torch.ones(2, dtype=torch.bfloat16))["prediction"].tolist() == [1, 1]
    assert outputs(torch.eye(2).to_sparse())["prediction"].tolist() == [[1, 0], [0, 1]]


def test_a_sparse_matrix_is_kept() -> None:
    sparse = pytest.importorskip("scipy.sparse")

    assert outputs(sparse.csr_matrix(np.eye(2)))["prediction"].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"y": np.array([1j, 2])}, "cannot be stored: y: complex128 has no JSON"),
        ({"y": np.array([1, 2], dtype="m8[s]")}, "cannot be stored: y: timedelta64.s. has no J"),
        (None, "The model returned nothing"),
        ({}, "The model returned nothing"),
    ],
)
def test_what_has_no_json_is_named(found: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        outputs(found)


class _Returning(Model):
    def __init__(self, found: Any) -> None:
        self._found = found

    def infer(self, _: Any) -> Any:
        return outputs(self._found)


_REFUSED = "The model returned what cannot be stored: "


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3.0, "The model returned prediction as one value, and none for each row."),
        ("ab", "The model returned prediction as one value, and none for each row."),
        ([], "The model was given 2 rows and returned 0 values of prediction."),
        ([{1}, {2}], _REFUSED + "prediction: a set has no JSON."),
        (
            {"x": [0, 0], "y": [decimal.Decimal(1), 2]},
            _REFUSED + "y: a Decimal has no JSON.",
        ),
        (
            [[b"\xff"], [b"", b""]],
            _REFUSED + "prediction: bytes that are not UTF-8 have no JSON: encode them, such as "
            "in base64.",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_and_the_predictor_goes_on(
    tmp_path: Any, found: Any, message: str
) -> None:
    asked, answered = tmp_path / "asked", tmp_path / "answered"
    with asked.open("wb") as file:
        for number in (1, 2):
            frames.write(file, Frame({"id": number}, {"x": np.zeros(2)}))

    with asked.open("rb") as requests, answered.open("wb") as answers:
        serve(_Returning(found), requests, answers)

    with answered.open("rb") as file:
        answer = [frames.read(file), frames.read(file)]
    assert [one and one.fields["id"] for one in answer] == [1, 2]
    assert [one and one.fields["error"]["message"] for one in answer] == [message] * 2


def test_bytes_arrive_as_they_were(tmp_path: Any) -> None:
    values = [b"\xff\x00", None, b"", b"text"]
    with (tmp_path / "frame").open("wb+") as file:
        frames.write(file, Frame({}, {"image": objects(values)}))
        file.seek(0)
        found = frames.read(file)

    assert found is not None
    assert found.columns["image"].tolist() == values


def test_what_cannot_be_sent_is_named_before_anything_is_written(tmp_path: Any) -> None:
    with (tmp_path / "frame").open("wb") as file, pytest.raises(FrameError, match="y: a object"):
        frames.write(file, Frame({}, {"x": np.zeros(1), "y": objects([object()])}))

    assert not (tmp_path / "frame").read_bytes()


def test_times_have_json() -> None:
    zone = datetime.UTC

    assert frames.plain(datetime.date(2020, 1, 2)) == "2020-01-02"
    assert frames.plain(datetime.datetime(2020, 1, 2, tzinfo=zone)) == "2020-01-02T00:00:00+00:00"
    assert frames.plain(np.datetime64("NaT")) is None
    assert frames.plain(np.array(["2020-01-02"], dtype="datetime64[D]")) == ["2020-01-02"]


def test_what_has_no_rows_is_of_a_type_that_others_have_too() -> None:
    assert [outputs(one)["prediction"].dtype for one in ("a", 2.5)] == [object, np.float64]
    with pytest.raises(ModelError, match="complex128 has no JSON"):
        outputs(1j)


def test_an_only_output_keeps_its_name_and_is_the_prediction() -> None:
    found = outputs({"x": [1.5, 2.5]})

    assert list(found) == ["x"]
    assert predictions.named(found) == {PREDICTION: found["x"]}
    several = outputs({"x": [1], "y": [2]})
    assert predictions.named(several) is several
