from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError
from registry import catalogue, deletion, history, tracking, training_templates
from registry.models import (
    model_aliases,
    model_lineage,
    model_removal,
    model_updates,
    models,
)
from registry.models.models import ServingSpec
from registry.schedules import schedules
from tests.registry import model_files
from tests.registry.fake_runs import CREATED, Prefect
from tests.registry.scheduled import scheduled
from tests.registry.trained import MakeRun, Run, killed

pytestmark = pytest.mark.usefixtures("mlflow")


def code(raised: pytest.ExceptionInfo[ModelyardError]) -> str:
    return raised.value.code


@pytest.fixture
def left(run: MakeRun) -> Run:
    return run()


@pytest.fixture
def registered(name: str, left: Run) -> str:
    return left.registered(name)


def test_descriptions(name: str, registered: str) -> None:
    model_updates.update(name, number=1, description="The first.")
    assert next(m for m in models.list_all() if m["name"] == name)["description"] == ("The first.")
    model_updates.update(name, number=None, description="All of them.")

    shown = models.show(name)

    assert shown["description"] == "All of them."
    assert shown["versions"][0]["description"] == "The first."
    assert [deed["verb"] for deed in shown["history"]] == ["create", "describe", "describe"]
    model_updates.update(name, number=None, description="")
    assert models.show(name)["description"] == ""


def test_what_is_not_there_cannot_be_described(name: str, registered: str) -> None:
    for who, number in ((f"{name}-x", None), (name, 2)):
        with pytest.raises(NotFoundError):
            model_updates.update(who, number=number, description="x")
    with pytest.raises(BadInputError) as raised:
        model_updates.update(name, number=None, description="x" * 4001)
    assert code(raised) == "TextInvalid"


def test_a_version_is_completed_once(name: str, registered: str) -> None:
    model_updates.update(name, number=1, serving=ServingSpec("", "", {"a": 1}))
    model_updates.update(name, number=1, serving=ServingSpec("scikit-learn", "1.9"))
    model_updates.update(name, number=1, serving=ServingSpec("scikit-learn", "1.9", {"a": 1}))

    found = models.resolve(registered)
    assert (found.framework, found.framework_version) == ("scikit-learn", "1.9")
    for serving in (ServingSpec("onnx"), ServingSpec("", "2"), ServingSpec("", "", {"a": 2})):
        with pytest.raises(ConflictError) as raised:
            model_updates.update(name, number=1, serving=serving)
        assert code(raised) == "AlreadySet"
    assert models.resolve(registered) == found


def test_its_files_must_fit(name: str, registered: str) -> None:
    with pytest.raises(BadInputError) as raised:
        model_updates.update(name, number=1, serving=ServingSpec("onnx"))

    assert code(raised) == "OnnxMissing"
    assert models.resolve(registered).framework is None


