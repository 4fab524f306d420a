"""What a run publishes of its model, beside the user's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.workloads.environment_layout import LIBRARY
from registry import tracking
from registry.models import models
from tasks.run_directory import RunDirectory
from tasks.training import model_publishing, training_request
from tasks.training.training_request import Training
from tests.registry import model_files
from tests.registry.trained import content

Given = Callable[..., Training]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """The files that MLflow gets: the user's, then those that are not."""
    found: list[dict[str, bytes]] = []

    def log_files(run_id: str, folder: Path, path: str, *more: Path) -> str:
        assert (run_id, path) == ("m", "model")
        found.extend(map(content, (folder, *more)))
        return "uri"

    monkeypatch.setattr(tracking, "log_files", log_files)
    return found


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What runs have declared."""
    found: list[Any] = []
    monkeypatch.setattr(models, "declare_framework", lambda *given: found.append(given))
    return found


def pip(files: dict[str, bytes]) -> list[str]:
    dependencies: list[str] = yaml.safe_load(files[".modelyard/python_env.yaml"])["dependencies"]
    return dependencies


def test_without_a_file_there_is_nothing_to_publish(
    given: Given, run_dir: RunDirectory, logged: list[Any]
) -> None:
    run_dir.model.mkdir(parents=True)

    assert model_publishing.publish(given(), run_dir, "m", print) == ""
    assert logged == []


def test_versions_are_those_of_the_scripts_environment(
    given: Given, run_dir: RunDirectory, tmp_path: Path, logged: list[Any], declared: list[Any]
) -> None:
    model_files.scikit_learn(run_dir.model, "n")
    environment = tmp_path / "environment"
    for name, version in (("scikit-learn", "1.0.2"), ("own-thing", "7+cpu")):
        info = environment / LIBRARY / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    run_dir.interpreter.write_text(str(environment / "bin" / "python"))
    (run_dir.source / "deep").mkdir(parents=True)
    (run_dir.source / "deep" / "requirements.txt").write_text("own-thing\n")
    training = given(
        algorithm={"uri": "TMP/algorithm", "entry_point": "deep/train.py"},
        output_uri="",
    )

    assert model_publishing.publish(training, run_dir, "m", print) == "uri"

    own, ours = logged
    assert list(own) == ["model.joblib"]
    assert "MLmodel" in ours
    assert {"scikit-learn==1.0.2", "own-thing==7"} <= set(pip(ours))
    assert declared == []
    assert list(content(run_dir.model)) == ["model.joblib"]


def test_an_environment_that_is_gone_has_no_versions(
    given: Given, run_dir: RunDirectory, logged: list[Any], declared: list[Any]
) -> None:
    model_files.scikit_learn(run_dir.model, "n")
    for gone in ("", "/nowhere/bin/python"):
        if gone:
            run_dir.interpreter.write_text(gone)

        model_publishing.publish(given(), run_dir, "m", print)

        assert {"scikit-learn", "joblib"} <= set(pip(logged[-1]))


def test_a_provided_algorithm_declares_its_framework(
    given: Given, run_dir: RunDirectory, logged: list[Any], declared: list[Any]
) -> None:
    model_files.scikit_learn(run_dir.model, "n")
    training = training_request.resolved(
        given(algorithm={"provided": "gradient-boosting"}, hyperparameters={"target": "y"})
    )

    model_publishing.publish(training, run_dir, "m", print)

    ((run_id, framework, version),) = declared
    assert (run_id, framework) == ("m", "scikit-learn")
    assert version[0].isdecimal()


def test_files_that_mlflow_cannot_load_are_told_and_published(
    given: Given, run_dir: RunDirectory, logged: list[Any]
) -> None:
    run_dir.model.mkdir(parents=True)
    (run_dir.model / "weights").write_text("w")
    told: list[str] = []

    assert model_publishing.publish(given(), run_dir, "m", told.append) == "uri"

    assert logged == [{"weights": b"w"}, {}]
    assert "docs/models.md" in told[0]


def test_the_output_has_the_users_files_alone(
    given: Given, run_dir: RunDirectory, tmp_path: Path, logged: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model_files.scikit_learn(run_dir.model, "n")
    monkeypatch.setattr(model_publishing.publish_targets, "record", lambda *_: None)

    model_publishing.publish(given(output_uri="TMP/out"), run_dir, "m", print)

    assert list(content(tmp_path / "out")) == ["model.joblib"]
