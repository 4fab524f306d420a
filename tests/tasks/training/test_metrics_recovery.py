"""Metrics that were printed and not recorded, on a real MLflow server."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import tracking
from registry.mlflow_writer import MlflowWriter
from registry.tracking import Opening
from tasks.run_directory import RunDirectory
from tasks.training import metrics_recovery
from tests.registry.conftest import catalogue_url, mlflow, mlflow_server, name  # noqa: F401
from tuning.event_files import EventFileReader
from tuning.metrics import MetricPattern, Observation

pytestmark = pytest.mark.usefixtures("mlflow")

LOSS = [MetricPattern(name="loss")]
Values = list[tuple[int, float]]


@pytest.fixture
def run(name: str) -> str:  # noqa: F811
    opening = Opening(str(uuid.uuid4()), "train", name, "Default", "", "somebody", {})
    return tracking.open_run(opening, retried=False).run_id


@pytest.fixture
def log(run_dir: RunDirectory) -> Path:
    run_dir.root.mkdir(parents=True)
    return run_dir.log


def recorded(run: str, values: Values, metric: str = "loss") -> None:
    writer = MlflowWriter(pytest.fail)
    for step, value in values:
        writer.log_metric(run, metric, value, step)
    assert not writer.close(30)


def history(run: str, metric: str = "loss") -> Values:
    return sorted(
        (each.step, each.value) for each in tracking.client().get_metric_history(run, metric)
    )


def test_what_was_printed_last_is_recorded_once(
    run: str, run_dir: RunDirectory, log: Path
) -> None:
    log.write_text("loss=9\n")  # of an earlier attempt
    metrics_recovery.begin(run_dir, LOSS, [""], {"loss": 1})
    with log.open("a") as file:
        file.write("".join(f"loss={number / 8}\n" for number in range(8)) + "loss=5")
    recorded(run, [(0, 9.0), (1, 0.0), (2, 1 / 8), (3, 2 / 8)])

    steps = metrics_recovery.recover(run_dir, run, pytest.fail)

    expected = [(0, 9.0), *((number + 1, number / 8) for number in range(8)), (9, 5.0)]
    assert (steps, history(run)) == ({"loss": 10}, expected)
    assert metrics_recovery.recover(run_dir, run, pytest.fail) == {}
    assert history(run) == expected


def test_values_that_are_no_finite_numbers(run: str, run_dir: RunDirectory, log: Path) -> None:
    metrics_recovery.begin(run_dir, LOSS, [""], {})
    log.write_text("loss=nan\nloss=inf\nloss=-inf\n")
    recorded(run, [(0, math.nan), (1, math.inf)])

    assert metrics_recovery.recover(run_dir, run, pytest.fail) == {"loss": 3}
    assert [step for step, _ in history(run)] == [0, 1, 2]


def test_only_the_lines_of_the_first_process_are_searched(
    run: str, run_dir: RunDirectory, log: Path
) -> None:
    metrics_recovery.begin(run_dir, LOSS, ["node 0", "node 1"], {})
    log.write_text("[node 1] loss=1\n[node 0] loss=2\n")

    metrics_recovery.recover(run_dir, run, pytest.fail)

    assert history(run) == [(0, 2.0)]


def test_event_files_are_read_and_a_metric_of_both_is_left(
    run: str, run_dir: RunDirectory, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [Observation("loss", 1.0, 0, 1e9), Observation("lr", 0.5, 3, 1e9)]
    monkeypatch.setattr(EventFileReader, "poll", lambda _: iter(events))
    metrics_recovery.begin(run_dir, LOSS, [""], {})
    log.write_text("loss=1\n")

    assert metrics_recovery.recover(run_dir, run, pytest.fail) == {"lr": 4}
    assert (history(run), history(run, "lr")) == ([], [(3, 0.5)])


@pytest.mark.parametrize(
    "leave",
    [
        metrics_recovery.end,
        lambda run_dir: run_dir.recording.write_text('{"offs'),
        lambda run_dir: run_dir.log.unlink(),
    ],
)
def test_without_a_recording_nothing_is_done(
    run: str, run_dir: RunDirectory, log: Path, leave: Callable[[RunDirectory], object]
) -> None:
    metrics_recovery.begin(run_dir, LOSS, [""], {})
    log.write_text("loss=1\n")

    leave(run_dir)

    assert metrics_recovery.recover(run_dir, run, pytest.fail) == {}
    assert history(run) == []


def test_a_log_that_is_too_long_is_reported(
    run: str, run_dir: RunDirectory, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_recovery, "_MOST_BYTES", 3)
    metrics_recovery.begin(run_dir, LOSS, [""], {})
    log.write_text("loss=1\n")
    warnings: list[str] = []

    assert metrics_recovery.recover(run_dir, run, warnings.append) == {}
    assert "may be missing" in warnings[0]
    assert str(log) in warnings[0]
