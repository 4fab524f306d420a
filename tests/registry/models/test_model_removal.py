"""The removal of models, and what is left when it is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ConflictError, NotFoundError, StackError
from infra.mlflow import MlflowException
from registry import catalogue, deletion, history, tracking
from registry.blockers import Blocker
from registry.models import (
    model_aliases,
    model_artifacts,
    model_removal,
    model_updates,
    model_versions,
    models,
)  # fmt: skip
from registry.models.models import ServingSpec
from registry.runs import runs
from registry.runs.run_views import RunView
from registry.schedules import schedules
from tests.registry import model_files
from tests.registry.scheduled import scheduled
from tests.registry.server import MlflowServer
from tests.registry.trained import MakeRun, Run, killed

pytestmark = pytest.mark.usefixtures("mlflow")

SKLEARN = ServingSpec("scikit-learn")
HUB = ServingSpec("huggingface", "", {"model_id": "a/b"})


@pytest.fixture
def left(run: MakeRun) -> Run:
    """A run whose model is registered under its name, as a training does."""
    made = run()
    made.registered(made.name)
    return made


def state(name: str) -> str:
    return str(models.show(name)["state"])


def gone(name: str) -> bool:
    try:
        models.show(name)
    except NotFoundError:
        return True
    return False


class TestGuards:
    def test_a_model_that_an_enabled_schedule_registers_stays(
        self, run: MakeRun, left: Run, name: str
    ) -> None:
        schedules.add(scheduled(f"s {name}", {"model": {"name": name}}))

        for version in (None, 1):
            with pytest.raises(ConflictError) as raised:
                deletion.delete("model", name, version=version)
            assert raised.value.code == "HasSchedule"
            assert raised.value.message == f"The schedule s {name} registers models as {name}."
            assert f"modelyard schedule stop 's {name}'" in raised.value.hint
        assert state(name) == "ACTIVE"

        run().registered(name)
        assert model_removal.schedule_blockers(name, 1) == []
        with catalogue.session() as session, session.begin():
            for row in schedules.present(session):
                row.enabled = False
        deletion.delete("model", name)
        assert gone(name)

    @pytest.mark.parametrize("reference", ["{}/1", "models:/{}/1", "{}/{{{{Index}}}}"])
    def test_a_version_that_an_enabled_schedule_predicts_with_stays(
        self, run: MakeRun, left: Run, name: str, reference: str
    ) -> None:
        schedules.add(scheduled(f"p {name}", {"model": reference.format(name)}))
        run().registered(name)

        for version in (None, 1):
            with pytest.raises(ConflictError) as raised:
                deletion.delete("model", name, version=version)
            assert raised.value.code == "HasSchedule"
            assert f"The schedule p {name} predicts with" in raised.value.message
            assert f"modelyard schedule stop 'p {name}'" in raised.value.hint
        if "{{{{" not in reference:
            assert model_removal.predicting_schedule_blockers(name, 2) == []

    def test_a_version_that_a_run_predicts_with_stays(
        self, monkeypatch: pytest.MonkeyPatch, left: Run, name: str
    ) -> None:
        going = [
            RunView(id="1", name="other", flow="batch-inference", state="RUNNING",
                    parameters={"model": f"{name}x/1"}),
            RunView(id="2", name="july", flow="batch-inference", state="RUNNING",
                    parameters={"model": f"{name}/1"}),
        ]  # fmt: skip
        monkeypatch.setattr(runs, "active", lambda: going)

        with pytest.raises(ConflictError) as raised:
            deletion.delete("model", name)

        assert raised.value.code == "RunGoesOn"
        assert raised.value.message == "The run july (2) predicts with it."
        assert "modelyard runs stop 2" in raised.value.hint

    def test_a_version_that_an_alias_points_to_stays(self, left: Run, name: str) -> None:
        model_aliases.point(name, "champion", 1)

        for version in (None, 1):
            with pytest.raises(ConflictError) as raised:
                deletion.delete("model", name, version=version)
            assert raised.value.code == "ModelInUse"
            assert f"The alias champion points to models:/{name}/1." in raised.value.message
            assert "unalias" in raised.value.hint
        assert state(name) == "ACTIVE"

    def test_another_version_goes(self, name: str) -> None:
        models.create(name, HUB)
        models.create(name, HUB)
        model_aliases.point(name, "champion", 2)

        deletion.delete("model", name, version=1)

        assert [version["version"] for version in models.show(name)["versions"]] == [2]
        assert models.create(name, HUB)["version"] == 3

    def test_what_is_not_there(self, left: Run, name: str) -> None:
        for key, version in (
            (f"{name}-x", None), (f"{name}-x", 1), (name, 2), ("..a", None), ("..a", 1),
        ):  # fmt: skip
            with pytest.raises(NotFoundError):
                deletion.delete("model", key, version=version)
        assert state(name) == "ACTIVE"

    def test_an_alias_that_comes_while_it_is_asked_wins(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch, mlflow: MlflowServer
    ) -> None:
        really = model_removal.alias_blockers
        asked = []

        def alias_comes(*args: Any) -> list[Blocker]:
            reasons = really(*args)
            if not asked:
                model_aliases.point(name, "champion", 1)
            asked.append(args)
            return reasons

        rule = deletion._RULES["model"]
        guard = deletion.Guard("ModelInUse", alias_comes, "")
        changed = deletion.Rule(rule.find, (guard,), rule.remove, rule.claim, rule.release)
        monkeypatch.setitem(deletion._RULES, "model", changed)
        with pytest.raises(ConflictError):
            deletion.delete("model", name)

        assert len(asked) == 2
        assert state(name) == "ACTIVE"
        assert left.files(mlflow) == {"model.joblib"}
        assert models.resolve(f"models:/{name}@champion").version == 1

    def test_a_claim_keeps_others_away_until_it_is_given_back(self, left: Run, name: str) -> None:
        model_removal.claim(name)
        with pytest.raises(ConflictError) as raised:
            models.resolve(f"models:/{name}/1")
        assert raised.value.code == "ModelNotActive"

        model_removal.release(name)

        assert models.resolve(f"models:/{name}/1").version == 1

    def test_what_is_going_is_not_given_back(self, left: Run, name: str) -> None:
        model_removal._mark(model_removal._chosen(name, 1), "going")

        model_removal.claim(name)
        model_removal.release(name)

        assert state(name) == "DELETE IN PROGRESS"


class TestBytes:
    def test_they_go_and_the_run_may_go_too(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        tracking.log_file(left.id, Path(__file__), "logs")
        answer = deletion.delete("model", name)

        assert answer == {
            "removed": [f"models:/{name}/1"], "model_deleted": True, "deleted": True,
        }  # fmt: skip
        assert left.files(mlflow) == set()
        assert left.tag is None
        assert model_versions.of_runs([left.id]) == []
        run_folder = mlflow.artifacts / left.source.split("mlflow-artifacts:/")[1]
        assert [path.name for path in (run_folder.parent / "logs").iterdir()] == [
            Path(__file__).name
        ]
        assert gone(name)
        assert history.of("model", name)[-1]["verb"] == "delete"

    def test_another_version_of_the_same_bytes_keeps_them(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        other = f"{name}-other"
        models.create(other, SKLEARN, origin=left.origin)
        assert left.tag == f"models:/{other}/1"

        deletion.delete("model", other)
        assert left.files(mlflow) == {"model.joblib"}
        assert left.tag == f"models:/{name}/1"

        deletion.delete("model", name)
        assert left.files(mlflow) == set()
        assert left.tag is None

    def test_all_versions_of_a_model_go_with_it(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        models.create(name, SKLEARN, origin=left.origin)
        models.create(name, ServingSpec("scikit-learn", "", {"a": 1}), origin=left.origin)
        assert len(models.show(name)["versions"]) == 2

        deletion.delete("model", name)

        assert gone(name)
        assert left.files(mlflow) == set()

    def test_bytes_that_mlflow_s_own_caller_registered_stay(
        self,
        run: MakeRun,
        name: str,
        mlflow: MlflowServer,
    ) -> None:
        made = run()
        tracking.client().create_registered_model(name)
        tracking.client().create_model_version(name, made.source, run_id=made.id)

        deletion.delete("model", name)

        assert made.files(mlflow) == {"model.joblib"}

    def test_bytes_that_are_gone_already_are_no_error(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        model_artifacts.delete(left.source)
        model_artifacts.delete(left.source)

        assert deletion.delete("model", name)["deleted"]

    def test_a_run_that_is_gone_already_is_no_error(self, left: Run, name: str) -> None:
        tracking.client().delete_run(left.id)

        assert deletion.delete("model", name)["deleted"]

    def test_somebody_s_own_stay(self, name: str, tmp_path: Path) -> None:
        model_files.scikit_learn(tmp_path, name)
        models.create(name, SKLEARN, uri=str(tmp_path))

        deletion.delete("model", name, version=1)

        assert (tmp_path / "model.joblib").exists()
        assert gone(name)

    def test_files_whose_removal_has_begun_make_no_model(self, left: Run, name: str) -> None:
        model_removal._mark(model_removal._chosen(name, 1), "going")

        with pytest.raises(ConflictError) as raised:
            models.create(f"{name}-x", SKLEARN, origin=left.origin)

        assert raised.value.code == "ModelNotActive"
        assert gone(f"{name}-x")

    def test_files_that_went_while_they_were_looked_at_make_no_model(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really = models.check_files

        def then_deleted(*args: Any, **kwargs: Any) -> None:
            really(*args, **kwargs)
            deletion.delete("model", name)

        monkeypatch.setattr(models, "check_files", then_deleted)
        with pytest.raises(NotFoundError):
            models.create(f"{name}-x", SKLEARN, origin=left.origin)
        assert gone(f"{name}-x")

    def test_a_retried_training_registers_anew_what_is_being_removed(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        model_removal._mark(model_removal._chosen(name, 1), "going")
        uri = left.registered(name)
        assert uri == f"models:/{name}/2"

        deletion.delete("model", name, version=1)

        assert left.files(mlflow) == {"model.joblib"}
        assert models.resolve(uri).version == 2
        assert left.tag == uri


class TestSeveralAtOnce:
    @pytest.mark.parametrize("version", [None, 1])
    def test_one_tells_of_the_removal(
        self, left: Run, name: str, version: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        really, told, removing = model_artifacts.delete, list[str](), threading.Event()

        def delete() -> None:
            try:
                told.extend(deletion.delete("model", name, version=version)["removed"])
            except NotFoundError as error:
                told.append(error.code)

        others = [threading.Thread(target=delete) for _ in range(2)]

        def while_others_ask(source: str) -> None:
            if not removing.is_set():
                removing.set()
                for other in others:
                    other.start()
                others[0].join(1)  # longer than a deletion takes that does not wait
            really(source)

        monkeypatch.setattr(model_artifacts, "delete", while_others_ask)
        delete()
        for other in others:
            other.join(30)

        assert sorted(told) == ["NotFound", "NotFound", f"models:/{name}/1"]
        deletions = [one for one in history.of("model", name) if one["verb"] == "delete"]
        assert len(deletions) == 1


# The calls that remove a version, in their order.
STEPS: list[Callable[[pytest.MonkeyPatch, Callable[..., Any]], None]] = [
    lambda patch, fault: patch.setattr(model_artifacts, "delete", fault),
    lambda patch, fault: patch.setattr("infra.mlflow.MlflowClient.delete_tag", fault),
    lambda patch, fault: patch.setattr("infra.mlflow.MlflowClient.delete_model_version", fault),
    lambda patch, fault: patch.setattr("infra.mlflow.MlflowClient.delete_registered_model", fault),
]


class TestFaults:
    @pytest.mark.parametrize("step", STEPS, ids=["bytes", "run", "version", "model"])
    @pytest.mark.parametrize(
        "by_number", [pytest.param(True, marks=pytest.mark.soak), False], ids=["version", "whole"]
    )
    def test_killed_it_is_in_progress_and_a_repeat_ends_it(
        self, step: Any, by_number: bool, left: Run, name: str, mlflow: MlflowServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        version = 1 if by_number else None
        with monkeypatch.context() as patch:
            step(patch, killed)
            with pytest.raises(KeyboardInterrupt):
                deletion.delete("model", name, version=version)
        assert state(name) == "DELETE IN PROGRESS"
        listed = next(model for model in models.list_all() if model["name"] == name)
        assert listed["state"] == "DELETE IN PROGRESS"
        for use in (
            lambda: models.resolve(f"models:/{name}/1"),
            lambda: model_aliases.point(name, "champion", 1),
            lambda: model_updates.update(name, new=f"{name}-x"),
        ):
            with pytest.raises((ConflictError, NotFoundError)):
                use()

        assert deletion.delete("model", name, version=version)["deleted"]

        assert gone(name)
        assert left.files(mlflow) == set()
        assert left.tag is None

    @pytest.mark.parametrize("step", STEPS[:3], ids=["bytes", "run", "version"])
    @pytest.mark.parametrize(
        "problem", [MlflowException("canary"), ConnectionResetError("canary")], ids=type
    )
    def test_failed_it_says_why_and_a_repeat_ends_it(
        self, step: Any, problem: Exception, left: Run, name: str, mlflow: MlflowServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        def fails(*_: Any, **__: Any) -> None:
            raise problem

        with monkeypatch.context() as patch:
            step(patch, fails)
            with pytest.raises(StackError) as raised:
                deletion.delete("model", name)
        assert raised.value.code == "DeleteFailed"
        assert "modelyard model delete" in raised.value.hint
        shown = models.show(name)
        assert shown["state"] == shown["versions"][0]["state"] == "DELETE FAILED"
        assert "canary" in shown["versions"][0]["deletion_error"]
        with pytest.raises(ConflictError):
            models.resolve(f"models:/{name}/1")

        assert deletion.delete("model", name)["deleted"]

        assert gone(name)
        assert left.files(mlflow) == set()

    def test_a_repeat_is_in_progress_again(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(_: str) -> None:
            raise ConnectionResetError("canary")

        for fault, raised, word in (
            (fails, StackError, "DELETE FAILED"),
            (killed, KeyboardInterrupt, "DELETE IN PROGRESS"),
        ):
            monkeypatch.setattr(model_artifacts, "delete", fault)
            with pytest.raises(raised):
                deletion.delete("model", name)
            assert state(name) == word

    def test_where_mlflow_answers_no_more_the_first_reason_is_told(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise MlflowException("canary")

        def deaf(_: str) -> None:
            monkeypatch.setattr("infra.mlflow.MlflowClient.set_model_version_tag", fails)
            raise ConnectionResetError("first")

        monkeypatch.setattr(model_artifacts, "delete", deaf)
        with pytest.raises(StackError, match="first"):
            deletion.delete("model", name)

        assert state(name) == "DELETE IN PROGRESS"

    def test_bytes_that_do_not_go_are_a_failure(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository = "infra.mlflow.artifacts.ServedRepository"
        with monkeypatch.context() as patch:
            patch.setattr(f"{repository}.delete_artifacts", lambda self: None)
            with pytest.raises(StackError, match=r"has not deleted model\.joblib"):
                deletion.delete("model", name)

        assert state(name) == "DELETE FAILED"

    def test_a_process_that_is_killed_outright_holds_no_lock(
        self, left: Run, name: str, mlflow: MlflowServer
    ) -> None:
        script = f"""
