import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp import dsl

from infra.errors import BadInputError
from pipelines import placeholders
from pipelines.artifacts import Artifact
from pipelines.placeholders import PlaceholderContext, PlaceholderFacts
from tests.pipelines import compiling

DATA = Artifact(
    "load/data", "/runs/1/load/data", "system.Dataset", metadata={"rows": 3, "s": "a b"}
)
OTHER = Artifact("load/other", "gs://bucket/other")
MODEL = Artifact("train/model", "/runs/1/train/model", "system.Model")
CONTEXT = PlaceholderContext(
    parameters={
        "text": "it's {{$.inputs.parameters['number']}} \"q\"",
        "number": 3,
        "rate": 0.5,
        "flag": True,
        "list": [1, "a"],
        "struct": {"b": 1, "a": "é"},
        "null": None,
        "with space": "yes",
    },
    artifacts={"data": DATA, "several": [DATA, OTHER], "none": []},
    declared=frozenset({"text", "left_out", "no_artifact"}),
    output_file="/runs/1/out.json",
    output_parameters={"said": "/runs/1/said"},
    output_artifacts={"model": MODEL},
    facts=PlaceholderFacts(
        "my run", "p-1", "id-1", "2026-01-02T03:04:05Z", "2026-01-02T03:00:00Z", "/root", "/w",
        "train", "id-2",
    ),
    executor_input=lambda: '{"inputs": "{{$.inputs.parameters[\'number\']}}"}',
)  # fmt: skip


def filled(text, context=CONTEXT):
    return placeholders.fill([text], context)


