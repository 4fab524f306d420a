from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError
from pipelines import executor_io
from pipelines.artifacts import Artifact, Bundle
from pipelines.executor_io import OutputPlan

_COMPONENT = {
    "outputDefinitions": {
        "parameters": {
            "text": {"parameterType": "STRING"},
            "whole": {"parameterType": "NUMBER_INTEGER"},
            "real": {"parameterType": "NUMBER_DOUBLE"},
            "truth": {"parameterType": "BOOLEAN"},
            "list": {"parameterType": "LIST"},
            "struct": {"parameterType": "STRUCT"},
        },
        "artifacts": {
            "model": {
                "artifactType": {"schemaTitle": "system.Model", "schemaVersion": "0.0.2"},
                "metadata": {"kind": "declared", "size": 3},
            },
            "several": {
                "artifactType": {"schemaTitle": "system.Artifact"},
                "isArtifactList": True,
            },
        },
    }
}


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


def _component(spec: dict[str, Any] = _COMPONENT) -> ir.ComponentSpec:
    found: ir.ComponentSpec = json_format.ParseDict(spec, ir.ComponentSpec())
    return found


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OutputPlan:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    found = executor_io.plan(
        "loop/3/train",
        _component(),
        folder=tmp_path / "job",
        artifacts=tmp_path / "artifacts",
    )
    executor_io.prepare(found)
    return found


def _say(outputs: OutputPlan, said: object) -> None:
    outputs.file.write_text(said if isinstance(said, str) else json.dumps(said))


def _read(outputs: OutputPlan) -> Bundle:
    return executor_io.read(outputs, _component())


def _model(outputs: OutputPlan, **said: object) -> Artifact:
    _say(outputs, {"artifacts": {"model": {"artifacts": [said]}}})
    found = _read(outputs).artifacts["model"]
    assert isinstance(found, Artifact)
    return found


class TestPlan:
    def test_the_task_is_in_every_artifact_s_place(
        self, outputs: OutputPlan, tmp_path: Path
    ) -> None:
        model = outputs.artifacts["model"]

        assert model.name == "loop/3/train/model"
        assert model.called == "model"
        assert model.uri == f"{tmp_path}/artifacts/loop/3/train/model"
        assert (model.schema, model.version) == ("system.Model", "0.0.2")
        assert model.metadata == {"kind": "declared", "size": 3}
        assert outputs.file == tmp_path / "artifacts/loop/3/train/executor_output.json"

    @pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "a\x00b", "x" * 400, "é"])
    def test_a_name_is_no_way_out(self, tmp_path: Path, name: str) -> None:
        spec = {
            "outputDefinitions": {
                "parameters": {name: {"parameterType": "STRING"}},
                "artifacts": {name: {"artifactType": {"schemaTitle": "system.Model"}}},
            }
        }
        found = executor_io.plan(
            f"{name}/task", _component(spec), folder=tmp_path / "job", artifacts=tmp_path / "run"
        )
        executor_io.prepare(found)

        for path in found.paths:
            inside = tmp_path / ("job" if path in found.parameters.values() else "run")
            assert path.resolve().is_relative_to(inside)
            assert path.resolve() != inside
            path.write_text("")

    def test_what_an_earlier_attempt_has_left_is_gone(
        self, outputs: OutputPlan, tmp_path: Path
    ) -> None:
        _say(outputs, "{}")
        outputs.parameters["text"].write_text("old")
        Path(outputs.artifacts["model"].uri).mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "file").write_text("theirs")
        Path(outputs.artifacts["several"].uri).symlink_to(tmp_path / "elsewhere")

        executor_io.prepare(outputs)

        assert [path for path in outputs.paths if os.path.lexists(path)] == []
        assert all(path.parent.is_dir() for path in outputs.paths)
        assert (tmp_path / "elsewhere" / "file").exists()


