"""Where the lines of a run's log come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.home import Home
from infra.mlflow import FileInfo, MlflowException
from registry.runs import runs
from tasks import run_logs

RUN = "3e5ad8bb-6f1a-4dd8-9fae-0f2a3c6f4a11"


class World:
    """A run in Prefect and MLflow, with its folder; each pause is a step of its script."""

    def __init__(self, home: Home) -> None:
        self.log = home.runs / RUN / "train.log"
        self.log.parent.mkdir(parents=True)
        self.lines: list[str] = []
        self.steps: list[object] = []
        self.artifacts: dict[str, bytes] = {}
        self.error: MlflowException | None = None
        self.tracking_uri = ""

    def ended(self, _: str) -> bool:
        return not self.steps

    def logs(self, _: str, after: int = 0) -> list[str]:
        return self.lines[after:][:2]

    def pause(self, _: float) -> None:
        if self.steps:
            step = self.steps.pop(0)
            assert callable(step)
            step()

    def writes(self, text: str) -> object:
        def write() -> None:
            with self.log.open("a") as file:
                file.write(text)

        return write

    def prints(self, *lines: str) -> object:
        return lambda: self.lines.extend(lines)

    # MLflow's client and the repository of the run's artifacts.
    def repository(self, _: str) -> World:
        if self.error:
            raise self.error
        return self

    def list_artifacts(self, folder: str) -> list[FileInfo]:
        return [FileInfo(name, False, 1) for name in self.artifacts if name.startswith(folder)]

    def read(self, path: str) -> Iterator[bytes]:
        content = self.artifacts[path]
        yield from (content[:5], content[5:])


@pytest.fixture
def world(home: Home, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(home)
    monkeypatch.setattr(runs, "ended", made.ended)
    monkeypatch.setattr(runs, "logs", made.logs)
    monkeypatch.setattr(runs, "mlflow_run_id", lambda _: "m")
    monkeypatch.setattr(run_logs.tracking, "client", lambda: made)
    return made


def followed(world: World) -> list[str]:
    return list(run_logs.follow(RUN, world.pause))


def test_of_a_script_it_is_the_file(world: World) -> None:
    world.log.write_bytes("eins\rzwei\nd\u00e9ux".encode())
    world.lines = ["not these"]

    assert list(run_logs.read(RUN)) == ["eins", "zwei", "d\u00e9ux"]


def test_where_the_folder_is_gone_it_is_the_artifact_of_every_node(world: World) -> None:
    world.artifacts = {
        "logs/train-node-1.log": b"three\n", "logs/train.log": b"one\ntwo", "logs/odd.txt": b"",
    }  # fmt: skip
    world.lines = ["not these"]

    assert list(run_logs.read(RUN)) == ["one", "two", "[node 1] three"]


@pytest.mark.parametrize("deleted", [True, False])
def test_of_another_flow_it_is_what_prefect_has(world: World, deleted: bool) -> None:
    world.artifacts = {"logs/other.log": b"", "model/train.log": b""}
    world.error = MlflowException("gone", "RESOURCE_DOES_NOT_EXIST", 404) if deleted else None
    world.lines = ["a", "b", "c", "d", "e"]

    assert list(run_logs.read(RUN)) == world.lines


def test_a_silent_mlflow_is_an_error(world: World) -> None:
    world.error = MlflowException("no answer", "INTERNAL_ERROR", 500)

    with pytest.raises(MlflowException):
        list(run_logs.read(RUN))


def test_it_is_followed_until_the_run_has_ended(world: World) -> None:
    world.log.write_text("one\ntw")
    world.steps = [world.writes("o\nthree\n"), lambda: None, world.writes("four")]

    assert followed(world) == ["one", "two", "three", "four"]


def test_before_the_script_has_a_log_prefects_lines_are_followed(world: World) -> None:
    world.lines = ["Fetching", "Installing a"]
    world.steps = [
        world.prints("Installing b"),
        world.writes("step 1\n"),
        world.prints("step 1", "step 2"),  # Prefect has them as well
        world.writes("step 2\n"),
    ]

    assert followed(world) == ["Fetching", "Installing a", "Installing b", "step 1", "step 2"]


def test_the_last_lines_of_prefect_come_after_the_end(world: World) -> None:
    world.steps = [world.prints("a")]
    late = [world.prints("b", "c")]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        if not world.steps and late:
            late.pop()()  # type: ignore[operator]
        pauses.append(seconds)
        world.pause(seconds)

    assert list(run_logs.follow(RUN, pause)) == ["a", "b", "c"]
    assert len(pauses) == 2


def test_one_that_has_ended_is_not_waited_for(world: World) -> None:
    world.log.write_text("one")

    assert list(run_logs.follow(RUN, lambda _: pytest.fail("it waits"))) == ["one"]


def test_an_artifact_that_a_store_of_its_own_has_is_read_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.mlflow import artifacts

    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train.log").write_text("whole")
    repository = artifacts.repository(tmp_path.as_uri(), "http://127.0.0.1:1")

    assert b"".join(repository.read("logs/train.log")) == b"whole"
