"""The removal of old artifacts: in folders and a catalogue that are real, with MLflow faked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infra import run_lock
from infra.errors import BadInputError
from infra.home import Home
from pipelines.artifacts import Artifact, Bundle
from pipelines.caching import as_data
from registry import catalogue, history
from registry.pipelines import pipeline_artifacts, pipeline_nodes
from registry.pipelines.pipeline_artifacts import Old
from registry.pipelines.pipeline_nodes import PipelineNode
from tasks.pipelines import cleanup, recording
from tasks.pipelines.cleanup import Cleanup, CleanupReport
from tests.registry.conftest import new_database

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class World:
    """Runs with their folders, rows and copies."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.ended: dict[str, float] = {}  # how many days ago
        self.on: set[str] = set()
        self.copies: dict[str, int] = {}

    def run(self, days_ago: float, **files: bytes) -> str:
        """A run with a task for each file, which hands it on."""
        run_id = str(uuid4())
        self.ended[run_id] = days_ago
        self.copies[run_id] = len(files)
        folder = self.home.runs / run_id
        for name in ("workspace", "tasks/a"):
            (folder / name).mkdir(parents=True)
        (folder / "tasks" / "a" / "scratch").write_bytes(b"12345")
        (folder / "pipeline.yaml").write_text("kept")
        for name, data in files.items():
            path = self.path(run_id, name)
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
            self.node(run_id, name, str(path))
        return run_id

    def path(self, run_id: str, name: str) -> Path:
        return self.home.runs / run_id / "artifacts" / name / "data"

    def node(self, run_id: str, task: str, uri: str, **more: Any) -> None:
        outputs = as_data(Bundle({"p": 1}, {"data": Artifact(f"{task}/data", uri)}))
        given = {"fingerprint": f"{run_id}-{task}", "outputs": outputs, **more}
        pipeline_nodes.put([PipelineNode(run_id, task, task, "task", "SUCCEEDED", **given)])

    def row(self, run_id: str, task: str) -> PipelineNode:
        return next(node for node in pipeline_nodes.of(run_id) if node.path == task)

    def believed(self, run_id: str, task: str) -> bool:
        """Whether an equal task would take over what the task has handed on."""
        return recording.Recorder("another").cached(f"{run_id}-{task}") is not None

    def clean(self, days: float = 120, **more: Any) -> CleanupReport:
        return cleanup.clean_up(self.home, days, now=lambda: NOW, **more)

    # What stands in for Prefect and MLflow

    def ended_before(self, instant: datetime) -> list[Old]:
        return [
            Old(run_id, f"run {run_id[:4]}", run_id)
            for run_id, days in self.ended.items()
            if NOW - timedelta(days=days) < instant
        ]

    def is_over(self, run_id: str) -> bool:
        return run_id not in self.on

    def copied(self, run_id: str, folders: tuple[str, ...]) -> tuple[int, int]:
        assert set(folders) == {"artifacts", "reports"}
        return self.copies[run_id], 10 * self.copies[run_id]

    def remove_copies(self, run_id: str, _: tuple[str, ...]) -> None:
        self.copies[run_id] = 0