class TestExecutorInput:
    def test_what_a_component_is_told(self, outputs: OutputPlan) -> None:
        inputs = Bundle(
            parameters={
                "whole": 6.0,
                "nested": {"a": [1.0, 2.5, {"b": 3.0}]},
                "text": 'é "q" {{$}}',
                "none": None,
                "no": False,
                "inner": [None],
            },
            artifacts={
                "one": Artifact("loop/1/load/n", "/u", "system.Dataset", "0.0.1", {"rows": 2.0}),
                "many": [Artifact("a", "/a"), Artifact("b", "/b", custom_path="/c")],
                "empty": [],
            },
        )

        text = executor_io.executor_input(inputs, outputs)

        told = json.loads(text)
        assert told["inputs"]["parameterValues"] == {
            "whole": 6,
            "nested": {"a": [1, 2.5, {"b": 3}]},
            "text": 'é "q" {{$}}',
            "no": False,
            "inner": [None],
        }
        assert "6.0" not in text
        assert told["inputs"]["artifacts"]["one"] == {
            "artifacts": [
                {
                    "name": "n",
                    "type": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
                    "uri": "/u",
                    "metadata": {"rows": 2},
                }
            ]
        }
        many = told["inputs"]["artifacts"]["many"]["artifacts"]
        assert [one["uri"] for one in many] == ["/a", "/b"]
        assert many[1]["customPath"] == "/c"
        assert told["outputs"]["outputFile"] == str(outputs.file)
        assert told["outputs"]["parameters"]["text"] == {
            "outputFile": str(outputs.parameters["text"])
        }
        (model,) = told["outputs"]["artifacts"]["model"]["artifacts"]
        assert model["uri"] == outputs.artifacts["model"].uri
        assert model["type"]["schemaTitle"] == "system.Model"
        json_format.Parse(text, ir.ExecutorInput())

    def test_half_a_surrogate_pair(self, outputs: OutputPlan) -> None:
        inputs = Bundle(parameters={"text": "\ud800 é"})

        text = executor_io.executor_input(inputs, outputs)

        text.encode()
        assert json.loads(text)["inputs"]["parameterValues"]["text"] == "\ud800 é"

    def test_a_component_without_anything(self, tmp_path: Path) -> None:
        found = executor_io.plan(
            "task", ir.ComponentSpec(), folder=tmp_path, artifacts=tmp_path / "run"
        )
        assert json.loads(executor_io.executor_input(Bundle(), found)) == {
            "inputs": {},
            "outputs": {"outputFile": str(tmp_path / "run/task/executor_output.json")},
        }


