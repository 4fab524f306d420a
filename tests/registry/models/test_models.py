"""Models on a real MLflow server, asked by REST."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import mlflow as mlflow_module
import pytest
from sklearn.linear_model import LinearRegression

from infra.errors import BadInputError, ConflictError, ModelyardError, NotFoundError, StackError
from infra.storage import store
from registry import deletion, tracking
from registry.flavors import mlmodel
from registry.models import (
    model_aliases,
    model_artifacts,
    model_updates,
    model_versions,
    models,
)  # fmt: skip
from registry.models.models import ServingSpec
from tests.registry import model_files
from tests.registry.model_files import MAKERS
from tests.registry.server import MlflowServer
from tests.registry.trained import MakeRun, Run, content, killed

pytestmark = [
    pytest.mark.usefixtures("mlflow"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]


def test_no_model_has_a_name_that_mlflow_refuses() -> None:
    for look in (lambda: models.show("..a"), lambda: models.resolve("models:/..a/1")):
        with pytest.raises(NotFoundError):
            look()


def code(raised: pytest.ExceptionInfo[ModelyardError]) -> str:
    return raised.value.code


@pytest.mark.parametrize("kind", MAKERS)
def test_every_framework_from_files_of_one_s_own(kind: str, name: str, tmp_path: Path) -> None:
    framework, make = MAKERS[kind]
    folder = tmp_path / "own files"
    make(folder, name)
    before = content(folder)

    serving = ServingSpec(framework.upper(), "1.2", {"modelFormat": "x", "n": 1})
    made = models.create(name, serving, description="Mine.", uri=str(folder))
    listed = next(model for model in models.list_all() if model["name"] == name)
    found = models.resolve(made["uri"])
    models.fetch(found, tmp_path / "fetched")
    model_aliases.point(name, "champion", 1)

    assert (made["version"], made["state"], made["framework"]) == (1, "ACTIVE", framework)
    assert listed["source_uri"] == found.source_uri == str(folder)
    assert (listed["state"], listed["description"], listed["framework_version"]) == (
        "ACTIVE", "Mine.", "1.2",
    )  # fmt: skip
    assert found.parameters == {"modelFormat": "x", "n": 1}
    assert (found.framework_version, found.description) == ("1.2", "Mine.")
    assert models.resolve(f"models:/{name}@champion") == found
    assert content(tmp_path / "fetched") == before
    with pytest.raises(ConflictError) as raised:
        deletion.delete("model", name)
    assert code(raised) == "ModelInUse"
    model_aliases.drop(name, "champion")
    assert deletion.delete("model", name)["deleted"]
    assert content(folder) == before
    with pytest.raises(NotFoundError):
        models.show(name)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_framework_from_a_training(
    kind: str, name: str, tmp_path: Path, run: MakeRun, mlflow: MlflowServer
) -> None:
    framework, make = MAKERS[kind]
    left = run(make)
    make(tmp_path / "same", name)

    made = models.create(name, ServingSpec(framework), origin=left.origin)
    found = models.resolve(made["uri"])
    models.fetch(found, tmp_path / "fetched")
    shown = models.show(name)["versions"][0]

    assert found.source_uri == left.source
    assert (found.mlflow_run_id, found.flow_run_id) == (left.id, left.flow_run_id)
    assert (shown["run_name"], shown["flow_run_id"]) == (name, left.flow_run_id)
    assert content(tmp_path / "fetched").keys() == content(tmp_path / "same").keys()
    assert left.files(mlflow) == content(tmp_path / "same").keys()
    assert left.tag == made["uri"]
    deletion.delete("model", name, version=1)
    assert left.files(mlflow) == set()
    assert left.tag is None
    assert model_versions.of_runs([left.id]) == []


def test_a_model_of_a_hub_needs_only_its_id(name: str, tmp_path: Path) -> None:
    serving = ServingSpec(
        "Hugging Face", "", {"model_id": "owner/model", "hf_token": "secret:hub"}
    )

    made = models.create(name, serving)
    found = models.resolve(made["uri"])

    assert found.source_uri is None
    assert found.parameters["hf_token"] == "secret:hub"
    with pytest.raises(BadInputError) as raised:
        models.fetch(found, tmp_path / "fetched")
    assert code(raised) == "NoFiles"
    assert not (tmp_path / "fetched").exists()
    assert models.show(name)["versions"][0]["source_uri"] is None
    deletion.delete("model", name)


class TestCreate:
    @pytest.fixture
    def folder(self, tmp_path: Path, name: str) -> Path:
        model_files.scikit_learn(tmp_path / "own", name)
        return tmp_path / "own"

    def test_a_name_that_is_there_gets_its_next_version(self, name: str, folder: Path) -> None:
        for number in (1, 2):
            made = models.create(name, ServingSpec("scikit-learn"), uri=str(folder))
            assert made["version"] == number

        shown = models.show(name)

        assert [version["version"] for version in shown["versions"]] == [2, 1]
        assert [deed["verb"] for deed in shown["history"]] == ["create", "create"]

    @pytest.mark.parametrize(
        ("serving", "uri", "expected"),
        [
            (ServingSpec(), "/x", "FrameworkMissing"),
            (ServingSpec("caffe"), "/x", "FrameworkUnknown"),
            (ServingSpec("onnx"), "", "SourceMissing"),
            (ServingSpec("huggingface"), "", "SourceMissing"),
            (ServingSpec("huggingface", "", {"modelId": "a/b"}), "/x", "SourceAmbiguous"),
            (ServingSpec("huggingface", "", {"model_id": "https://x/y/z"}), "", "ModelIdInvalid"),
            (
                ServingSpec("huggingface", "", {"model_id": "a/b", "task": "image"}),
                "",
                "TaskUnsupported",
            ),
            (ServingSpec("onnx", "1\n"), "/x", "FrameworkVersionInvalid"),
            (ServingSpec("onnx", "1" * 101), "/x", "FrameworkVersionInvalid"),
            (ServingSpec("onnx", "", {"token": "plain"}), "/x", "SecretInPlainText"),
            (ServingSpec("onnx"), "/nowhere/at/all", "ArtifactMissing"),
            (ServingSpec("onnx"), "gopher://x/y", "UnknownScheme"),
            (ServingSpec("onnx"), "/a/../b", "PathClimbs"),
        ],
    )
    def test_what_cannot_work_makes_nothing(
        self, name: str, serving: ServingSpec, uri: str, expected: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            models.create(name, serving, uri=uri)

        assert code(raised) == expected
        assert raised.value.hint
        with pytest.raises(NotFoundError):
            models.show(name)

    @pytest.mark.parametrize("bad", ["", " ", "a/b", "a:b", 'a"b', ".", "..", "..a", "x" * 251])
    def test_names_that_mlflow_does_not_take(self, bad: str, folder: Path) -> None:
        with pytest.raises(BadInputError) as raised:
            models.create(bad, ServingSpec("scikit-learn"), uri=str(folder))

        assert code(raised) == "NameInvalid"

    @pytest.mark.parametrize("called", ["it's {} 100%", "{}@home", "é {}?#&", "'{}'", "a.{}..b"])
    def test_odd_names_work_from_end_to_end(
        self, called: str, name: str, folder: Path, tmp_path: Path
    ) -> None:
        called = called.format(name)
        made = models.create(called, ServingSpec("scikit-learn"), uri=str(folder))
        model_aliases.point(called, "best", 1)

        assert models.resolve(made["uri"]).name == called
        assert models.resolve(f"models:/{called}@best").name == called
        assert models.show(called)["name"] == called
        model_aliases.drop(called, "best")
        deletion.delete("model", called)

    def test_files_with_odd_names(self, name: str, tmp_path: Path, run: MakeRun) -> None:
        def make(folder: Path, _: str) -> None:
            model_files.onnx_file(folder, name)
            (folder / "model.onnx").rename(folder / "a b%20c#d?é.onnx")

        make(tmp_path / "own", name)
        assert models.create(name, ServingSpec("onnx"), uri=str(tmp_path / "own"))["version"] == 1
        store(str(tmp_path / "own" / "a b%20c#d?é.onnx")).read("")

    def test_the_same_run_makes_the_same_model_once(self, name: str, run: MakeRun) -> None:
        origin = run().origin

        first = models.create(name, ServingSpec("scikit-learn", "1", {"a": 1}), origin=origin)
        again = models.create(name, ServingSpec("sklearn", "1", {"a": 1}), origin=origin)
        other = models.create(name, ServingSpec("scikit-learn", "1", {"a": 2}), origin=origin)

        assert (first["version"], again["version"], other["version"]) == (1, 1, 2)

    def test_what_a_training_registered_is_completed(self, name: str, run: MakeRun) -> None:
        left = run()
        uri = left.registered(name)
        assert models.resolve(uri).framework is None

        made = models.create(
            name, ServingSpec("scikit-learn", "1.9", {"a": 1}), description="D", origin=left.origin
        )

        assert (made["version"], made["framework"], made["description"]) == (
            1, "scikit-learn", "D",
        )  # fmt: skip
        assert models.resolve(uri).parameters == {"a": 1}

    def test_a_run_s_files_are_checked_too(self, name: str, run: MakeRun) -> None:
        with pytest.raises(BadInputError) as raised:
            models.create(name, ServingSpec("onnx"), origin=run().origin)

        assert code(raised) == "OnnxMissing"
        with pytest.raises(NotFoundError):
            models.show(name)

    def test_a_model_that_mlflow_has_without_versions_is_only_asked_for(
        self, name: str, folder: Path
    ) -> None:
        tracking.client().create_registered_model(name)
        assert models.show(name)["state"] == "CREATE REQUESTED"

        models.create(name, ServingSpec("scikit-learn"), uri=str(folder))

        assert models.show(name)["state"] == "ACTIVE"

    def test_killed_after_its_first_step_it_is_made_by_a_repeat(
        self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("infra.mlflow.MlflowClient.create_model_version", killed)
            with pytest.raises(KeyboardInterrupt):
                models.create(name, ServingSpec("scikit-learn"), uri=str(folder))
        listed = next(model for model in models.list_all() if model["name"] == name)
        assert (listed["state"], listed["newest_version"]) == ("CREATE REQUESTED", None)

        assert models.create(name, ServingSpec("scikit-learn"), uri=str(folder))["version"] == 1

    def test_killed_before_the_run_knows_it_a_repeat_tells_it(
        self, name: str, run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = run()
        with monkeypatch.context() as patch:
            patch.setattr("infra.mlflow.MlflowClient.set_tag", killed)
            with pytest.raises(KeyboardInterrupt):
                models.create(name, ServingSpec("scikit-learn"), origin=left.origin)
        assert left.tag is None

        assert models.create(name, ServingSpec("scikit-learn"), origin=left.origin)["version"] == 1
        assert left.tag == f"models:/{name}/1"


class TestRegister:
    def test_a_run_registers_once_even_if_the_model_was_renamed(
        self, name: str, run: MakeRun
    ) -> None:
        left = run()
        first = left.registered(name)
        again = left.registered(name)
        model_updates.update(name, new=f"{name}-2")
        renamed = left.registered(name)

        assert first == again == f"models:/{name}/1"
        assert renamed == left.tag == f"models:/{name}-2/1"

    def test_under_the_name_that_its_model_got_while_it_ran(self, name: str, run: MakeRun) -> None:
        first, left = run(), run(called=f"{name} 2")
        first.registered(name)
        for before, after in ((name, f"{name}-b"), (f"{name}-b", f"{name}-c")):
            model_updates.update(before, new=after)

        assert left.registered(name) == f"models:/{name}-c/2"
        later = run(called=f"{name} 3")  # means a model of its own by the former name
        assert later.registered(name) == f"models:/{name}/1"
        assert run(called=f"{name} 4").registered(name) == f"models:/{name}/2"

    def test_a_name_that_changes_before_the_lock_is_held(
        self, name: str, run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, left = run(), run(called=f"{name} 2")
        first.registered(name)
        read = model_aliases.current_name

        with monkeypatch.context() as patch:

            def then_renamed(*args: Any) -> str:
                found = read(*args)
                patch.undo()
                model_updates.update(name, new=f"{name}-b")
                return found

            patch.setattr(model_aliases, "current_name", then_renamed)
            assert left.registered(name) == f"models:/{name}-b/2"

    def test_a_provided_algorithm_says_its_framework(self, name: str, run: MakeRun) -> None:
        left = run()
        models.declare_framework(left.id, "scikit-learn", "1.9.1")

        found = models.resolve(left.registered(name))

        assert (found.framework, found.framework_version) == ("scikit-learn", "1.9.1")

    def test_a_model_that_the_script_registered_itself_is_another(
        self, name: str, run: MakeRun
    ) -> None:
        left = run()
        mlflow = tracking.client()
        mlflow.create_registered_model(name)
        mlflow.create_model_version(name, left.source, run_id=left.id)

        uri = left.registered(name)

        assert uri == f"models:/{name}/2"


class TestResolve:
    @pytest.mark.parametrize(
        "uri",
        ["", "models:/", "models:/a", "models:/a/latest", "models:/a/b/c", "models:/@x", "/a/1",
         "models:/a@", "runs:/a/1", "models://a/1x"],
    )  # fmt: skip
    def test_what_names_no_version(self, uri: str) -> None:
        with pytest.raises(BadInputError) as raised:
            models.resolve(uri)

        assert code(raised) == "ModelUriInvalid"

    def test_what_is_not_there(self, name: str, tmp_path: Path) -> None:
        for uri in (f"models:/{name}/1", f"models:/{name}@champion"):
            with pytest.raises(NotFoundError):
                models.resolve(uri)
        model_files.scikit_learn(tmp_path, name)
        models.create(name, ServingSpec("scikit-learn"), uri=str(tmp_path))
        for uri in (f"models:/{name}/2", f"models:/{name}@champion"):
            with pytest.raises(NotFoundError):
                models.resolve(uri)

    def test_a_model_that_was_registered_in_mlflow(
        self, name: str, run: MakeRun, tmp_path: Path
    ) -> None:
        left = run()
        mlflow = tracking.client()
        mlflow.create_registered_model(name)
        mlflow.create_model_version(name, f"runs:/{left.id}/model", run_id=left.id)
        mlflow.create_model_version(name, f"models:/{name}/1")

        for number in (1, 2):
            found = models.resolve(f"models:/{name}/{number}")
            models.fetch(found, tmp_path / str(number))
            fitted = joblib.load(tmp_path / str(number) / "model.joblib")
            assert fitted.predict([[3.0]]) == pytest.approx([7.0])

    def test_a_model_that_the_script_logged_with_mlflow(self, name: str, tmp_path: Path) -> None:
        with mlflow_module.start_run():
            fitted = LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0])
            mlflow_module.sklearn.log_model(
                fitted, name="line", registered_model_name=name, serialization_format="pickle"
            )
        found = models.resolve(f"models:/{name}/1")

        models.fetch(found, tmp_path / "fetched")
        deletion.delete("model", name)

        assert (tmp_path / "fetched" / "MLmodel").exists()
        models.fetch(found, tmp_path / "still there")


class TestWhatMlflowLoads:
    """Files for MLflow lie beside the user's, who does not see them."""

    @pytest.fixture
    def left(self, run: MakeRun, name: str, tmp_path: Path) -> Run:
        left = run()
        model_files.scikit_learn(tmp_path / "model", name)
        (tmp_path / "more").mkdir()
        mlmodel.write(tmp_path / "model", tmp_path / "more", left.id, tmp_path / "none", [])
        tracking.log_files(left.id, tmp_path / "model", "model", tmp_path / "more")
        return left

    def test_the_version_is_loaded_by_its_uri(self, name: str, left: Run) -> None:
        uri = left.registered(name)

        loaded = mlflow_module.pyfunc.load_model(uri)

        assert loaded.predict([[3.0]]).round(3).tolist() == [7.0]
        assert loaded.metadata.run_id == left.id

    def test_serving_sees_the_users_files_alone(
        self, name: str, left: Run, tmp_path: Path, mlflow: MlflowServer
    ) -> None:
        assert {"MLmodel", "model.joblib"} < left.files(mlflow)
        made = models.create(name, ServingSpec("scikit-learn"), origin=left.origin)
        found = models.resolve(made["uri"])
        files = model_artifacts.files(found.source_uri or "", outside=found.outside)

        models.fetch(found, tmp_path / "to" / "fetched")

        assert [entry.name for entry in files.entries()] == ["model.joblib"]
        assert content(tmp_path / "to" / "fetched") == content(tmp_path / "model")
        assert [path.name for path in (tmp_path / "to").iterdir()] == ["fetched"]
        deletion.delete("model", name)
        assert left.files(mlflow) == set()


