from __future__ import annotations

from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError
from registry import (
    model_aliases,
    models,
    tracking,
)
from registry.models import Making
from tests.registry import model_files
from tests.registry.trained import MakeRun, Run, killed

pytestmark = pytest.mark.usefixtures("mlflow")


def code(raised: pytest.ExceptionInfo[ModelyardError]) -> str:
    return raised.value.code


@pytest.fixture
def left(run: MakeRun) -> Run:
    return run()


@pytest.fixture
def registered(name: str, left: Run) -> str:
    return models.register(name, left.id, left.source, left.flow_run_id)


def test_descriptions(name: str, registered: str) -> None:
    models.describe(name, 1, "The first.")
    assert next(m for m in models.list_all() if m["name"] == name)["description"] == ("The first.")
    models.describe(name, None, "All of them.")

    shown = models.show(name)

    assert shown["description"] == "All of them."
    assert shown["versions"][0]["description"] == "The first."
    assert [deed["verb"] for deed in shown["history"]] == ["create", "describe", "describe"]
    models.describe(name, None, "")
    assert models.show(name)["description"] == ""


def test_what_is_not_there_cannot_be_described(name: str, registered: str) -> None:
    for who, number in ((f"{name}-x", None), (name, 2)):
        with pytest.raises(NotFoundError):
            models.describe(who, number, "x")
    with pytest.raises(BadInputError) as raised:
        models.describe(name, None, "x" * 4001)
    assert code(raised) == "TextInvalid"


def test_a_version_is_completed_once(name: str, registered: str) -> None:
    models.complete(name, 1, Making("", "", {"a": 1}))
    models.complete(name, 1, Making("scikit-learn", "1.9"))
    models.complete(name, 1, Making("scikit-learn", "1.9", {"a": 1}))

    found = models.resolve(registered)
    assert (found.framework, found.framework_version) == ("scikit-learn", "1.9")
    for making in (Making("onnx"), Making("", "2"), Making("", "", {"a": 2})):
        with pytest.raises(ConflictError) as raised:
            models.complete(name, 1, making)
        assert code(raised) == "AlreadySet"
    assert models.resolve(registered) == found


def test_its_files_must_fit(name: str, registered: str) -> None:
    with pytest.raises(BadInputError) as raised:
        models.complete(name, 1, Making("onnx"))

    assert code(raised) == "OnnxMissing"
    assert models.resolve(registered).framework is None


def test_killed_between_its_steps_it_has_no_framework_and_a_repeat_mends(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = Making("scikit-learn", "1.9", {"a": 1})
    steps = []
    really = tracking.client().set_model_version_tag

    def second_kills(_: Any, *args: Any) -> None:
        steps.append(args)
        if len(steps) == 2:
            raise KeyboardInterrupt
        really(*args)

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_model_version_tag", second_kills)
        with pytest.raises(KeyboardInterrupt):
            models.complete(name, 1, making)
    assert models.resolve(registered).framework is None

    models.complete(name, 1, making)

    assert models.resolve(registered).parameters == {"a": 1}
    assert models.resolve(registered).framework == "scikit-learn"


def test_rename(name: str, registered: str, left: Run) -> None:
    new = f"{name}-new"
    model_aliases.point(name, "champion", 1)

    models.rename(name, new)

    shown = models.show(new)
    assert shown["aliases"] == {"champion": 1}
    assert shown["aliases_changed_outside"] == []
    assert left.tag == f"models:/{new}/1"
    assert models.resolve(f"models:/{new}@champion").mlflow_run_id == left.id
    with pytest.raises(NotFoundError):
        models.show(name)
    models.rename(new, new)


def test_a_name_that_is_taken(name: str, registered: str, left: Run) -> None:
    other = f"{name}-other"
    tracking.client().create_registered_model(other)

    with pytest.raises(ConflictError) as raised:
        models.rename(name, other)

    assert code(raised) == "NameTaken"
    assert left.tag == registered
    with pytest.raises(BadInputError):
        models.rename(name, "a/b")


def test_killed_before_the_name_changes_a_repeat_mends(
    name: str, registered: str, left: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.rename_registered_model", killed)
        with pytest.raises(KeyboardInterrupt):
            models.rename(name, f"{name}-new")

    models.rename(name, f"{name}-new")

    assert left.tag == f"models:/{name}-new/1"


def test_an_archive_keeps_the_name_that_it_was_packed_under(name: str, run: MakeRun) -> None:
    left = run(model_files.pytorch_archive)
    models.create(name, Making("pytorch"), origin=left.origin)

    with pytest.raises(BadInputError) as raised:
        models.rename(name, f"{name}-new")

    assert code(raised) == "ArchiveNameDiffers"
    assert models.show(name)["versions"][0]["state"] == "ACTIVE"