class TestFill:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("nothing", "nothing"),
            ("", ""),
            ("{{$}}", '{"inputs": "{{$.inputs.parameters[\'number\']}}"}'),
            ("{{$.inputs.parameters['number']}}", "3"),
            ("{{$.inputs.parameters['rate']}}", "0.5"),
            ("{{$.inputs.parameters['flag']}}", "true"),
            ("{{$.inputs.parameters['list']}}", '[1,"a"]'),
            ("{{$.inputs.parameters['struct']}}", '{"a":"é","b":1}'),
            ("{{$.inputs.parameters['with space']}}", "yes"),
            ('{{$.inputs.parameters["number"]}}', "3"),
            ("{{$.inputs.parameters[''number'']}}", "3"),
            ("-{{$.inputs.parameters['number']}}-{{$.inputs.parameters['rate']}}-", "-3-0.5-"),
            ("{{$.inputs.parameters['left_out']}}", ""),
            ("{{$.inputs.artifacts['no_artifact'].path}}", ""),
            ("{{$.inputs.artifacts['data'].uri}}", "/runs/1/load/data"),
            ("{{$.inputs.artifacts['data'].path}}", "/runs/1/load/data"),
            ("{{$.inputs.artifacts['data'].name}}", "data"),
            ("{{$.inputs.artifacts['data'].metadata}}", '{"rows":3,"s":"a b"}'),
            ("{{$.inputs.artifacts['data'].metadata['rows']}}", "3"),
            ("{{$.inputs.artifacts['data'].metadata['s']}}", "a b"),
            ("{{$.inputs.artifacts['several'].uri}}", "/runs/1/load/data"),
            ("{{$.inputs.artifacts['several'][1].uri}}", "gs://bucket/other"),
            ("{{$.inputs.artifacts['several'].artifacts[1].path}}", "/gcs/bucket/other"),
            ("{{$.outputs.parameters['said'].output_file}}", "/runs/1/said"),
            ("{{$.outputs.artifacts['model'].uri}}", "/runs/1/train/model"),
            ("{{$.outputs.artifacts['model'].path}}", "/runs/1/train/model"),
            ("{{$.outputs.artifacts['model'].metadata}}", "{}"),
            ("{{$.outputs.output_file}}", "/runs/1/out.json"),
            ("{{$.outputMetadataUri}}", "/runs/1/out.json"),
            (dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "my run"),
            (dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER, "p-1"),
            (dsl.PIPELINE_JOB_ID_PLACEHOLDER, "id-1"),
            (dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER, "2026-01-02T03:04:05Z"),
            (dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER, "2026-01-02T03:00:00Z"),
            (dsl.PIPELINE_ROOT_PLACEHOLDER, "/root"),
            (dsl.WORKSPACE_PATH_PLACEHOLDER, "/w"),
            (dsl.PIPELINE_TASK_NAME_PLACEHOLDER, "train"),
            (dsl.PIPELINE_TASK_ID_PLACEHOLDER, "id-2"),
            (dsl.PIPELINE_TASK_EXECUTOR_OUTPUT_PATH_PLACEHOLDER, "/runs/1/out.json"),
            ("{{ $.x }} ${{x}} {{$x}} {{x}} {{$.open", "{{ $.x }} ${{x}} {{$x}} {{x}} {{$.open"),
        ],
    )
    def test_each_placeholder_stands_for_its_value(self, text, expected):
        assert filled(text) == [expected]

    def test_what_was_put_in_is_not_read_again(self):
        assert filled("{{$.inputs.parameters['text']}}") == [CONTEXT.parameters["text"]]

    @given(st.text(max_size=30))
    def test_any_value_comes_through_as_it_is(self, value):
        context = PlaceholderContext({"x": value, "y": "Y"}, executor_input=lambda: "E")
        words = placeholders.fill(
            ["<{{$.inputs.parameters['x']}}{{$.inputs.parameters['y']}}>",
             '{"Concat": ["<", "{{$.inputs.parameters[\'x\']}}", ">"]}'],
            context,
        )  # fmt: skip
        assert words == [f"<{value}Y>", f"<{value}>"]

    def test_an_artifact_as_a_whole_is_json(self):
        whole = json.loads(filled("{{$.inputs.artifacts['data']}}")[0])
        assert whole == {
            "name": "data",
            "uri": "/runs/1/load/data",
            "type": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"},
            "metadata": {"rows": 3, "s": "a b"},
        }
        several = json.loads(filled("{{$.inputs.artifacts['several']}}")[0])
        assert [one["uri"] for one in several] == ["/runs/1/load/data", "gs://bucket/other"]
        assert several[1] == json.loads(filled("{{$.inputs.artifacts['several'][1]}}")[0])

    def test_a_value_can_be_escaped_for_json(self):
        text = CONTEXT.parameters["text"]
        once = filled("{{$.inputs.parameters['text'].json_escape[1]}}")[0]
        assert json.loads(f'"{once}"') == text
        twice = filled("{{$.inputs.parameters['text'].json_escape[2]}}")[0]
        assert json.loads(f'"{twice}"') == once
        whole = filled("{{$.json_escape[1]}}")[0]
        assert json.loads(f'"{whole}"') == CONTEXT.executor_input()

    def test_the_executor_input_is_made_once_and_only_where_it_is_wanted(self):
        made = []
        context = PlaceholderContext(executor_input=lambda: made.append(1) or "E")
        assert placeholders.fill(["a"], context) == ["a"]
        assert made == []
        assert placeholders.fill(["{{$}}", "x{{$}}{{$}}"], context) == ["E", "xEE"]
        assert made == [1]

    @pytest.mark.parametrize(
        "text",
        [
            "{{$.nonsense}}",
            "{{$.pipeline_job_nonsense}}",
            "{{$.inputs.parameters['unknown']}}",
            "{{$.inputs.parameters['number'].output_file}}",
            "{{$.inputs.parameters.number}}",
            "{{$.inputs.artifacts['unknown'].uri}}",
            "{{$.inputs.artifacts['data'].nonsense}}",
            "{{$.inputs.artifacts['data'].metadata['unknown']}}",
            "{{$.inputs.artifacts['several'][2].uri}}",
            "{{$.inputs.artifacts['none'].uri}}",
            "{{$.outputs.parameters['said']}}",
            "{{$.outputs.parameters['unknown'].output_file}}",
            "{{$.outputs.artifacts['unknown'].uri}}",
            "{{$.inputs.parameters['number'].json_escape[100]}}",
        ],
    )
    def test_what_is_not_known_is_refused_by_name(self, text):
        with pytest.raises(BadInputError) as caught:
            filled(f"before {text} after")
        assert caught.value.code == "PlaceholderUnknown"
        assert text in caught.value.message

    def test_what_has_no_value_in_a_run_is_refused(self):
        for text in ("{{$.workspace_path}}", "{{$.outputs.output_file}}", "{{$}}"):
            with pytest.raises(BadInputError) as caught:
                filled(text, PlaceholderContext())
            assert caught.value.code == "PlaceholderUnknown"


