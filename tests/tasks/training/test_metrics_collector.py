from __future__ import annotations

from pathlib import Path

from tensorboard.summary import Writer

from tasks.training.metrics_collector import following
from tests.processes import eventually
from tuning.metrics import MetricPattern, Observation


class _Seen:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.found: list[Observation] = []
        self.warnings: list[str] = []

    def following(self, folder: Path, *names: str):  # type: ignore[no-untyped-def]
        return following(
            [MetricPattern(name="loss")],
            folder,
            names=names,
            show=self.lines.append,
            record=self.found.append,
            warn=self.warnings.append,
        )

    @property
    def values(self) -> list[tuple[str, float]]:
        return [(one.name, one.value) for one in self.found]


def _write(folder: Path, **scalars: float) -> None:
    writer = Writer(str(folder))
    for name, value in scalars.items():
        writer.add_scalar(name, value, 1)
    writer.close()


def test_lines_of_the_only_process(tmp_path: Path) -> None:
    seen = _Seen()

    with seen.following(tmp_path, "") as on_line:
        on_line(0, "loss=0.5")

    assert seen.lines == ["loss=0.5"]
    assert seen.values == [("loss", 0.5)]


def test_of_several_the_first_is_measured(tmp_path: Path) -> None:
    seen = _Seen()

    with seen.following(tmp_path, "node 0", "node 1") as on_line:
        on_line(1, "loss=9")
        on_line(0, "loss=0.5")

    assert seen.lines == ["[node 1] loss=9", "[node 0] loss=0.5"]
    assert seen.values == [("loss", 0.5)]


def test_event_files_are_read_to_their_end(tmp_path: Path) -> None:
    seen = _Seen()

    with seen.following(tmp_path, ""):
        _write(tmp_path, accuracy=0.5)

    assert seen.values == [("accuracy", 0.5)]


def test_event_files_are_read_meanwhile(tmp_path: Path) -> None:
    seen = _Seen()

    with seen.following(tmp_path, ""):
        _write(tmp_path, accuracy=0.5)
        eventually(lambda: seen.values == [("accuracy", 0.5)], "the scalar is seen")

    assert seen.values == [("accuracy", 0.5)]


def test_a_metric_has_one_source(tmp_path: Path) -> None:
    seen = _Seen()

    with seen.following(tmp_path, "") as on_line:
        on_line(0, "loss=0.5")
        _write(tmp_path, loss=0.5, accuracy=0.75)
        on_line(0, "loss=0.4")

    assert seen.values == [("loss", 0.5), ("loss", 0.4), ("accuracy", 0.75)]