import os, signal
from registry import deletion
from registry.models import model_artifacts
from registry.runs import runs
runs.active = list
model_artifacts.delete = lambda uri: os.kill(os.getpid(), signal.SIGKILL)
deletion.delete("model", {name!r})
"""
        died = subprocess.run([sys.executable, "-c", script], env=os.environ, timeout=120)
        assert died.returncode == -signal.SIGKILL
        assert state(name) == "DELETE IN PROGRESS"

        assert deletion.delete("model", name)["deleted"]

        assert left.files(mlflow) == set()

    def test_a_model_of_its_name_that_comes_back_is_active(
        self, left: Run, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Killed between the last version and the model; then somebody trains again."""
        with monkeypatch.context() as patch:
            STEPS[3](patch, killed)
            with pytest.raises(KeyboardInterrupt):
                deletion.delete("model", name)
        models.create(name, HUB)

        assert state(name) == "ACTIVE"
        with pytest.raises(NotFoundError):
            deletion.delete("model", name, version=1)
        assert models.resolve(f"models:/{name}/2").version == 2

    def test_removing_what_is_gone_is_done(self) -> None:
        gone = {"removed": [], "model_deleted": True}
        assert model_removal.remove(f"m-{uuid.uuid4().hex}") == gone
        assert model_removal.remove(f"m-{uuid.uuid4().hex}", 3) == gone
