"""TensorBoard logs that outlive the machine of their run, in a real MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.mlflow import MlflowException
from registry import tracking
from registry.runs import runs, tensorboard_logs
from registry.runs.tensorboard_logs import Fetched
from tests.registry.fake_runs import new_id, opening
from tests.registry.server import MlflowServer


def _events(folder: Path, name: str) -> Path:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train" / f"events.out.tfevents.{name}").write_text(name)
    return folder


@pytest.fixture
def run(mlflow: MlflowServer) -> str:
    """An MLflow run."""
    return tracking.open_run(opening(new_id(), "logs"), retried=False).run_id


@pytest.fixture
def said() -> list[str]:
    return []


def _found(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_logs_of_every_attempt_are_kept_and_fetched_once(
    run: str, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboard_logs.keep(run, _events(tmp_path / "first", "1"), said.append)
    tensorboard_logs.keep(run, _events(tmp_path / "second", "2"), said.append)
    monkeypatch.setattr(runs, "mlflow_run_id", {"flow-run": run}.get)
    fetched = Fetched(tmp_path / "fetched")

    found = fetched.folder("flow-run")
    assert _found(found) == ["events.out.tfevents.1", "events.out.tfevents.2"]
    assert (found / "train").is_dir()
    monkeypatch.setattr(tracking, "client", None)  # it is not asked again
    assert fetched.folder("flow-run", run) == found
    assert said == []


def test_a_run_without_logs_keeps_none(run: str, tmp_path: Path, said: list[str]) -> None:
    tensorboard_logs.keep(run, tmp_path / "none", said.append)
    (tmp_path / "empty").mkdir()
    tensorboard_logs.keep(run, tmp_path / "empty", said.append)

    assert tracking.client().list_artifacts(run) == []
    assert not Fetched(tmp_path / "fetched").folder("flow-run", run).exists()
    assert _found(tmp_path / "fetched") == said == []


def test_a_run_that_is_gone_has_none(mlflow: MlflowServer, tmp_path: Path) -> None:
    fetched = Fetched(tmp_path / "fetched")

    assert not fetched.folder("flow-run", "0" * 32).exists()
    assert fetched._known == {"flow-run"}


def test_a_run_that_never_began_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "mlflow_run_id", lambda _: None)

    assert not Fetched(tmp_path / "fetched").folder("flow-run").exists()


class _Silent:
    def __getattr__(self, _: str) -> Any:
        def fail(*_: Any) -> None:
            raise MlflowException("no answer")

        return fail


def test_what_could_not_be_kept_is_said(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "client", _Silent)
    tensorboard_logs.keep("m", _events(tmp_path / "logs", "1"), said.append)

    assert said == ["The TensorBoard logs were not kept: no answer"]


def test_an_mlflow_that_does_not_answer_is_asked_again(
    run: str, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboard_logs.keep(run, _events(tmp_path / "logs", "1"), said.append)
    fetched = Fetched(tmp_path / "fetched")
    with monkeypatch.context() as silent:
        silent.setattr(tracking, "client", _Silent)
        assert not fetched.folder("flow-run", run).exists()

    assert _found(fetched.folder("flow-run", run)) == ["events.out.tfevents.1"]