class TestStructures:
    @pytest.mark.parametrize(
        ("structure", "expected"),
        [
            ({"Concat": ["a", "{{$.inputs.parameters['number']}}", "b"]}, ["a3b"]),
            ({"Concat": []}, [""]),
            ({"Concat": ["a", {"Concat": ["b", {"Concat": ["c"]}]}]}, ["abc"]),
            ({"IfPresent": {"InputName": "number", "Then": ["--n", "1"]}}, ["--n", "1"]),
            ({"IfPresent": {"InputName": "number", "Then": "one"}}, ["one"]),
            ({"IfPresent": {"InputName": "missing", "Then": "one"}}, []),
            ({"IfPresent": {"InputName": "missing", "Then": "one", "Else": None}}, []),
            ({"IfPresent": {"InputName": "missing", "Then": "one", "Else": []}}, []),
            ({"IfPresent": {"InputName": "missing", "Then": "one", "Else": "two"}}, ["two"]),
            ({"IfPresent": {"InputName": "missing", "Then": [], "Else": ["2", "3"]}}, ["2", "3"]),
            ({"IfPresent": {"InputName": "null", "Then": "one", "Else": "two"}}, ["two"]),
            ({"IfPresent": {"InputName": "data", "Then": "one"}}, ["one"]),
            ({"IfPresent": {"InputName": "model", "Then": "one"}}, ["one"]),
            (
                {"Concat": ["a", {"IfPresent": {"InputName": "missing", "Then": "b"}}, "c"]},
                ["ac"],
            ),
            (
                {"IfPresent": {"InputName": "number", "Then": [
                    {"Concat": ["--n=", "{{$.inputs.parameters['number']}}"]},
                    {"IfPresent": {"InputName": "null", "Then": "x", "Else": ["y", "z"]}},
                ]}},
                ["--n=3", "y", "z"],
            ),
        ],
    )  # fmt: skip
    def test_it_is_the_words_that_it_stands_for(self, structure, expected):
        assert filled(json.dumps(structure)) == expected
        assert filled(json.dumps(structure, separators=(",", ":"))) == expected

    def test_a_missing_branch_is_not_filled(self):
        structure = {
            "IfPresent": {"InputName": "missing", "Then": "{{$.inputs.parameters['missing']}}"}
        }
        assert filled(json.dumps(structure)) == []

    def test_it_may_be_the_whole_command(self):
        structure = {"IfPresent": {"InputName": "number", "Then": ["python", "-c", "pass"]}}
        assert placeholders.fill([json.dumps(structure)], CONTEXT) == ["python", "-c", "pass"]

    def test_values_with_quotes_break_nothing(self):
        structure = {"Concat": ["{{$.inputs.parameters['text']}}", "\"'"]}
        assert filled(json.dumps(structure)) == [CONTEXT.parameters["text"] + "\"'"]

    def test_other_json_is_left_alone(self):
        for text in ('{"Concatenate": 1}', '{"x": {"Concat": []}}', "[]", '{"a": "Concat"}'):
            assert filled(text) == [text]

    @pytest.mark.parametrize(
        "text",
        [
            '{"Concat": ["a"',
            '{"Concat": "a"}',
            '{"Concat": [1]}',
            '{"Concat": [{}]}',
            '{"Concat": [{"Nonsense": []}]}',
            '{"Concat": ["a"], "IfPresent": {}}',
            '{"IfPresent": []}',
            '{"IfPresent": {"Then": "a"}}',
            '{"IfPresent": {"InputName": 1, "Then": "a"}}',
            '{"IfPresent": {"InputName": "number"}}',
            '{"IfPresent": {"InputName": "number", "Then": "a", "Otherwise": "b"}}',
            '{"Concat": [' * 60 + "]}" * 60,
            '{"Concat": [' * 100_000,
        ],
    )
    def test_what_is_malformed_is_refused(self, text):
        for read in (filled, placeholders.check):
            with pytest.raises(BadInputError) as caught:
                read(text)
            assert caught.value.code == "PlaceholderInvalid"