class TestParameters:
    def test_nothing_written_is_nothing_handed_on(self, outputs: OutputPlan) -> None:
        found = _read(outputs)

        assert found.parameters == {}
        assert found.artifacts == {
            "model": outputs.artifacts["model"],
            "several": [outputs.artifacts["several"]],
        }

    def test_from_the_output_file(self, outputs: OutputPlan) -> None:
        said = {"text": "1", "whole": 3, "real": 2, "truth": True, "list": [1, 2.5],
                "struct": {"a": 1}}  # fmt: skip
        _say(outputs, {"parameterValues": said})

        found = _read(outputs).parameters

        assert found == said
        assert type(found["list"][0]) is int

    def test_from_their_own_files(self, outputs: OutputPlan) -> None:
        said = {"text": " 1\n", "whole": "3\n", "real": "2.5", "truth": "True", "list": "[1]",
                "struct": '{"a": 1}'}  # fmt: skip
        for name, text in said.items():
            outputs.parameters[name].write_text(text)

        assert _read(outputs).parameters == {
            "text": " 1\n", "whole": 3, "real": 2.5, "truth": True, "list": [1],
            "struct": {"a": 1},
        }  # fmt: skip

    def test_the_output_file_comes_first(self, outputs: OutputPlan) -> None:
        _say(outputs, {"parameterValues": {"whole": 1, "real": None}})
        outputs.parameters["whole"].write_text("no number")
        outputs.parameters["real"].write_text("2.5")

        assert _read(outputs).parameters == {"whole": 1, "real": 2.5}

    def test_what_is_not_declared_is_left_out(self, outputs: OutputPlan) -> None:
        _say(outputs, {"parameterValues": {"other": 1}, "artifacts": {"other": {}}, "more": 1})

        assert _read(outputs).parameters == {}

    @pytest.mark.parametrize(
        ("said", "mistake"),
        [
            ("{", "it is not JSON"),
            ("[" * 100_000, "it is not JSON"),
            ("[]", "it holds no object but a list"),
            ("null", "it holds no object but null"),
            ({"parameterValues": []}, "parameterValues is not an object but a list"),
            ({"parameterValues": {"whole": 1.5}}, "whole"),
            ({"parameterValues": {"text": 1}}, "text"),
            ({"parameterValues": {"list": {}}}, "list"),
            ({"parameterValues": {"truth": "true"}}, "truth"),
            ({"artifacts": "x"}, "artifacts is not an object but a string"),
            ({"artifacts": {"model": "x"}}, "artifacts.model.artifacts is not a list of objects"),
            ({"artifacts": {"model": {"artifacts": ["x"]}}}, "not a list of objects"),
            ({"artifacts": {"model": {"artifacts": [{"uri": 1}]}}}, "uri is a number"),
            ({"artifacts": {"model": {"artifacts": [{"metadata": []}]}}}, "metadata is a list"),
            (
                {"artifacts": {"model": {"artifacts": [{"metadata": {"a": _deep(200)}}]}}},
                "metadata nests deeper than 100 levels",
            ),
        ],
    )
    def test_a_malformed_output_file(
        self, outputs: OutputPlan, said: object, mistake: str
    ) -> None:
        _say(outputs, said)
        with pytest.raises(BadInputError) as caught:
            _read(outputs)
        assert caught.value.code == "OutputMalformed"
        assert "loop/3/train" in caught.value.message
        assert "executor_output.json" in caught.value.message
        assert mistake in caught.value.message

    @pytest.mark.parametrize(
        ("name", "data", "mistake"),
        [
            ("whole", b"one", "JSON"),
            ("whole", b"", "JSON"),
            ("struct", b"[1]", "JSON"),
            ("text", b"\xff", "it is not UTF-8: byte 0"),
        ],
    )
    def test_a_malformed_file_of_a_parameter(
        self, outputs: OutputPlan, name: str, data: bytes, mistake: str
    ) -> None:
        outputs.parameters[name].write_bytes(data)
        with pytest.raises(BadInputError) as caught:
            _read(outputs)
        assert caught.value.code == "OutputMalformed"
        assert f"loop/3/train has written a malformed output, {name}:" in caught.value.message
        assert mistake in caught.value.message

    def test_a_file_that_is_too_large_is_not_read(
        self, outputs: OutputPlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(executor_io, "MOST_BYTES", 2**20)
        for path in (outputs.file, outputs.parameters["text"]):
            with path.open("wb") as file:
                file.truncate(2**20 + 1)
            with pytest.raises(BadInputError, match=r"larger than 1 MiB. Hand on an artifact"):
                _read(outputs)
            path.unlink()

    def test_an_output_file_that_is_a_folder(self, outputs: OutputPlan) -> None:
        outputs.file.mkdir()
        with pytest.raises(BadInputError, match="it is not a file"):
            _read(outputs)

    @settings(max_examples=200, deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["parameterValues", "artifacts", "model", "several", "whole", "text",
                         "uri", "metadata", "custom_path"]
                    ),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=12,
        )
    )  # fmt: skip
    def test_whatever_is_written_is_read_or_refused(self, said: object) -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = executor_io.plan(
                "task", _component(), folder=Path(folder), artifacts=Path(folder, "run")
            )
            executor_io.prepare(found)
            _say(found, json.dumps(said))
            try:
                executor_io.read(found, _component())
            except BadInputError as error:
                assert error.code == "OutputMalformed"  # noqa: PT017