def test_runs_of_one_model_at_once_make_a_version_each(name: str, run: MakeRun) -> None:
    lefts = [run(called=f"{name} {number}") for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        made = list(
            threads.map(
                lambda left: left.registered(name),
                lefts * 2,  # a retry of each publishes again
            )
        )

    assert made[:4] == made[4:]
    assert sorted(made[:4]) == [f"models:/{name}/{number}" for number in (1, 2, 3, 4)]


class TestFetch:
    def test_one_file_comes_into_a_folder(self, name: str, tmp_path: Path) -> None:
        model_files.scikit_learn(tmp_path / "own", name)
        uri = str(tmp_path / "own" / "model.joblib")
        made = models.create(name, ServingSpec("scikit-learn"), uri=uri)

        models.fetch(models.resolve(made["uri"]), tmp_path / "deep" / "fetched")

        assert list(content(tmp_path / "deep" / "fetched")) == ["model.joblib"]
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["fetched"]

    def test_a_destination_that_is_there_is_left_alone(self, name: str, run: MakeRun,
                                                       tmp_path: Path) -> None:  # fmt: skip
        made = models.create(name, ServingSpec("scikit-learn"), origin=run().origin)
        (tmp_path / "mine").mkdir()

        with pytest.raises(BadInputError) as raised:
            models.fetch(models.resolve(made["uri"]), tmp_path / "mine")

        assert code(raised) == "DestinationExists"
        assert list((tmp_path / "mine").iterdir()) == []

    def test_bytes_that_are_missing_leave_nothing(
        self, name: str, run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = models.resolve(
            models.create(name, ServingSpec("scikit-learn"), origin=run().origin)["uri"]
        )
        whole = model_artifacts.Artifacts(found.source_uri or "").entries

        def lying(self: Any) -> Any:
            return iter([type(entry)(entry.name, entry.size + 1) for entry in whole()])

        monkeypatch.setattr(model_artifacts.Artifacts, "entries", lying)
        with pytest.raises(StackError) as raised:
            models.fetch(found, tmp_path / "to" / "fetched")

        assert code(raised) == "ArtifactUnreadable"
        assert list((tmp_path / "to").iterdir()) == []

    def test_files_that_are_gone_are_told(
        self, name: str, run: MakeRun, tmp_path: Path, mlflow: MlflowServer
    ) -> None:
        left = run()
        made = models.create(name, ServingSpec("scikit-learn"), origin=left.origin)
        shutil.rmtree(mlflow.artifacts / left.source.split("mlflow-artifacts:/")[1])

        with pytest.raises(NotFoundError):
            models.fetch(models.resolve(made["uri"]), tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()


def test_secrets_stay_names_everywhere(name: str) -> None:
    serving = ServingSpec("huggingface", "", {"model_id": "a/b", "api_key": "secret:hub"})
    models.create(name, serving)

    kept = tracking.client().get_model_version(name, "1").tags

    assert json.loads(kept["modelyard.parameters"])["api_key"] == "secret:hub"
