import copy
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines import reading
from pipelines.arguments import arguments, form, string_inputs
from pipelines.faults import PipelineInvalidError
from pipelines.pipeline import Pipeline
from tests.pipelines import corpus


def _pipeline(name: str) -> Pipeline:
    return reading.read_bytes(corpus.compiled(name), "p.yaml")


def _with(name: str, parameters: dict[str, Any], artifacts: dict[str, Any]) -> Pipeline:
    spec = copy.deepcopy(next(yaml.safe_load_all(corpus.compiled(name))))
    definitions = spec["root"].setdefault("inputDefinitions", {})
    definitions.setdefault("parameters", {}).update(parameters)
    definitions.setdefault("artifacts", {}).update(artifacts)
    return reading.read_bytes(yaml.safe_dump(spec).encode(), "p.yaml")


_DATASET = {"artifactType": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}


class TestArguments:
    @pytest.mark.parametrize("name", corpus.NAMES)
    def test_those_of_the_corpus(self, name: str) -> None:
        given = corpus.module(name).ARGUMENTS

        assert given.items() <= arguments(_pipeline(name), given).items()

    def test_defaults_complete_them(self) -> None:
        given = {"text": "x", "deep": {"a": 1}}

        found = arguments(_pipeline("parameter_types"), given)

        assert found == {
            "text": "x", "deep": {"a": 1}, "whole": 7, "number": 0.5, "flag": False,
            "items": [1, 2, [3]],
        }  # fmt: skip
        assert isinstance(found["whole"], int)

    @pytest.mark.parametrize("text", ["a\0", "\ud800"])
    def test_what_cannot_be_stored_is_refused(self, text: str) -> None:
        given = {"text": text, "deep": {"a": [text]}, "data": text}

        with pytest.raises(PipelineInvalidError) as raised:
            arguments(_with("parameter_types", {}, {"data": _DATASET}), given)
        assert raised.value.code == "ArgumentsInvalid"
        for name in given:
            assert f"{name}: It has a NUL character" in raised.value.message

    def test_what_is_given_wins(self) -> None:
        assert arguments(_pipeline("adding"), {"a": 1, "b": 9}) == {"a": 1, "b": 9}

    def test_a_whole_number_may_be_written_as_another(self) -> None:
        found = arguments(_pipeline("adding"), {"a": 3.0})["a"]

        assert found == 3
        assert isinstance(found, int)

    @pytest.mark.parametrize("given", [{}, {"given": None, "absent": None}])
    def test_optional_ones_are_left_out(self, given: dict[str, Any]) -> None:
        assert arguments(_pipeline("optional_parameters"), given) == {}

    def test_null_is_the_default(self) -> None:
        assert arguments(_pipeline("adding"), {"a": 1, "b": None})["b"] == 4

    def test_all_that_is_wrong_is_told_at_once(self) -> None:
        with pytest.raises(PipelineInvalidError) as caught:
            arguments(_pipeline("parameter_types"), {"deep": [], "texts": "x", "flag": 1})

        assert caught.value.code == "ArgumentsInvalid"
        assert {fault.place for fault in caught.value.faults} == {"deep", "text", "texts", "flag"}
        told = caught.value.message
        assert "texts: The pipeline has no such input. Did you mean text?" in told
        assert "text: It is missing. Give a string." in told
        assert "deep: It is a list, where a mapping is wanted." in told

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("text", 3),
            ("whole", 1.5),
            ("whole", True),
            ("whole", "3"),
            ("number", "0.5"),
            ("number", True),
            ("flag", "true"),
            ("flag", 0),
            ("items", "[1]"),
            ("items", {}),
            ("deep", "{}"),
            ("deep", []),
        ],
    )
    def test_wrong_types(self, name: str, value: Any) -> None:
        with pytest.raises(PipelineInvalidError) as caught:
            arguments(_pipeline("parameter_types"), {"text": "x", "deep": {}, name: value})

        assert [fault.place for fault in caught.value.faults] == [name]

    @pytest.mark.parametrize(
        ("name", "value", "hint"),
        [
            ("text", 3, "in quotes"),
            ("whole", "x", "whole number, such as 3"),
            ("number", "x", "such as 0.5"),
            ("flag", "x", "true or false"),
            ("items", "x", "such as '[1, 2]'"),
            ("deep", "x", """such as '{"a": 1}'"""),
        ],
    )
    @pytest.mark.parametrize("coerce", [True, False])
    def test_how_a_value_is_written_is_told(
        self, name: str, value: Any, hint: str, coerce: bool
    ) -> None:
        given = {"text": "x", "deep": {}, name: value}
        with pytest.raises(PipelineInvalidError) as caught:
            arguments(_pipeline("parameter_types"), given, coerce=coerce)

        assert hint in caught.value.message

    def test_values_are_not_told(self) -> None:
        with pytest.raises(PipelineInvalidError) as caught:
            arguments(_pipeline("adding"), {"a": "hunter2"})

        assert "hunter2" not in str(caught.value)

    def test_literals(self) -> None:
        parameters = {"kind": {"parameterType": "STRING", "literals": ["a", "b"]}}
        pipeline = _with("ordered", parameters, {})

        assert arguments(pipeline, {"kind": "a"}) == {"kind": "a"}
        with pytest.raises(PipelineInvalidError, match="Use one of a, b"):
            arguments(pipeline, {"kind": "c"})

    def test_a_status_cannot_be_given(self) -> None:
        pipeline = _with("ordered", {"status": {"parameterType": "TASK_FINAL_STATUS"}}, {})

        assert arguments(pipeline, {}) == {}
        with pytest.raises(PipelineInvalidError, match="no such input"):
            arguments(pipeline, {"status": {}})


