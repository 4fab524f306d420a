"""Artifacts that lie elsewhere than on this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.storage.base import Progress
from infra.storage.file import FileStore
from pipelines import executor_io, reading, remote_artifacts
from pipelines.artifacts import Artifact, Bundle
from pipelines.remote_artifacts import RemoteArtifacts
from tests.infra.storage.conftest import Bucket
from tests.infra.storage.server import Server
from tests.pipelines import corpus
from tests.pipelines.running import Ran, run


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def ran(
    folder: Path,
    environments: Path,
    given: dict[str, Any],
    *changes: Callable[[dict[str, Any]], None],
    root: str = "",
) -> Ran:
    documents = list(yaml.safe_load_all(corpus.compiled("elsewhere")))
    for change in changes:
        change(documents[0])
    pipeline = reading.read_bytes(yaml.safe_dump_all(documents).encode(), "p.yaml")
    return run(pipeline, given, folder, environments=environments, root=root)


def gets(server: Server, key: str) -> int:
    return [(method, path.rpartition("/")[2]) for method, path, _ in server.requests].count(
        ("GET", key)
    )


class TestPipelines:
    def test_of_a_bucket(
        self,
        bucket: Bucket,
        server: Server,
        tmp_path: Path,
        environments: Path,
    ) -> None:
        bucket.put("in/data.csv", "word")
        address, target = f"s3://{bucket.name}/in/data.csv", f"s3://{bucket.name}/out/moved.txt"

        found = ran(
            tmp_path, environments, {"address": address, "target": target},
            root=f"s3://{bucket.name}/root",
        )  # fmt: skip

        assert found.end.state == "SUCCEEDED", found.end.reason
        model = f"s3://{bucket.name}/root/make/model"
        assert dict(found.end.outputs.parameters) == {
            "first": f"{address} data.csv word",
            "second": f"{address} data.csv word",
            "program": "word",
            "model": model,
            "taken": f"0.5 {target} weights moved beside",
        }
        assert gets(server, "data.csv") == 1
        assert bucket.get("root/make/model/weights") == b"weights"
        assert bucket.get("out/moved.txt") == b"moved"
        assert bucket.get("root/make/beside.txt") == b"beside"
        assert set(bucket.keys) == {
            "in/data.csv", "out/moved.txt", "root/make/model/weights", "root/make/beside.txt"
        }  # fmt: skip
        made = found.nodes["make"].outputs.artifacts
        assert {name: one.uri for name, one in made.items() if isinstance(one, Artifact)} == {
            "model": model,
            "moved": target,
            "beside": f"s3://{bucket.name}/root/make/beside.txt",
            "metrics": f"s3://{bucket.name}/root/make/metrics",
        }
        assert not [one for one in made.values() if isinstance(one, Artifact) and one.custom_path]

    def test_of_a_nas(
        self, tmp_path: Path, environments: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mount = tmp_path / "nas"
        mount.mkdir()
        (mount / "data.txt").write_text("word")
        monkeypatch.setenv("MODELYARD_NAS", f'{{"one": "{mount}"}}')

        found = ran(
            tmp_path / "run", environments,
            {"address": "nas://one:/data.txt", "target": "nas://one:/out/moved.txt"},
        )  # fmt: skip

        outputs = found.end.outputs.parameters
        assert outputs["first"] == "nas://one:/data.txt data.txt word"
        assert outputs["program"] == "word"
        assert outputs["taken"] == "0.5 nas://one:/out/moved.txt weights moved beside"
        assert (mount / "out" / "moved.txt").read_text() == "moved"
        assert not (tmp_path / "run" / "brought").exists() or not list(
            (tmp_path / "run" / "brought").rglob("data.txt")
        )

    def test_a_missing_object(
        self,
        bucket: Bucket,
        tmp_path: Path,
        environments: Path,
    ) -> None:
        address = f"s3://{bucket.name}/gone"
        found = ran(tmp_path, environments, {"address": address, "target": "/none"})

        assert found.states["importer"] == "SUCCEEDED"
        assert found.nodes["look"].reason == (
            f"The task look needs {address}, which does not exist. Check the address."
        )

    def test_what_no_store_knows(self, tmp_path: Path, environments: Path) -> None:
        given = {"address": "gs://bucket/x", "target": "gs://bucket/y"}
        found = ran(tmp_path, environments, given)

        assert found.nodes["cat"].reason.startswith(
            "The task cat needs gs://bucket/x as a file, and no store can fetch it."
        )
        reason = found.nodes["look"].reason
        assert "FileNotFoundError" in reason
        assert "No store can fetch data at gs://bucket/x, if the task needed" in reason
        told = "No store can fetch data at gs://bucket/x: the task gets only the URI."
        assert ("look", told) in found.lines
        # What was written before the address was changed is found all the same.
        assert found.states["take"] == "SUCCEEDED"

    def test_a_root_that_cannot_be_written(
        self,
        bucket: Bucket,
        tmp_path: Path,
        environments: Path,
    ) -> None:
        bucket.put("file", "")
        given = {"address": "/x", "target": "/y"}
        with pytest.raises(BadInputError) as caught:
            ran(tmp_path, environments, given, root=f"s3://{bucket.name}/file/below")
        assert caught.value.code == "NotADirectory"

    def test_a_download_to_the_workspace(
        self,
        bucket: Bucket,
        tmp_path: Path,
        environments: Path,
    ) -> None:
        bucket.put("data.txt", "word")

        def into_workspace(spec: dict[str, Any]) -> None:
            importer = spec["deploymentSpec"]["executors"]["exec-importer"]["importer"]
            importer["downloadToWorkspace"] = True

        address = f"s3://{bucket.name}/data.txt"
        found = ran(
            tmp_path, environments, {"address": address, "target": str(tmp_path / "make")},
            into_workspace,
        )  # fmt: skip

        place = tmp_path / "workspace" / ".artifacts" / "s3" / bucket.name / "data.txt"
        assert place.read_text() == "word"
        assert place.stat().st_mode & 0o200
        assert found.nodes["look"].outputs.parameters["Output"] == f"{address} data.txt word"
        assert found.nodes["cat"].outputs.parameters["found"] == "word"


class TestImporters:
    def _imported(self, folder: Path, given: dict[str, Any], change: Any, name: str) -> Artifact:
        documents = list(yaml.safe_load_all(corpus.compiled(name)))
        tasks = documents[0]["root"]["dag"]["tasks"]
        documents[0]["root"].pop("outputDefinitions", None)
        documents[0]["root"]["dag"].pop("outputs", None)
        for other in [one for one in tasks if one != "importer"]:
            del tasks[other]
        executor = documents[0]["deploymentSpec"]["executors"]["exec-importer"]["importer"]
        change(executor)
        pipeline = reading.read_bytes(yaml.safe_dump_all(documents).encode(), "p.yaml")
        found = run(pipeline, given, folder, environments=folder)
        assert found.end.state == "SUCCEEDED", found.nodes["importer"].reason
        artifact = found.nodes["importer"].outputs.artifacts["artifact"]
        assert isinstance(artifact, Artifact)
        return artifact

    def test_its_type_is_that_of_its_output_where_it_names_none(self, tmp_path: Path) -> None:
        def change(importer: dict[str, Any]) -> None:
            del importer["typeSchema"]

        given = {"address": "s3://b/x", "target": ""}
        artifact = self._imported(tmp_path, given, change, "elsewhere")
        assert (artifact.schema, artifact.version) == ("system.Dataset", "0.0.1")

    def test_one_that_is_imported_anew_is_another_one(self, tmp_path: Path) -> None:
        given = {"address": "s3://b/x", "target": ""}
        same = self._imported(tmp_path, given, lambda _: None, "elsewhere")
        other = self._imported(
            tmp_path, given, lambda importer: importer.update(reimport=True), "elsewhere"
        )
        assert same.uri == other.uri
        assert same.name == "importer/artifact"
        assert other.name == "1/importer/artifact"
        assert same.called == other.called == "artifact"

    def test_metadata_with_placeholders_also_in_keys(self, tmp_path: Path) -> None:
        mark = "{{$.inputs.parameters['uri']}}"

        def change(importer: dict[str, Any]) -> None:
            importer["metadata"] = {mark: ["a", {"x": f"at {mark}"}], "n": 3.0}
            importer["properties"] = {"old": {"constantValue": {"intValue": "2"}}}
            importer["customProperties"] = {"given": {"runtimeParameter": "uri"}}

        given = {"address": "s3://b/x", "target": ""}
        artifact = self._imported(tmp_path, given, change, "elsewhere")
        assert artifact.metadata == {
            "s3://b/x": ["a", {"x": "at s3://b/x"}], "n": 3, "old": 2, "given": "s3://b/x"
        }  # fmt: skip

    def test_an_address_as_old_compilers_write_it(self, tmp_path: Path) -> None:
        def change(importer: dict[str, Any]) -> None:
            importer["artifactUri"] = {"constantValue": {"stringValue": "s3://b/old"}}

        given = {"address": "s3://b/x", "target": ""}
        assert self._imported(tmp_path, given, change, "elsewhere").uri == "s3://b/old"


def _data(uri: str, schema: str = "system.Dataset") -> Bundle:
    return Bundle(artifacts={"data": Artifact("data", uri, schema)})


def _path(bundle: Bundle) -> str | None:
    artifact = bundle.artifacts["data"]
    assert isinstance(artifact, Artifact)
    return artifact.custom_path


class TestBrought:
    @pytest.fixture
    def cancelled(self) -> threading.Event:
        return threading.Event()

    @pytest.fixture
    def made(self, tmp_path: Path, cancelled: threading.Event) -> RemoteArtifacts:
        return RemoteArtifacts(tmp_path / "brought", cancelled)

    def test_those_who_come_at_once_share_one_download(
        self,
        bucket: Bucket,
        server: Server,
        made: RemoteArtifacts,
    ) -> None:
        bucket.put("folder/a.bin", b"x" * 1000)
        bucket.put("folder/b/c", b"y")
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(
                    lambda _: _path(made.fetch_inputs("t", _data(f"s3://{bucket.name}/folder"))),
                    range(8),
                )
            )

        assert len(set(found)) == 1
        place = Path(str(found[0]))
        assert place.name == "folder"
        assert (place / "b" / "c").read_bytes() == b"y"
        assert (place / "a.bin").stat().st_mode & 0o222 == 0
        assert gets(server, "a.bin") == 1

    def test_a_later_attempt_has_what_was_brought(
        self,
        bucket: Bucket,
        server: Server,
        made: RemoteArtifacts,
        tmp_path: Path,
    ) -> None:
        bucket.put("x", b"1")
        first = _path(made.fetch_inputs("t", _data(f"s3://{bucket.name}/x")))
        again = RemoteArtifacts(tmp_path / "brought", threading.Event())
        assert _path(again.fetch_inputs("t", _data(f"s3://{bucket.name}/x"))) == first
        assert gets(server, "x") == 1

    def test_a_stop_leaves_nothing_half(
        self,
        bucket: Bucket,
        made: RemoteArtifacts,
        cancelled: threading.Event,
        tmp_path: Path,
    ) -> None:
        bucket.write("large", [5 * 2**20, 5 * 2**20, 100])
        cancelled.set()
        with pytest.raises(ModelyardError) as caught:
            made.fetch_inputs("t", _data(f"s3://{bucket.name}/large"))

        assert caught.value.code == "Stopped"
        assert not [one for one in (tmp_path / "brought").rglob("*") if one.is_file()]

    @pytest.mark.parametrize("uri", ["/a/path", "relative", "gs://b/x", "https://h/x", ""])
    def test_others_are_as_they_were(self, made: RemoteArtifacts, uri: str) -> None:
        assert made.fetch_inputs("t", _data(uri)) == _data(uri)

    def test_a_file_uri_is_a_path(self, made: RemoteArtifacts) -> None:
        assert _path(made.fetch_inputs("t", _data("file:///a/b%20c"))) == "/a/b c"

    def test_metrics_need_no_file(self, bucket: Bucket, made: RemoteArtifacts) -> None:
        given = _data(f"s3://{bucket.name}/none", "system.Metrics")
        assert made.fetch_inputs("t", given) == given
        with pytest.raises(NotFoundError) as caught:
            made.fetch_inputs("t", _data(f"s3://{bucket.name}/none"))
        assert caught.value.code == "ArtifactMissing"

    def test_lists(self, bucket: Bucket, made: RemoteArtifacts) -> None:
        bucket.put("x", b"1")
        several = [Artifact("0", f"s3://{bucket.name}/x"), Artifact("1", "/local")]
        found = made.fetch_inputs("t", Bundle(artifacts={"data": several})).artifacts["data"]
        assert isinstance(found, list)
        assert [one.custom_path is None for one in found] == [False, True]

    @pytest.mark.parametrize(
        ("uri", "code"),
        [("nas://gone:/x", "NasUnknown"), ("s3:///x", "BucketNameWrong")],
    )
    def test_what_cannot_be_understood_is_named(
        self, made: RemoteArtifacts, uri: str, code: str
    ) -> None:
        with pytest.raises(BadInputError) as caught:
            made.fetch_inputs("the-task", _data(uri))
        assert caught.value.code == code
        assert caught.value.message.startswith(f"The task the-task and {uri}: ")

    def test_a_password_is_not_told(self, made: RemoteArtifacts) -> None:
        with pytest.raises(BadInputError) as caught:
            made.fetch_inputs("t", _data("s3://user:hidden@bucket/x"))
        assert caught.value.code == "SecretInUri"
        assert "hidden" not in str(caught.value)
        assert "hidden" not in str(remote_artifacts.unreachable("t", "https://user:hidden@host/x"))
        assert remote_artifacts.unfetchable(_data("https://u:hidden@host/x")) == {
            "data": "https://…"
        }

    def test_a_missing_part_of_a_nas(
        self, made: RemoteArtifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELYARD_NAS", f'{{"one": "{tmp_path}"}}')
        with pytest.raises(NotFoundError, match="needs nas://one:/gone, which does not exist"):
            made.fetch_inputs("t", _data("nas://one:/gone"))

    def test_a_workspace_wants_what_can_be_fetched(
        self, made: RemoteArtifacts, tmp_path: Path
    ) -> None:
        with pytest.raises(BadInputError) as caught:
            made.to_workspace("t", "gs://b/x", tmp_path)
        assert caught.value.code == "ArtifactUnreachable"
        (tmp_path / "given").write_text("word")
        place = made.to_workspace("t", str(tmp_path / "given"), tmp_path / "workspace")
        assert place.read_text() == "word"


class TestSent:
    @pytest.fixture
    def outputs(self, tmp_path: Path) -> executor_io.OutputPlan:
        pipeline = reading.read_bytes(corpus.compiled("elsewhere"), "p.yaml")
        return executor_io.plan(
            "loop/0/make", pipeline.component("comp-make"), folder=tmp_path / "task",
            artifacts=tmp_path / "artifacts", remote=f"file://{tmp_path}/away",
        )  # fmt: skip

    def test_the_places_that_are_planned(
        self, outputs: executor_io.OutputPlan, tmp_path: Path
    ) -> None:
        model = outputs.artifacts["model"]
        assert model.uri == f"file://{tmp_path}/away/loop/0/make/model"
        assert model.custom_path == f"{tmp_path}/artifacts/loop/0/make/model"
        assert Path(str(model.custom_path)) in outputs.paths

    def test_a_failure_names_the_task_and_the_address(
        self,
        outputs: executor_io.OutputPlan,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(_self: FileStore, _source: Path, _progress: Progress | None = None) -> None:
            raise ModelyardError("It is full.", "Make room.", code="DiskFull")

        monkeypatch.setattr(FileStore, "publish", full)
        executor_io.prepare(outputs)
        model = outputs.artifacts["model"]
        Path(str(model.custom_path)).write_text("weights")
        made = RemoteArtifacts(
            tmp_path / "brought", threading.Event(), root=f"file://{tmp_path}/away"
        )
        with pytest.raises(ModelyardError) as caught:
            made.publish_outputs(outputs, Bundle(artifacts={"model": model}))
        assert caught.value.code == "DiskFull"
        assert str(caught.value) == (
            f"The task loop/0/make and {model.uri}: It is full. Make room."
        )
        assert not list((tmp_path / "brought" / "sending").iterdir())

    def test_what_stays_with_the_run(
        self, outputs: executor_io.OutputPlan, tmp_path: Path
    ) -> None:
        made = RemoteArtifacts(tmp_path / "brought", threading.Event())
        local = Bundle(artifacts={"model": Artifact("m", f"{tmp_path}/artifacts/m")})
        assert made.publish_outputs(outputs, local) == local

    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            ("s3://bucket/root/", "s3://bucket/root/a-b/run"),
            ("gs://bucket/root", ""),
            ("dummy_root", ""),
            ("", ""),
        ],
    )
    def test_a_pipeline_s_root(self, asked: str, found: str) -> None:
        assert remote_artifacts.root(asked, "a/b", "", "..", "run") == found


def test_a_component_of_an_old_sdk_finds_its_paths(tmp_path: Path) -> None:
    """The code that is added to a component asks little of the SDK that it has."""
    from kfp.dsl.types import artifact_types

    from pipelines import components

    class Old:
        def __init__(self, uri: str) -> None:
            self.uri = uri

        def _get_path(self) -> str:
            return f"/old/{self.uri}"

    before = artifact_types.Artifact
    artifact_types.Artifact = Old  # type: ignore[misc, assignment]
    try:
        exec(components._PATHS.replace("{paths}", '{"s3://b/x": "/here"}'), {})
    finally:
        artifact_types.Artifact = before  # type: ignore[misc]
    assert Old("s3://b/x")._get_path() == "/here"
    assert Old("other")._get_path() == "/old/other"