class TestArtifacts:
    def test_numbers_that_json_has_not_are_texts_in_metadata(self, outputs: OutputPlan) -> None:
        odd = {"loss": math.nan, "all": [math.inf, {"least": -math.inf}], "fine": 0.5}
        found = _model(outputs, name="ignored", metadata=odd)

        assert found.metadata["loss"] == "NaN"
        assert found.metadata["all"] == ["Infinity", {"least": "-Infinity"}]
        assert found.metadata["fine"] == 0.5

    def test_metadata_is_added_to_what_is_declared(self, outputs: OutputPlan) -> None:
        found = _model(outputs, name="ignored", metadata={"kind": "real", "score": [1, 2.5]})

        assert found.metadata == {"kind": "real", "size": 3, "score": [1, 2.5]}
        assert found.name == "loop/3/train/model"
        assert found.uri == outputs.artifacts["model"].uri

    @pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://b/../x", "hf://model"])
    def test_another_address(self, outputs: OutputPlan, uri: str) -> None:
        assert _model(outputs, uri=uri).uri == uri

    def test_an_address_in_the_run_the_task_s_folder_or_the_temporary_one(
        self, outputs: OutputPlan, tmp_path: Path
    ) -> None:
        for place in ("artifacts/other/x", "job/x", "temporary/x"):
            uri = str(tmp_path / place)
            assert _model(outputs, uri=uri).uri == uri
            assert _model(outputs, uri=f"file://{uri}").uri == f"file://{uri}"

    @pytest.mark.parametrize(
        "uri",
        ["TMP/other", "TMP/artifacts/../other", "TMP/artifacts2/x", "../other", "file://TMP/other",
         "file://TMP/job/%2E%2E/other", "TMP/job/link/x"],
    )  # fmt: skip
    def test_an_address_outside_is_refused(
        self, outputs: OutputPlan, tmp_path: Path, uri: str
    ) -> None:
        (tmp_path / "job" / "link").symlink_to(tmp_path)
        with pytest.raises(BadInputError, match="outside the folders of its run") as caught:
            _model(outputs, uri=uri.replace("TMP", str(tmp_path)))
        assert caught.value.code == "OutputMalformed"

    def test_several(self, outputs: OutputPlan) -> None:
        uris = [f"{outputs.root}/{number}" for number in range(3)]
        listed = [{"uri": uri, "metadata": {"uri": uri}} for uri in uris]
        _say(outputs, {"artifacts": {"several": {"artifacts": listed}}})

        found = _read(outputs).artifacts["several"]

        assert isinstance(found, list)
        assert [one.uri for one in found] == uris
        assert [one.metadata["uri"] for one in found] == uris

    @pytest.mark.parametrize("key", ["custom_path", "customPath"])
    def test_a_file_at_a_custom_path_is_carried_to_the_artifact_s_place(
        self, outputs: OutputPlan, tmp_path: Path, key: str
    ) -> None:
        custom = tmp_path / "temporary" / "custom"
        custom.write_text("content")

        found = _model(outputs, **{key: str(custom)})

        custom.unlink()
        assert found.custom_path is None
        assert Path(found.uri).read_text() == "content"

    def test_a_folder_at_a_custom_path(self, outputs: OutputPlan, tmp_path: Path) -> None:
        (tmp_path / "job" / "made" / "deep").mkdir(parents=True)
        (tmp_path / "job" / "made" / "deep" / "file").write_text("content")

        found = _model(outputs, custom_path="made")

        assert (Path(found.uri) / "deep" / "file").read_text() == "content"

    def test_a_custom_path_that_is_the_artifact_s_own(self, outputs: OutputPlan) -> None:
        own = Path(outputs.artifacts["model"].uri)
        own.write_text("content")
        assert _model(outputs, custom_path=str(own)).custom_path is None
        assert own.read_text() == "content"

    def test_a_custom_path_around_the_artifact_s_own(self, outputs: OutputPlan) -> None:
        assert _model(outputs, custom_path=str(outputs.root)).uri == outputs.artifacts["model"].uri

    def test_a_custom_path_of_an_artifact_elsewhere(
        self, outputs: OutputPlan, tmp_path: Path
    ) -> None:
        custom = tmp_path / "temporary" / "custom"
        custom.write_text("content")

        found = _model(outputs, uri="gs://bucket/x", custom_path=str(custom))

        assert (found.uri, found.custom_path) == ("gs://bucket/x", str(custom))

    def test_a_custom_path_where_nothing_is(self, outputs: OutputPlan) -> None:
        found = _model(outputs, custom_path="/nowhere/at/all")

        assert found == outputs.artifacts["model"]

    def test_a_custom_path_outside_is_refused(self, outputs: OutputPlan, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("theirs")
        for custom in (str(tmp_path / "secret"), "../secret"):
            with pytest.raises(BadInputError, match="outside the folders of its run"):
                _model(outputs, custom_path=custom)
        assert not Path(outputs.artifacts["model"].uri).exists()

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("uri", "a\0b"),
            ("uri", "\ud800"),
            ("uri", "TMP/job/loop"),
            ("custom_path", "x" * 5000),
            ("custom_path", "TMP/job/pipe"),
        ],
    )
    def test_what_is_no_path(
        self, outputs: OutputPlan, tmp_path: Path, key: str, path: str
    ) -> None:
        (tmp_path / "job" / "loop").symlink_to(tmp_path / "job" / "loop")
        os.mkfifo(tmp_path / "job" / "pipe")
        with pytest.raises(BadInputError) as caught:
            _model(outputs, **{key: path.replace("TMP", str(tmp_path))})
        assert caught.value.code == "OutputMalformed"