class TestCoerce:
    def test_texts_are_read_as_what_they_stand_for(self) -> None:
        given = {"text": "3", "whole": "3", "number": "2", "flag": "True", "items": "[1, 2]",
                 "deep": '{"a": 1}'}  # fmt: skip

        found = arguments(_pipeline("parameter_types"), given, coerce=True)

        assert found == {"text": "3", "whole": 3, "number": 2, "flag": True, "items": [1, 2],
                         "deep": {"a": 1}}  # fmt: skip

    def test_values_stay(self) -> None:
        assert arguments(_pipeline("adding"), {"a": 3}, coerce=True)["a"] == 3

    @pytest.mark.parametrize(
        ("name", "text"),
        [("whole", "x"), ("whole", "1.5"), ("whole", ""), ("number", "NaN"), ("flag", "yes"),
         ("items", "{}"), ("items", "1,2"), ("deep", "[")],
    )  # fmt: skip
    def test_texts_that_do_not_stand_for_it(self, name: str, text: str) -> None:
        given = {"text": "x", "deep": {}, name: text}

        with pytest.raises(PipelineInvalidError) as caught:
            arguments(_pipeline("parameter_types"), given, coerce=True)

        assert [fault.place for fault in caught.value.faults] == [name]


class TestTexts:
    def test_texts_and_single_addresses_are_texts(self) -> None:
        artifacts = {"data": _DATASET, "many": {**_DATASET, "isArtifactList": True}}

        assert string_inputs(_with("parameter_types", {}, artifacts)) == {"text", "data"}


class TestArtifacts:
    def test_are_given_as_addresses(self) -> None:
        artifacts = {"data": _DATASET, "more": {**_DATASET, "isArtifactList": True}}
        pipeline = _with("ordered", {}, artifacts)
        given = {"data": "s3://b/k", "more": ["file:///a", "file:///b"]}

        assert arguments(pipeline, given) == given

    @pytest.mark.parametrize("given", [{}, {"data": ""}, {"data": 3}, {"data": ["s3://b/k"]}])
    def test_missing_or_wrong(self, given: dict[str, Any]) -> None:
        pipeline = _with("ordered", {}, {"data": _DATASET})

        with pytest.raises(PipelineInvalidError) as caught:
            arguments(pipeline, given)

        assert [fault.place for fault in caught.value.faults] == ["data"]

    def test_optional(self) -> None:
        pipeline = _with("ordered", {}, {"data": {**_DATASET, "isOptional": True}})

        assert arguments(pipeline, {}) == {}


class TestForm:
    @pytest.mark.parametrize("name", corpus.NAMES)
    def test_is_a_schema_that_takes_the_arguments(self, name: str) -> None:
        schema = form(_pipeline(name))

        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(corpus.module(name).ARGUMENTS, schema)

    def test_required_fields_come_first(self) -> None:
        schema = form(_pipeline("parameter_types"))

        assert schema["required"] == ["deep", "text"]
        assert list(schema["properties"]) == ["deep", "text", "flag", "items", "number", "whole"]
        assert [one["position"] for one in schema["properties"].values()] == list(range(6))

    def test_fields(self) -> None:
        fields = form(_pipeline("parameter_types"))["properties"]

        assert fields["text"] == {"title": "text", "position": 1, "type": "string"}
        assert fields["whole"]["type"] == "integer"
        assert fields["whole"]["default"] == 7
        assert fields["flag"]["default"] is False
        assert fields["items"]["default"] == [1, 2, [3]]

    def test_optional_ones_may_be_null(self) -> None:
        schema = form(_pipeline("optional_parameters"))

        assert schema["properties"]["absent"]["default"] is None
        jsonschema.validate({"absent": None}, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"absent": "x"}, schema)

    def test_unknown_ones_are_refused(self) -> None:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"a": 1, "c": 1}, form(_pipeline("adding")))

    def test_descriptions_choices_and_artifacts(self) -> None:
        parameters = {
            "kind": {"parameterType": "STRING", "literals": ["a"], "description": "Which."}
        }
        fields = form(_with("ordered", parameters, {"data": _DATASET}))["properties"]

        assert fields["kind"]["enum"] == ["a"]
        assert fields["kind"]["description"] == "Which."
        assert fields["data"]["type"] == "string"
        assert "system.Dataset" in fields["data"]["description"]
