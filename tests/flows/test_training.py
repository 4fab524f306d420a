"""The end of a training, which may be interrupted anywhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows import run_context, training
from flows.run_context import RunContext, RunResult
from infra import settings, site
from infra.errors import RunFailedError
from infra.home import Home
from infra.workloads.exit_status import ExitStatus
from registry.runs.run_views import RunResultView
from registry.tunings import trial_flows
from tasks.run_directory import RunDirectory
from tasks.training.training_request import Training
from tests.flows.contexts import run_context_of


class Interrupted(BaseException):
    """The process is gone."""


@pytest.fixture
def context(home: Home) -> RunContext:
    return run_context_of(home, flow_run_id="run-id", settings=settings.load())


@pytest.fixture(autouse=True)
def concluding(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the ends that the run's labels show are failures."""
    told: list[bool] = []
    monkeypatch.setattr(RunContext, "conclude", lambda _, *, failed: told.append(failed))
    monkeypatch.setattr(RunContext, "report_error", lambda *_: None)
    return told


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "run-id")
    made.model.mkdir(parents=True)
    (made.model / "weights").write_text("w")
    made.finished_marker.touch()
    return made


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found: list[Path] = []
    monkeypatch.setattr(training, "_publish", lambda *given: found.append(given[2].model))
    return found


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statuses with which MLflow runs were closed."""
    closed: list[str] = []
    tracked = training.Tracked("m", "url", {})
    monkeypatch.setattr(run_context.tracking, "open_run", lambda *_, **__: tracked)
    monkeypatch.setattr(run_context.tracking, "close_run", lambda _, status: closed.append(status))
    monkeypatch.setattr(run_context.artifacts, "tie_to_mlflow", lambda *_: None)
    return closed


def _conclude(run_dir: RunDirectory, context: RunContext) -> RunResult:
    return training._conclude(context, Training(), run_dir, "m")


def _train(context: RunContext, request: Training) -> State[Any]:
    return run_context.run_to_end(context, lambda: training.train.work(context, request))


def test_a_script_that_has_ended_well_is_not_run_again_whenever_its_run_is_killed(
    run_dir: RunDirectory,
    context: RunContext,
    published: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(_: str) -> Any:
        raise Interrupted

    monkeypatch.setattr(training.tracking, "result", killed)
    with pytest.raises(Interrupted):
        _conclude(run_dir, context)
    assert run_dir.finished_marker.exists()

    found = RunResultView(mlflow_run_id="m", model_uri="models:/n/1", metrics={})
    monkeypatch.setattr(training.tracking, "result", lambda _: found)
    assert _conclude(run_dir, context) == RunResult(found.to_json(), "Model: models:/n/1")
    assert published == [run_dir.model]  # once
    assert run_dir.finished_marker.exists()
    assert not run_dir.model.exists()


def test_what_could_not_be_published_waits(
    run_dir: RunDirectory,
    context: RunContext,
    concluding: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        assert concluding == [False]
        raise OSError("no room")

    monkeypatch.setattr(training, "_publish", refuse)
    with pytest.raises(OSError, match="no room"):
        _conclude(run_dir, context)

    assert run_dir.has_unpublished_model
    run_dir.clear()
    assert (run_dir.model / "weights").exists()


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_retry_prepares_nothing_for_a_script_that_has_ended_well(
    context: RunContext, published: list[Path], monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    own = RunDirectory(context.home.runs / context.flow_run_id)
    own.root.mkdir(parents=True)
    own.finished_marker.touch()
    context.attempt = attempt
    prepared: list[str] = []

    def prepare(*_: Any) -> Any:
        prepared.append("prepared")
        raise Interrupted

    monkeypatch.setattr(training, "_prepare", prepare)
    found = RunResultView(mlflow_run_id="m", model_uri=None, metrics={})
    monkeypatch.setattr(training.tracking, "result", lambda _: found)
    monkeypatch.setattr(training.training_request, "resolved", lambda request: request)
    monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("training"))
    if attempt == 1:
        with pytest.raises(Interrupted):
            _train(context, Training())
    else:
        assert _train(context, Training()).message.startswith("Model: none (the script wrote no")
        unregistered = Training.model_validate({"model": {"register": "never"}})
        assert _train(context, unregistered).message == "Model: none registered"

    assert prepared == ["prepared"] * (2 - attempt)


class TestRegistration:
    @pytest.mark.parametrize(
        ("asked", "labels", "name"),
        [
            ({}, {}, "n"),  # the name that Prefect gave
            ({"name": "run"}, {}, "run"),
            ({"name": "run", "model": {"name": "churn"}}, {}, "churn"),
            ({"model": {"name": "churn", "register": "never"}}, {}, None),
            ({"model": {"name": "churn"}}, {trial_flows.TUNING_LABEL: "t"}, None),
        ],
    )
    def test_the_model_that_gets_the_version(
        self, context: RunContext, run_dir: RunDirectory, monkeypatch: pytest.MonkeyPatch,
        asked: dict[str, Any], labels: dict[str, str], name: str | None,
    ) -> None:  # fmt: skip
        made: list[Any] = []
        found = RunResultView(mlflow_run_id="m", model_uri=None, metrics={})
        monkeypatch.setattr(training.tracking, "result", lambda _: found)
        monkeypatch.setattr(training.model_publishing, "publish", lambda *_: "uri")
        monkeypatch.setattr(training.models, "register", lambda *given: made.append(given))
        monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("training"))
        monkeypatch.setattr(training, "_publish", training._publish.fn)
        context.labels = labels

        training._conclude(context, Training(**asked), run_dir, "m")

        origin = training.models.SourceRun("m", context.flow_run_id, "uri")
        assert made == ([] if name is None else [(name, context.created, origin)])


class TestAHomeThatDoesNotLast:
    """That of a pod, which goes with it."""

    @pytest.fixture
    def pod(self, home: Home) -> RunContext:
        passing = settings.load().model_copy(update={"home_lasts": False})
        return run_context_of(home, flow_run_id="run-id", attempt=2, settings=passing)

    @pytest.fixture
    def said(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
        caplog.set_level(logging.INFO, "training")
        monkeypatch.setattr(run_context, "get_run_logger", lambda: logging.getLogger("training"))
        return caplog

    @pytest.mark.parametrize(
        ("uri", "told"),
        [
            ("", "With a checkpoint_uri it would resume"),
            ("s3://b/c", "no checkpoints in s3://b/c"),
        ],
    )
    def test_a_retry_that_starts_over_says_so(
        self, pod: RunContext, said: Any, monkeypatch: pytest.MonkeyPatch, uri: str, told: str
    ) -> None:
        prepared = training.PreparedScript(["x"], {}, Path("/c"), resumed=False)
        monkeypatch.setattr(training.training_steps, "prepare", lambda *_, **__: prepared)
        prepare = training._prepare.fn
        run_dir = RunDirectory(pod.home.runs / "run-id")
        prepare(pod, Training(checkpoint_uri=uri), run_dir)
        assert told in said.text

        said.clear()
        pod.attempt = 1
        prepare(pod, Training(checkpoint_uri=uri), run_dir)
        assert said.text == ""

    def test_one_that_resumes_says_that(
        self, pod: RunContext, said: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepared = training.PreparedScript(["x"], {}, Path("/c"), resumed=True)
        monkeypatch.setattr(training.training_steps, "prepare", lambda *_, **__: prepared)
        training._prepare.fn(pod, Training(), RunDirectory(pod.home.runs / "run-id"))

        assert "Resuming" in said.text
        assert "over" not in said.text

    @pytest.mark.parametrize("in_pod", [True, False])
    def test_an_image_is_used_in_a_pod_alone(
        self, pod: RunContext, said: Any, monkeypatch: pytest.MonkeyPatch, in_pod: bool
    ) -> None:
        prepared = training.PreparedScript(["x"], {}, Path("/c"), resumed=True)
        monkeypatch.setattr(training.training_steps, "prepare", lambda *_, **__: prepared)
        monkeypatch.setattr(site, "in_pod", lambda: in_pod)
        asked = Training(resources={"image": "mine:1"})
        training._prepare.fn(pod, asked, RunDirectory(pod.home.runs / "run-id"))

        assert ("mine:1 is ignored" in said.text) is not in_pod

    def test_a_hint_names_the_log_that_is_left(
        self, pod: RunContext, run_dir: RunDirectory
    ) -> None:
        ended = ExitStatus(1, tail=("boom",))
        with pytest.raises(RunFailedError) as raised:
            training._check_end(pod, Training(), run_dir, ended)

        assert "logs/train.log" in raised.value.hint
        assert str(run_dir.root) not in raised.value.hint

    @pytest.mark.parametrize("lasts", [True, False])
    def test_its_tensorboard_logs_are_kept_in_mlflow(
        self, pod: RunContext, said: Any, monkeypatch: pytest.MonkeyPatch, lasts: bool
    ) -> None:
        kept: list[tuple[str, Path]] = []
        pod.settings = pod.settings.model_copy(update={"home_lasts": lasts})
        monkeypatch.setattr(training, "_prepare", lambda *_: None)
        monkeypatch.setattr(
            training.tensorboard_logs, "keep", lambda run, folder, _: kept.append((run, folder))
        )
        bad = RuntimeError("anything")

        def conclude(*_: Any) -> Any:
            raise bad

        monkeypatch.setattr(training, "_conclude", conclude)
        with pytest.raises(RuntimeError):
            _train(pod, Training())

        logs = RunDirectory(pod.home.runs / "run-id").tensorboard
        assert kept == ([] if lasts else [("m", logs)])
