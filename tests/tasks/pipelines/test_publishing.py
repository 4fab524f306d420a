"""What is published of a pipeline's tasks, with MLflow replaced by a list."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines import reading
from pipelines.artifacts import Artifact, Bundle
from pipelines.node_positions import NodePositions
from registry.mlflow_writer import MetricValue
from tasks.pipelines import publishing
from tasks.pipelines.publishing import LeafResult, Publisher
from tests.pipelines import corpus


class Writer:
    """Writes to a run that accepts everything, or nothing for a while."""

    def __init__(self) -> None:
        self.values: list[tuple[str, float, int]] = []
        self.told: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.away = False
        self.closed = False
        self.hint = ""
        self._waiting: list[tuple[str, Callable[[], None], Callable[[], None]]] = []

    def submit(
        self, name: str, perform: Callable[[], None], on_written: Callable[[], None] = lambda: None
    ) -> None:
        self._waiting.append((name, perform, on_written))
        if not self.away:
            self.back()

    def back(self) -> None:
        self.away, waiting, self._waiting = False, self._waiting, []
        for _, write, done in waiting:
            write()
            done()

    def write_metrics(self, _: str, values: Sequence[MetricValue]) -> None:
        self.values += [(one.name, one.value, one.step) for one in values]

    def write_tags(self, _: str, tags: Mapping[str, str]) -> None:
        self.told |= tags

    def upload(self, _: str, path: Path, folder: str) -> None:
        assert folder.strip("/") == folder
        found = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        base = path.parent if path.is_file() else path
        for one in found:
            self.files[f"{folder}/{one.relative_to(base)}".lstrip("/")] = one.read_bytes()

    def close(self, _: float, hint: str) -> list[str]:
        self.closed, self.hint = True, hint
        return [name for name, _, _ in self._waiting]


class World:
    """A run's folder, its writer and its warnings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "runs" / "one"
        self.folder.mkdir(parents=True)
        self.writer = Writer()
        self.warned: list[str] = []
        self._patch = monkeypatch
        self.publisher = self.begun()

    def begun(self, **more: Any) -> Publisher:
        """A publisher of the run, as each attempt has its own."""
        self._patch.setattr(publishing, "MlflowWriter", lambda *_: self.writer)
        places = NodePositions(reading.read_bytes(corpus.compiled("shown"), "pipeline.yaml"))
        asked = {"largest": 1000, "warn": self.warned.append, "drawn": draw, **more}
        self.publisher = Publisher("run", places, self.folder, **asked)
        return self.publisher

    def artifact(
        self, task: str, name: str, schema: str, data: bytes | None = None, **metadata: Any
    ) -> Artifact:
        path = self.folder / "artifacts" / task / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        return Artifact(f"{task}/{name}", str(path), f"system.{schema}", metadata=metadata)

    def end(self, task: str, *given: Artifact, kept: bool = False) -> None:
        named = {one.name.rpartition("/")[2]: one for one in given}
        self.publisher.publish(LeafResult(task, Bundle(artifacts=named), kept))


def draw(schema: str, metadata: Mapping[str, Any]) -> dict[str, bytes]:
    return {"roc": schema.encode()} if metadata else {}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_metrics_are_metrics_with_iterations_as_steps(world: World) -> None:
    for number in (1, 0):
        path = f"for-loop-1/{number}/fit"
        world.end(path, world.artifact(path, "scores", "Metrics", loss=number / 2, kind="x"))
    assert world.writer.values == [("fit/loss", 0.5, 1), ("fit/loss", 0.0, 0)]


def test_classification_metrics_are_plots_beside_their_data(world: World) -> None:
    metadata = {"confidenceMetrics": [1, 2]}
    world.end("classify", world.artifact("classify", "whole", "ClassificationMetrics", **metadata))
    assert world.writer.files == {
        "plots/classify/whole.json": json.dumps(metadata).encode(),
        "plots/classify/whole-roc.png": b"system.ClassificationMetrics",
    }