@pytest.fixture
def world(database_home: Home, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", new_database(database_home))
    catalogue.migrate()
    made = World(home)
    monkeypatch.setattr(pipeline_artifacts, "ended_before", made.ended_before)
    monkeypatch.setattr(pipeline_artifacts, "is_over", made.is_over)
    monkeypatch.setattr(pipeline_artifacts, "copies", made.copied)
    monkeypatch.setattr(pipeline_artifacts, "remove_copies", made.remove_copies)
    yield made
    catalogue.engine().dispose()


def test_what_is_old_goes_and_what_is_newer_stays(world: World) -> None:
    old, new = world.run(121, a=b"123", b=b"4"), world.run(119, a=b"123")
    assert world.believed(old, "a")

    removed = world.clean()

    assert removed.as_result(120, dry_run=False) == {
        "days": 120, "dry_run": False, "runs": 1, "files": 3, "bytes": 9, "mlflow_files": 2,
        "mlflow_bytes": 20, "in_use": 0, "failed": [],
    }  # fmt: skip
    left = {path.name for path in (world.home.runs / old).iterdir()}
    assert left == {"pipeline.yaml", "executor.lock"}
    assert world.path(new, "a").read_bytes() == b"123"
    assert (world.copies[old], world.copies[new]) == (0, 1)
    assert not world.believed(old, "a")
    assert world.believed(new, "a")
    (deed,) = history.of("run", old)
    assert (deed["verb"], deed["detail"]) == ("remove-artifacts", {"files": 3, "copies": 2})


def test_a_row_says_since_when_its_artifacts_are_gone_and_keeps_the_rest(world: World) -> None:
    old = world.run(200, a=b"1")
    world.clean()
    row = world.row(old, "a")
    assert row.outputs["removed"] == "2026-06-01T00:00:00+00:00"
    assert row.outputs["parameters"] == {"p": 1}
    assert row.outputs["artifacts"]["data"]["uri"] == str(world.path(old, "a"))
    assert (row.state, row.fingerprint) == ("SUCCEEDED", "")
    assert recording.Recorder(old)._kept == {}  # a retry runs it again


def test_a_node_that_hands_on_parameters_only_is_believed_still(world: World) -> None:
    old = world.run(200, a=b"1")
    plain = as_data(Bundle({"p": 1}))
    pipeline_nodes.put(
        [PipelineNode(old, "plain", "plain", "task", "SUCCEEDED", fingerprint="f", outputs=plain)]
    )
    world.clean()
    assert world.row(old, "plain").fingerprint == "f"


def test_twice_is_once(world: World) -> None:
    world.run(200, a=b"1")
    assert world.clean().files == 2
    again = world.clean()
    assert (again.runs, again.files, again.copies) == ([], 0, 0)


def test_a_dry_run_tells_the_same_and_removes_nothing(world: World) -> None:
    old = world.run(200, a=b"1")
    told = world.clean(dry_run=True)
    assert world.path(old, "a").exists()
    assert world.believed(old, "a")
    assert (world.copies[old], history.of("run", old)) == (1, [])
    assert told == world.clean()


def test_for_ever_is_for_ever(world: World) -> None:
    old, said = world.run(100_000, a=b"1"), []
    removed = world.clean(0, log=said.append)
    assert (removed.files, world.path(old, "a").exists()) == (0, True)
    assert "for ever" in said[0]


def test_what_a_newer_run_has_taken_over_stays_until_that_is_old(world: World) -> None:
    old, new = world.run(200, a=b"1", b=b"2"), world.run(10)
    world.node(new, "cached", str(world.path(old, "a")), fingerprint="new")

    removed = world.clean()

    assert removed.in_use == 1
    assert world.path(old, "a").exists()
    assert not world.path(old, "b").exists()
    assert world.believed(old, "a")
    assert not world.believed(old, "b")
    assert "removed" not in world.row(new, "cached").outputs

    world.ended[new] = 130
    assert world.clean().files == 2  # and what the newer one has left itself
    assert not world.path(old, "a").exists()
    assert "removed" in world.row(new, "cached").outputs
    assert "removed" in world.row(old, "a").outputs


def test_what_a_newer_run_was_given_stays(world: World) -> None:
    old, new = world.run(200, a=b"1"), world.run(10)
    inputs = as_data(Bundle({}, {"x": [Artifact("x", f"file://{world.path(old, 'a')}")]}))
    pipeline_nodes.put([PipelineNode(new, "t", "t", "task", "RUNNING", inputs=inputs)])
    assert world.clean().in_use == 1
    assert world.path(old, "a").exists()


def test_what_is_taken_over_at_the_last_moment_stays(world: World) -> None:
    old, new = world.run(200, a=b"1"), world.run(0)
    taken = recording.Recorder(new).cached(f"{old}-a")
    assert taken is not None

    def settle() -> None:  # the run that looked just before writes down what it took
        assert not world.believed(old, "a")
        world.node(new, "cached", str(world.path(old, "a")))

    assert world.clean(settle=settle).in_use == 1
    assert world.path(old, "a").exists()


def test_a_run_that_goes_on_again_is_left_alone(world: World) -> None:
    asked, held = world.run(200, a=b"1"), world.run(200, a=b"1")
    world.on.add(asked)
    with run_lock.scope():
        run_lock.acquire(world.home, held)
        removed = world.clean()
    assert removed.files == 0
    assert world.path(asked, "a").exists()
    assert world.path(held, "a").exists()
    assert "removed" not in world.row(held, "a").outputs


def test_links_go_and_what_they_lead_to_stays(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_text("kept")
    old = world.run(200, a=b"1")
    artifacts = world.home.runs / old / "artifacts"
    (artifacts / "to a folder").symlink_to(outside)
    (artifacts / "to a file").symlink_to(outside / "deep" / "file")
    (artifacts / "a" / "loop").symlink_to(artifacts)
    world.clean()
    assert (outside / "deep" / "file").read_text() == "kept"
    assert not artifacts.exists()


def test_a_folder_that_is_a_link_leads_nowhere(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (outside / "artifacts").mkdir()
    (outside / "artifacts" / "file").write_text("kept")
    inner, whole = world.run(200), str(uuid4())
    (world.home.runs / inner / "artifacts").symlink_to(outside)
    world.ended[whole], world.copies[whole] = 200, 0
    (world.home.runs / whole).symlink_to(outside)
    world.clean()
    assert (outside / "file").exists()
    assert (outside / "artifacts" / "file").exists()
    assert not (world.home.runs / inner / "artifacts").is_symlink()


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/data", "/somewhere/else", "{runs}/../data", "{runs}/{run}/../../data", ""],
)
def test_what_lies_elsewhere_is_none_of_its_business(world: World, uri: str) -> None:
    old = world.run(200)
    placed = uri.replace("{runs}", str(world.home.runs)).replace("{run}", old)
    world.node(old, "imported", placed)
    world.clean()
    row = world.row(old, "imported")
    assert (row.fingerprint, "removed" in row.outputs) == (f"{old}-imported", False)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("step", ["disown", "remove_copies", "_clear", "mark"])
def test_killed_anywhere_the_next_one_goes_on(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    olds = [world.run(200, a=b"1", b=b"2") for _ in range(2)]
    where = cleanup if step == "_clear" else pipeline_artifacts
    real, calls = getattr(where, step), []

    def killed(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KilledError
        return real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(where, step, killed)
        with pytest.raises(KilledError):
            world.clean()
    world.clean()
    for old in olds:
        assert not (world.home.runs / old / "artifacts").exists()
        assert "removed" in world.row(old, "a").outputs
        assert world.copies[old] == 0


def test_what_cannot_be_removed_is_told_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = world.run(200, a=b"1", b=b"2")
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == world.path(old, "a"):
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        removed = world.clean()
    assert removed.failed == [f"{world.path(old, 'a')}: Permission denied"]
    assert removed.files == 2
    assert "removed" not in world.row(old, "a").outputs
    assert world.clean().files == 1
    assert "removed" in world.row(old, "a").outputs


def test_the_folder_of_a_run_that_is_gone_is_no_error(world: World) -> None:
    old = world.run(200, a=b"1")
    for path in sorted((world.home.runs / old).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (world.home.runs / old).rmdir()
    removed = world.clean()
    assert (removed.files, removed.copies) == (0, 1)
    assert "removed" in world.row(old, "a").outputs


@pytest.mark.parametrize("days", [-1, 1e9, float("nan")])
def test_days_that_nobody_can_mean_are_refused(days: float) -> None:
    with pytest.raises(BadInputError) as raised:
        cleanup.check(Cleanup(days=days))
    assert raised.value.code == "DaysInvalid"


def test_days_that_somebody_can_mean_are_taken() -> None:
    for days in (None, 0, 0.5, 120):
        cleanup.check(Cleanup(days=days))
