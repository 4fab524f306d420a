from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary import Writer
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tuning.event_files import EventFileReader, metric_name
from tuning.metrics import Observation


def _found(files: EventFileReader) -> list[tuple[str, float, int | None]]:
    return [(one.name, one.value, one.step) for one in files.poll()]


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    assert _found(EventFileReader(tmp_path)) == []
    assert _found(EventFileReader(tmp_path / "none")) == []


def test_scalars_come_once_and_as_they_are_written(tmp_path: Path) -> None:
    files = EventFileReader(tmp_path)
    writer = Writer(str(tmp_path))
    writer.add_scalar("loss", 0.5, 3)
    writer.flush()

    assert _found(files) == [("loss", 0.5, 3)]
    assert _found(files) == []

    writer.add_scalar("loss", 0.25, 4)
    writer.add_scalar("loss", math.inf, 5)
    writer.close()

    assert _found(files) == [("loss", 0.25, 4), ("loss", math.inf, 5)]


def test_the_time_is_the_writers(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    writer.add_event(Event(wall_time=123.5, step=7, summary=_simple("loss", 0.5)))
    writer.close()

    assert list(EventFileReader(tmp_path).poll()) == [Observation("loss", 0.5, 7, 123.5)]


def test_folders_are_part_of_the_name(tmp_path: Path) -> None:
    for folder in ("train", "validation"):
        writer = Writer(str(tmp_path / folder))
        writer.add_scalar("epoch_loss", 0.5, 1)
        writer.close()

    assert [name for name, _, _ in _found(EventFileReader(tmp_path))] == [
        "train/epoch_loss",
        "validation/epoch_loss",
    ]


def test_what_is_no_scalar_is_left_alone(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    histogram = Summary.Value(tag="weights", histo={"num": 1, "bucket_limit": [1], "bucket": [1]})
    writer.add_event(Event(step=1, summary=Summary(value=[histogram])))
    writer.add_event(Event(step=1, summary=_simple("loss", 0.5)))
    writer.close()

    assert _found(EventFileReader(tmp_path)) == [("loss", 0.5, 1)]


def test_half_a_record_is_read_when_it_is_whole(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "written"))
    writer.add_scalar("loss", 0.5, 1)
    writer.close()
    (written,) = (tmp_path / "written").iterdir()
    data = written.read_bytes()
    growing = tmp_path / "growing" / written.name
    growing.parent.mkdir()
    files = EventFileReader(growing.parent)

    growing.write_bytes(data[:-7])
    assert _found(files) == []

    growing.write_bytes(data)
    assert _found(files) == [("loss", 0.5, 1)]


def test_a_file_that_is_none_is_given_up_once(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    writer._async_writer._writer.write(b"\xff" * 20)  # a whole record, of nothing that is an event
    writer.close()
    good = Writer(str(tmp_path / "good"))
    good.add_scalar("loss", 0.5, 1)
    good.close()
    warnings: list[str] = []
    files = EventFileReader(tmp_path, warnings.append)

    assert _found(files) == [("good/loss", 0.5, 1)]
    assert _found(files) == []
    assert len(warnings) == 1


def _simple(tag: str, value: float) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("loss", "loss"),
        ("./loss", "loss"),
        ("/train//loss", "train/loss"),
        ("../loss", "loss"),
        ("acc@5%", "acc_5_"),
        ("", "metric"),
    ],
)
def test_names_that_mlflow_takes(tag: str, name: str) -> None:
    assert metric_name(tag) == name


@given(st.text(max_size=300))
def test_every_tag_gives_a_name(tag: str) -> None:
    name = metric_name(tag)

    assert 1 <= len(name) <= 250
    assert metric_name(name) == name