def test_no_more_than_so_many_are_drawn(world: World) -> None:
    for number in range(60):
        path = f"for-loop-1/{number}/fit"
        world.end(path, world.artifact(path, "whole", "ClassificationMetrics", a=1))
    names = list(world.writer.files)
    assert sum(name.endswith(".json") for name in names) == 60
    assert sum(name.endswith(".png") for name in names) == 50


def test_reports_are_files_that_a_browser_shows(world: World) -> None:
    world.end(
        "report",
        world.artifact("report", "page", "HTML", b"<b>x</b>"),
        world.artifact("report", "text", "Markdown", b"# x"),
    )
    assert world.writer.files == {
        "reports/report/page.html": b"<b>x</b>", "reports/report/text.md": b"# x",
    }  # fmt: skip


def test_small_files_and_folders_are_copied_and_large_ones_are_linked(world: World) -> None:
    model = world.artifact("measure", "model", "Model")
    folder = Path(model.uri)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"w")
    world.end(
        "measure", model, world.artifact("measure", "small", "Dataset", b"s" * 1000),
        world.artifact("measure", "large", "Dataset", b"l" * 1001),
        world.artifact("measure", "empty", "Dataset", b""),
    )  # fmt: skip
    assert set(world.writer.files) == {
        "artifacts/measure/model/deep/weights", "artifacts/measure/small",
    }  # fmt: skip
    rows = {row["name"]: (row["size"], row["mlflow"]) for row in world.publisher.rows}
    assert rows == {
        "model": (1, "artifacts/measure/model"), "small": (1000, "artifacts/measure/small"),
        "large": (1001, None), "empty": (0, None),
    }  # fmt: skip


def test_all_copies_together_are_bounded(world: World) -> None:
    for number in range(70):
        path = f"for-loop-1/{number}/fit"
        world.end(path, world.artifact(path, "large", "Dataset", b"x" * 1000))
    assert len(world.writer.files) == 64