class TestFillConstant:
    def test_references_are_filled_at_any_depth_and_in_keys(self):
        value = {
            "list": ["{{$.inputs.parameters['number']}}", 1, None],
            "k{{$.inputs.parameters['number']}}": {"x": "is {{$.inputs.parameters['rate']}}"},
            "job": "{{$.pipeline_job_name}} in {{$.workspace_path}}",
        }
        assert placeholders.fill_constant(value, CONTEXT) == {
            "list": ["3", 1, None],
            "k3": {"x": "is 0.5"},
            "job": "my run in /w",
        }

    def test_what_was_put_in_is_not_read_again(self):
        assert (
            placeholders.fill_constant("<{{$.inputs.parameters['text']}}>", CONTEXT)
            == f"<{CONTEXT.parameters['text']}>"
        )

    @pytest.mark.parametrize(
        "value",
        [1, True, None, 2.5, "{{$}}", "{{$.json_escape[1]}}", "{{$.Values.name}}", "{{ x }}",
         '{"Concat": ["a"]}'],
    )  # fmt: skip
    def test_the_rest_stays(self, value):
        assert placeholders.fill_constant(value, CONTEXT) == value

    @pytest.mark.parametrize(
        "text",
        [
            "{{$.pipeline_nonsense}}",
            "{{$.inputs.nonsense['x']}}",
            "{{$.inputs.parameters['unknown']}}",
        ],
    )
    def test_what_looks_like_ours_and_is_not_is_refused(self, text):
        with pytest.raises(BadInputError) as caught:
            placeholders.fill_constant([{"a": text}], CONTEXT)
        assert caught.value.code == "PlaceholderUnknown"
        assert text in caught.value.message


class TestCheck:
    def test_it_tells_what_is_named(self):
        found = placeholders.check(
            "{{$}} {{$.inputs.parameters['a']}} {{$.inputs.artifacts['b'][2].metadata['k']}} "
            "{{$.outputs.parameters['c'].output_file}} {{$.outputs.artifacts['d'].path}} "
            "{{$.outputs.output_file}} {{$.pipeline_root}}"
        )
        assert [(one.kind, one.name, one.field, one.key, one.index) for one in found] == [
            ("executor_input", "", "", None, None),
            ("inputs.parameters", "a", "", None, None),
            ("inputs.artifacts", "b", "metadata", "k", 2),
            ("outputs.parameters", "c", "", None, None),
            ("outputs.artifacts", "d", "path", None, None),
            ("output_file", "", "", None, None),
            ("fact", "pipeline_root", "", None, None),
        ]

    def test_it_looks_into_structures(self):
        found = placeholders.check(
            json.dumps(
                {"IfPresent": {
                    "InputName": "a",
                    "Then": [{"Concat": ["{{$.inputs.parameters['b']}}"]}],
                    "Else": "{{$.inputs.parameters['c']}}",
                }}
            )
        )  # fmt: skip
        assert [(one.kind, one.name) for one in found] == [
            ("present", "a"), ("inputs.parameters", "b"), ("inputs.parameters", "c"),
        ]  # fmt: skip

    def test_what_is_not_known_is_refused(self):
        for text in ("{{$.nonsense}}", '{"Concat": ["{{$.nonsense}}"]}'):
            with pytest.raises(BadInputError) as caught:
                placeholders.check(text)
            assert caught.value.code == "PlaceholderUnknown"
            assert "{{$.nonsense}}" in caught.value.message

    def test_of_a_constant_only_what_is_filled_is_read(self):
        text = "{{$}} {{$.Values.x}} {{$.inputs.parameters['a']}} {{$.pipeline_root}}"
        assert [one.name for one in placeholders.check_constant(text)] == ["a", "pipeline_root"]
        with pytest.raises(BadInputError):
            placeholders.check_constant("{{$.pipeline_nonsense}}")