def test_killed_between_its_steps_it_has_no_framework_and_a_repeat_mends(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = ServingSpec("scikit-learn", "1.9", {"a": 1})
    steps = []
    really = tracking.client().set_model_version_tag

    def second_kills(_: Any, *args: Any) -> None:
        steps.append(args)
        if len(steps) == 2:
            raise KeyboardInterrupt
        really(*args)

    with monkeypatch.context() as patch:
        patch.setattr("infra.mlflow.MlflowClient.set_model_version_tag", second_kills)
        with pytest.raises(KeyboardInterrupt):
            model_updates.update(name, number=1, serving=serving)
    assert models.resolve(registered).framework is None

    model_updates.update(name, number=1, serving=serving)

    assert models.resolve(registered).parameters == {"a": 1}
    assert models.resolve(registered).framework == "scikit-learn"


def test_rename(name: str, registered: str, left: Run) -> None:
    new = f"{name}-new"
    model_aliases.point(name, "champion", 1)

    model_updates.update(name, new=new)

    shown = models.show(new)
    assert shown["history"][-1]["detail"] == {"was": name}
    assert shown["aliases"] == {"champion": 1}
    assert shown["aliases_changed_outside"] == []
    assert left.tag == f"models:/{new}/1"
    assert models.resolve(f"models:/{new}@champion").mlflow_run_id == left.id
    with pytest.raises(NotFoundError):
        models.show(name)
    model_updates.update(new, new=new)


def test_schedules_and_templates_follow_a_new_name(name: str, registered: str) -> None:
    parameters = {"model": {"name": name, "register": "always"}, "name": name}
    followed = {**parameters, "model": {"name": f"{name}-new", "register": "always"}}
    training_templates.create(name, "", parameters)
    schedules.add(scheduled(name, parameters))
    schedules.add(scheduled(f"{name} other", {"model": {"name": "x"}}))

    model_updates.update(name, new=f"{name}-new")

    assert training_templates.parameters(name) == followed
    followed_deed = training_templates.show(name).history[-1]
    assert (followed_deed["verb"], followed_deed["detail"]) == (
        "follow", {"parameter": "model.name", "was": name, "to": f"{name}-new"},
    )  # fmt: skip
    found = schedules.names_and_parameters()
    assert found[name] == followed
    assert found[f"{name} other"] == {"model": {"name": "x"}}
    with catalogue.session() as session:
        keys = {row.name: row.id for row in schedules.present(session)}
    assert [one["detail"] for one in history.of("schedule", keys[name])] == [
        {"parameter": "model.name", "was": name, "to": f"{name}-new"},
    ]  # fmt: skip
    assert history.of("schedule", keys[f"{name} other"]) == []


def test_schedules_that_predict_follow_a_new_name(name: str, registered: str) -> None:
    given = {
        "number": f"{name}/1", "alias": f"models:/{name}@best", "other": f"{name}-other/1",
        "no": "model",
    }  # fmt: skip
    for key, model in given.items():
        schedules.add(scheduled(f"{key} {name}", {"model": model}, "batch-inference"))

    model_updates.update(name, new=f"{name}-new")

    found = schedules.names_and_parameters()
    assert {key: found[f"{key} {name}"]["model"] for key in given} == {
        **given, "number": f"{name}-new/1", "alias": f"models:/{name}-new@best",
    }  # fmt: skip


class TestHistory:
    """It belongs to the model, not to the name."""

    def verbs(self, name: str) -> list[str]:
        return [deed["verb"] for deed in models.show(name)["history"]]

    def test_it_goes_along_with_a_renamed_model(self, name: str, registered: str) -> None:
        model_updates.update(name, number=1, description="The first.")
        model_updates.update(name, new=f"{name}-b")
        model_updates.update(f"{name}-b", new=f"{name}-c")
        model_updates.update(f"{name}-c", description="All.")

        assert self.verbs(f"{name}-c") == ["create", "describe", "rename", "rename", "describe"]

    def test_another_model_of_the_old_name_begins_anew(
        self, name: str, registered: str, run: MakeRun
    ) -> None:
        model_updates.update(name, description="Old.")
        model_updates.update(name, new=f"{name}-b")
        left = run(called=f"{name} 2")
        left.registered(name)
        model_updates.update(name, description="New.")

        assert self.verbs(name) == ["create", "describe"]
        assert models.show(name)["history"][-1]["detail"]["description"] == "New."
        assert self.verbs(f"{name}-b") == ["create", "describe", "rename"]

    @pytest.mark.parametrize("version", [None, 1])
    def test_one_made_after_a_deletion_begins_anew(
        self, name: str, registered: str, run: MakeRun, version: int | None
    ) -> None:
        assert deletion.delete("model", name, version=version)["model_deleted"]
        left = run(called=f"{name} 2")
        left.registered(name)

        assert self.verbs(name) == ["create"]

    def test_a_version_that_is_deleted_ends_nothing(
        self, name: str, registered: str, run: MakeRun
    ) -> None:
        left = run(called=f"{name} 2")
        left.registered(name)
        assert not deletion.delete("model", name, version=1)["model_deleted"]

        assert self.verbs(name) == ["create", "create", "delete"]

    def test_one_deleted_in_mlflow_itself_leaves_none(
        self, name: str, registered: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_aliases, "_CLOCKS_DIFFER", timedelta(0))
        tracking.client().delete_registered_model(name)
        tracking.client().create_registered_model(name)

        assert self.verbs(name) == []


def test_a_run_that_is_gone_is_told(
    name: str, registered: str, left: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect = Prefect.installed(monkeypatch)
    (notice,) = model_lineage.show(name).notices
    assert f"the run {left.flow_run_id}" in notice
    assert f"the MLflow run {left.id}" in notice

    CREATED[left.flow_run_id] = datetime.now(UTC)
    prefect.put(left.flow_run_id, "COMPLETE")

    assert model_lineage.show(name).notices == []
    assert "notices" not in model_lineage.show(name).to_json()


def test_runs_that_are_gone_are_reported_once(
    name: str, registered: str, left: Run, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    Prefect.installed(monkeypatch)
    model_lineage.report_gone()
    tracking.client().delete_run(left.id)
    model_lineage.report_gone()
    model_lineage.report_gone()

    found = model_lineage.show(name)
    mine = [line for line in caplog.messages if line.startswith(f"The model {name}: ")]
    assert [line.split(" no longer has")[0].split()[-1] for line in mine] == [
        "Prefect", "MLflow",
    ]  # fmt: skip
    assert [deed["verb"] for deed in found.history] == ["create", "run gone", "run gone"]
    assert len(found.notices) == 2


def test_a_name_that_is_taken(name: str, registered: str, left: Run) -> None:
    other = f"{name}-other"
    tracking.client().create_registered_model(other)

    with pytest.raises(ConflictError) as raised:
        model_updates.update(name, new=other)

    assert code(raised) == "NameTaken"
    assert left.tag == registered
    with pytest.raises(BadInputError):
        model_updates.update(name, new="a/b")


def test_killed_before_the_name_changes_a_repeat_mends(
    name: str, registered: str, left: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("infra.mlflow.MlflowClient.rename_registered_model", killed)
        with pytest.raises(KeyboardInterrupt):
            model_updates.update(name, new=f"{name}-new")

    model_updates.update(name, new=f"{name}-new")

    assert left.tag == f"models:/{name}-new/1"


def test_an_archive_keeps_the_name_that_it_was_packed_under(name: str, run: MakeRun) -> None:
    left = run(model_files.pytorch_archive)
    models.create(name, ServingSpec("pytorch"), origin=left.origin)

    with pytest.raises(BadInputError) as raised:
        model_updates.update(name, new=f"{name}-new")

    assert code(raised) == "ArchiveNameDiffers"
    assert models.show(name)["versions"][0]["state"] == "ACTIVE"


def test_killed_before_the_name_is_written_down_a_repeat_mends(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = f"{name}-new"
    model_aliases.point(name, "champion", 1)
    really = history.record
    for survived in (0, 1):  # neither deed; the new name's alone
        deeds: list[Any] = []

        def record(*args: Any, deeds: list[Any] = deeds, survived: int = survived, **more: Any):  # type: ignore[no-untyped-def]
            deeds.append(args)
            if len(deeds) > survived:
                raise KeyboardInterrupt
            really(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(history, "record", record)
            with pytest.raises(KeyboardInterrupt):
                model_updates.update(name, new=new)

        model_updates.update(name, new=new)

        assert [move["to"] for move in model_aliases.moves(new)] == [1]
        assert models.show(new)["aliases_changed_outside"] == []
        assert model_aliases.changed_outside(name) == []
        model_updates.update(new, new=name)
    assert [move["to"] for move in model_aliases.moves(name)] == [1]


def test_killed_before_the_name_is_written_down_the_next_move_mends(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = f"{name}-new"
    model_aliases.point(name, "champion", 1)
    with monkeypatch.context() as patch:
        patch.setattr(history, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            model_updates.update(name, new=new)

    model_aliases.drop(new, "champion")

    assert [(move["from"], move["to"]) for move in model_aliases.moves(new)] == [
        (None, 1), (1, None),
    ]  # fmt: skip
    assert "modelyard.renaming" not in tracking.client().get_registered_model(new).tags


def test_a_deletion_that_begins_before_the_lock_is_held_stops_a_new_name(
    name: str, registered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = catalogue.advisory_lock

    def then_claimed(subject: str) -> Any:
        monkeypatch.setattr(catalogue, "advisory_lock", really)
        model_removal.claim(name)
        return really(subject)

    monkeypatch.setattr(catalogue, "advisory_lock", then_claimed)
    with pytest.raises(ConflictError) as raised:
        model_updates.update(name, new=f"{name}-new")

    assert code(raised) == "ModelNotActive"


def test_of_two_who_complete_it_at_once_one_is_told(name: str, registered: str) -> None:
    both = threading.Barrier(2)
    told: list[str] = []

    def complete(version: str) -> None:
        both.wait(30)
        try:
            model_updates.update(name, number=1, serving=ServingSpec("scikit-learn", version))
            told.append("done")
        except ConflictError as error:
            told.append(error.code)

    threads = [threading.Thread(target=complete, args=(version,)) for version in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sorted(told) == ["AlreadySet", "done"]


def test_what_it_lacked_must_fit_what_it_has(name: str, run: MakeRun) -> None:
    origin = run(model_files.huggingface).origin
    models.create(name, ServingSpec("huggingface"), origin=origin)

    with pytest.raises(BadInputError) as raised:
        model_updates.update(
            name, number=1, serving=ServingSpec("", "", {"task": "image_classification"})
        )

    assert code(raised) == "TaskUnsupported"
    assert models.resolve(f"models:/{name}/1").parameters == {}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"new": "bad/name"}, "NameInvalid"),
        ({"new": "TAKEN"}, "NameTaken"),
        ({"serving": ServingSpec("onnx")}, "OnnxMissing"),
        ({"serving": ServingSpec("", "", {"password": "x"})}, "SecretInPlainText"),
    ],
)
def test_nothing_changes_where_one_thing_is_refused(
    name: str, registered: str, change: dict[str, Any], error: str
) -> None:
    if change.get("new") == "TAKEN":
        change = {"new": f"{name}-taken"}
        tracking.client().create_registered_model(change["new"])
    given = {"description": "new", "serving": ServingSpec("scikit-learn"), **change}
    with pytest.raises(ModelyardError) as raised:
        model_updates.update(name, number=1, **given)

    assert code(raised) == error
    found = models.resolve(registered)
    assert (found.description, found.framework, found.parameters) == ("", None, {})
    assert [deed["verb"] for deed in models.show(name)["history"]] == ["create"]