@pytest.mark.parametrize("kind", ["elsewhere", "link", "s3", "gone"])
def test_what_no_task_of_ours_has_made_is_linked_only(
    world: World, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "data"
    outside.write_bytes(b"secret")
    link = world.folder / "artifacts" / "link"
    link.parent.mkdir()
    link.symlink_to(outside)
    uris = {"elsewhere": str(outside), "link": str(link), "s3": "s3://b/k", "gone": "/no/such"}
    world.end("measure", Artifact("measure/data", uris[kind]))
    assert world.writer.files == {}
    assert [(row["uri"], row["mlflow"]) for row in world.publisher.rows] == [(uris[kind], None)]


def test_a_folder_with_a_link_in_it_is_not_copied(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    model = world.artifact("measure", "model", "Model")
    Path(model.uri).mkdir()
    Path(model.uri, "link").symlink_to(tmp_path / "secret")
    world.end("measure", model)
    assert world.writer.files == {}


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a\nb"])
def test_a_name_that_mlflow_cannot_keep_is_not_copied(world: World, name: str) -> None:
    world.end("measure", world.artifact("measure", name, "Dataset", b"x"))
    assert world.writer.files == {}
    assert len(world.publisher.rows) == 1


def test_a_list_of_artifacts_has_a_row_for_each(world: World) -> None:
    several = [world.artifact("measure", f"data{n}", "Dataset", b"x") for n in range(2)]
    world.publisher.publish(LeafResult("measure", Bundle(artifacts={"data": several})))
    assert [row["name"] for row in world.publisher.rows] == ["data-0", "data-1"]


def test_at_the_end_the_outputs_the_log_and_the_table_are_there(world: World) -> None:
    world.end("measure", world.artifact("measure", "data", "Dataset", b"x", rows=3))
    log = world.folder / "pipeline.log"
    log.write_text("line")
    world.publisher.close({"Output": 0.5, "text": "a", "long": "x" * 2000}, log)
    files = world.writer.files
    assert json.loads(files["outputs.json"]) == {"Output": 0.5, "text": "a", "long": "x" * 2000}
    assert world.writer.told == {"modelyard.output.Output": "0.5", "modelyard.output.text": "a"}
    assert files["logs/pipeline.log"] == b"line"
    (row,) = json.loads(files["artifacts.json"])
    assert (row["task"], row["name"], row["metadata"]) == ("measure", "data", {"rows": 3})
    assert world.writer.closed
    assert world.warned == []


def test_what_mlflow_cannot_store_is_replaced_in_tags_alone(world: World) -> None:
    world.publisher.close({"Output": "a\0b"})
    assert world.writer.told == {"modelyard.output.Output": "a\N{REPLACEMENT CHARACTER}b"}
    assert json.loads(world.writer.files["outputs.json"]) == {"Output": "a\0b"}


def test_without_anything_nothing_is_there(world: World) -> None:
    world.publisher.publish(LeafResult("measure", Bundle({"Output": 1})))
    world.publisher.close({}, world.folder / "no log")
    assert (world.writer.files, world.writer.told) == ({}, {})


def test_a_warning_of_what_mlflow_has_not_received_says_where_the_files_are(world: World) -> None:
    world.publisher.close({"Output": 1})
    assert world.writer.hint == "The files themselves are in the run's folder."


def test_a_retry_publishes_what_was_missing_and_nothing_again(world: World) -> None:
    first = world.artifact("measure", "data", "Dataset", b"x")
    world.end("measure", first)
    world.writer.away = True
    second = world.artifact("report", "data", "Dataset", b"y")
    world.end("report", second)  # and the run is killed
    assert set(world.writer.files) == {"artifacts/measure/data"}

    with (world.folder / "published.jsonl").open("a") as file:
        file.write('{"path": "cut sho')
    world.writer = Writer()
    world.begun()
    world.end("measure", first, kept=True)
    world.end("report", second, kept=True)
    assert set(world.writer.files) == {"artifacts/report/data"}
    assert [row["task"] for row in world.publisher.rows] == ["measure", "report"]


def test_what_ran_again_is_published_again(world: World) -> None:
    world.end("measure", world.artifact("measure", "data", "Dataset", b"x"))
    world.begun()
    world.end("measure", world.artifact("measure", "data", "Dataset", b"new"))
    assert world.writer.files == {"artifacts/measure/data": b"new"}
    assert [row["size"] for row in world.publisher.rows] == [3]


def test_long_metadata_is_cut_in_the_table(world: World) -> None:
    world.end("measure", world.artifact("measure", "data", "Dataset", b"x", text="y" * 20_000))
    (row,) = world.publisher.rows
    assert len(row["metadata"]) < 11_000


def test_small_files_are_fetched_from_the_storage_that_the_platform_keeps_them_in(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_NAS", json.dumps({"team": str(tmp_path)}))
    world.begun(root="nas://team:/ours", largest=10)
    for name, text in {
        "ours/report/page": "<p>", "ours/report/model/w": "1", "ours/report/large": "x" * 11,
        "theirs/data": "y",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    world.end(
        "report",
        *(
            Artifact(f"report/{uri.rpartition('/')[2]}", f"nas://team:/{uri}", schema)
            for uri, schema in {
                "ours/report/page": "system.HTML", "ours/report/model": "system.Model",
                "ours/report/large": "system.Dataset", "theirs/data": "system.Dataset",
                "ours/report/gone": "system.Dataset",
            }.items()
        ),
    )  # fmt: skip

    assert world.writer.files == {
        "reports/report/page.html": b"<p>", "artifacts/report/model/w": b"1"
    }  # fmt: skip
    rows = {row["name"]: row["size"] for row in world.publisher.rows}
    assert rows == {"page": 3, "model": 1, "large": 11, "data": None, "gone": None}