class TestPathOf:
    @pytest.mark.parametrize(
        ("uri", "path"),
        [
            ("/a/b c", "/a/b c"),
            ("relative/b", "relative/b"),
            ("file:///a/b", "/a/b"),
            ("gs://a/b", "/gcs/a/b"),
            ("s3://a/b", "/s3/a/b"),
            ("minio://a/b", "/minio/a/b"),
            ("oci://registry/a/b:1", "/oci/registry_a_b:1/models"),
            ("https://a/b", None),
        ],
    )
    def test_it_is_where_the_sdk_looks(self, uri, path):
        assert placeholders.path_of(Artifact("x", uri)) == path
        if path and not uri.startswith("file:"):
            assert dsl.Model(uri=uri).path == path

    def test_a_custom_path_comes_first(self):
        assert placeholders.path_of(Artifact("x", "gs://a/b", custom_path="/c")) == "/c"

    def test_an_artifact_without_a_path_is_refused_where_it_is_wanted(self):
        context = PlaceholderContext(artifacts={"x": Artifact("x", "https://a/b")})
        assert filled("{{$.inputs.artifacts['x'].uri}}", context) == ["https://a/b"]
        with pytest.raises(BadInputError):
            filled("{{$.inputs.artifacts['x'].path}}", context)


class TestWhatKfpCompiles:
    def words(self, part):
        executors = compiling.compiled(compiling.program)["deploymentSpec"]["executors"]
        return executors["exec-program"]["container"][part]

    def context(self, **more):
        return PlaceholderContext(
            {"text": "T{{$}}", "number": 4, "maybe": "d"} | more,
            {"data": DATA},
            frozenset({"none"}),
            output_parameters={"path": "/o/path"},
            output_artifacts={"made": MODEL},
        )

    def test_a_container_components_command(self):
        command = placeholders.fill(self.words("command"), self.context())
        assert command == ["echo", "--text=T{{$}}/4", "--no-none", "really", "--m=d", "ab"]
        command = placeholders.fill(self.words("command"), self.context(none="N"))
        assert command == ["echo", "--text=T{{$}}/4", "--none", "N", "--m=d", "aN", "--never"]

    def test_its_arguments(self):
        assert placeholders.fill(self.words("args"), self.context()) == [
            DATA.uri, DATA.uri, MODEL.uri, MODEL.uri, "/o/path", "T{{$}}!", "3",
        ]  # fmt: skip

    def test_every_word_of_it_is_known(self):
        named = [one for part in ("command", "args") for word in self.words(part)
                 for one in placeholders.check(word)]  # fmt: skip
        assert {one.name for one in named} == {
            "text", "number", "maybe", "none", "data", "made", "path",
        }  # fmt: skip

    def test_constants_that_refer_to_other_inputs(self):
        tasks = compiling.compiled(compiling.constants)["root"]["dag"]["tasks"]

        def constant(task, name):
            value = tasks[task]["inputs"]["parameters"][name]["runtimeValue"]["constant"]
            others = {"pipelinechannel--count-Output": 5, "pipelinechannel--a": 2}
            facts = PlaceholderFacts(job_name="j", task_name=task)
            return placeholders.fill_constant(value, PlaceholderContext(others, facts=facts))

        assert constant("say", "text") == "5 and 2"
        assert constant("say-2", "text") == "j/say-2"
        assert constant("join", "texts") == ["5", "x", "2"]
