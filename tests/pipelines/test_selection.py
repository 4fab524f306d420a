import json

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from infra.errors import BadInputError, ModelyardError
from pipelines import selection
from pipelines.artifacts import Artifact, Bundle
from pipelines.states import TaskState
from tests.pipelines import compiling

ROW = {"A_a": "heads", "B": [1, 2.5, {"c": 2**70}], "n": None, "t": True, "": 1, "0": "zero"}


def parsed(message, data):
    return json_format.ParseDict(data, message())


class TestSelect:
    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            ('parseJson(string_value)["A_a"]', "heads"),
            ("parseJson(string_value)['A_a']", "heads"),
            (' parseJson( string_value ) [ "A_a" ] ', "heads"),
            ("parseJson(string_value).A_a", "heads"),
            ('parseJson(string_value)["B"]', [1, 2.5, {"c": 2**70}]),
            ('parseJson(string_value)["B"][0]', 1),
            ('parseJson(string_value)["B"][2]["c"]', 2**70),
            ('parseJson(string_value)["n"]', None),
            ('parseJson(string_value)["t"]', True),
            ('parseJson(string_value)[""]', 1),
            ('parseJson(string_value)["0"]', "zero"),
            ("parseJson(string_value)", ROW),
        ],
    )
    def test_a_field_of_a_mapping_and_of_its_json_are_the_same(self, expression, expected):
        for value in (ROW, json.dumps(ROW)):
            found = selection.select(value, expression)
            assert json.dumps(found) == json.dumps(expected)

    @pytest.mark.parametrize(
        ("value", "expression", "expected"),
        [
            ("Hello", "string_value", "Hello"),
            (3, "string_value", "3"),
            (None, "string_value", ""),
            ([1, 2], "string_value", "[1,2]"),
            ({"a": "A"}, "struct_value.a", "A"),
            ({"a": {"b": "B"}}, "struct_value.a.b", "B"),
            ([1.5, 2], "list_value[1]", 2),
            (2.5, "number_value", 2.5),
            (True, "bool_value", True),
            ("[1.1,1.2]", "parseJson(string_value)[0]", 1.1),
            ([1.1, 1.2], "parseJson(string_value)[1]", 1.2),
            (7, "parseJson(string_value)", 7),
            (False, "parseJson(string_value)", False),
            # what only the evaluator understands
            ({"a": "x"}, 'parseJson(string_value)["a"] + "y"', "xy"),
            ([1, 2, 3], "size(list_value)", 3),
            ([1, 2, 3], "list_value.filter(x, x > 1.0)", [2, 3]),
            (3, "number_value * 2.0", 6),
        ],
    )
    def test_the_fields_of_protobufs_value_can_be_named(self, value, expression, expected):
        assert json.dumps(selection.select(value, expression)) == json.dumps(expected)

    @pytest.mark.parametrize(
        ("value", "expression"),
        [
            (ROW, 'parseJson(string_value)["missing"]'),
            (ROW, 'parseJson(string_value)["B"][9]'),
            (ROW, 'parseJson(string_value)["B"]["x"]'),
            (ROW, "parseJson(string_value)[0]"),
            (ROW, 'parseJson(string_value)["A_a"]["x"]'),
            ("no json", 'parseJson(string_value)["a"]'),
            ("NaN", "parseJson(string_value)"),
            (None, 'parseJson(string_value)["a"]'),
            ("Hello", "struct_value"),
            (3, 'parseJson(string_value)["a"]'),
            ([1], "list_value[0] + 'a'"),
            ("[" * 100_000, "parseJson(string_value)[0]"),
        ],
    )
    def test_what_is_not_there_is_an_error(self, value, expression):
        with pytest.raises(ModelyardError) as caught:
            selection.select(value, expression)
        assert caught.value.code == "SelectionFailed"
        assert expression in caught.value.message
        assert not isinstance(caught.value, BadInputError)

    @pytest.mark.parametrize(
        "expression",
        [
            "",
            'parseJson(string_value)["a"',
            "unknown_value",
            "f(string_value)",
            "1 +",
            "string_value" + "[0]" * 10_000,
        ],
    )
    def test_what_cannot_be_read_is_refused(self, expression):
        for read in (selection.check, lambda text: selection.select(ROW, text)):
            with pytest.raises(BadInputError) as caught:
                read(expression)
            assert caught.value.code == "SelectorInvalid"

    def test_check_takes_what_select_follows(self):
        selection.check('parseJson(string_value)["A_a"]')
        selection.check('parseJson(string_value)["a"] + "y"')


def raw(text):
    return parsed(ir.ParameterIteratorSpec, {"items": {"raw": text}, "itemInput": "item"})


OF_INPUT = parsed(
    ir.ParameterIteratorSpec, {"items": {"inputParameter": "rows"}, "itemInput": "item"}
)


class TestItems:
    @pytest.mark.parametrize("found", [[], [1, 2.5, "a"], [{"a": [1]}], [None], [[1], []]])
    def test_raw_json_an_input_and_an_inputs_json_are_the_same(self, found):
        assert selection.items(raw(json.dumps(found)), {}) == found
        assert selection.items(OF_INPUT, {"rows": found}) == found
        assert selection.items(OF_INPUT, {"rows": json.dumps(found)}) == found

    @given(st.lists(st.integers() | st.text()))
    def test_whole_numbers_stay(self, found):
        assert json.dumps(selection.items(raw(json.dumps(found)), {})) == json.dumps(found)

    @pytest.mark.parametrize(
        "parameters",
        [{}, {"rows": None}, {"rows": 3}, {"rows": {"a": 1}}, {"rows": "a"}, {"rows": ""},
         {"rows": '{"a": 1}'}, {"rows": True}],
    )  # fmt: skip
    def test_what_is_no_list_is_refused(self, parameters):
        with pytest.raises(BadInputError, match="rows") as caught:
            selection.items(OF_INPUT, parameters)
        assert caught.value.code == "ItemsNotAList"

    @pytest.mark.parametrize("text", ["", "{}", "[1", "3"])
    def test_raw_items_are_checked_too(self, text):
        with pytest.raises(BadInputError) as caught:
            selection.items(raw(text), {})
        assert caught.value.code == "ItemsNotAList"


ONE, TWO, THREE = (Artifact(f"make/{n}", f"/{n}") for n in (1, 2, 3))
OF_ARTIFACTS = parsed(
    ir.ArtifactIteratorSpec, {"items": {"inputArtifact": "files"}, "itemInput": "file"}
)


class TestArtifactItems:
    @pytest.mark.parametrize("found", [[], [ONE, TWO]])
    def test_it_is_the_list(self, found):
        assert selection.artifact_items(OF_ARTIFACTS, {"files": found}) == found

    @pytest.mark.parametrize("artifacts", [{}, {"files": ONE}])
    def test_what_is_no_list_is_refused(self, artifacts):
        with pytest.raises(BadInputError, match="files") as caught:
            selection.artifact_items(OF_ARTIFACTS, artifacts)
        assert caught.value.code == "ItemsNotAList"


class TestIterations:
    def test_each_is_given_its_item_beside_what_the_task_is_given(self):
        task = ir.PipelineTaskSpec(parameter_iterator=OF_INPUT)
        given = Bundle({"rows": [1, {"a": 2}], "x": "y"}, {"f": ONE})
        each = selection.iterations(task, given, ir.ComponentSpec())
        assert [one.parameters["item"] for one in each] == [1, {"a": 2}]
        assert all(one.parameters["x"] == "y" and one.artifacts == {"f": ONE} for one in each)

    def test_artifacts_too(self):
        task = ir.PipelineTaskSpec(artifact_iterator=OF_ARTIFACTS)
        given = Bundle({"x": "y"}, {"files": [ONE, TWO]})
        each = selection.iterations(task, given, ir.ComponentSpec())
        assert [one.artifacts["file"] for one in each] == [ONE, TWO]
        assert all(one.parameters == {"x": "y"} for one in each)

    def test_there_may_be_none(self):
        task = ir.PipelineTaskSpec(parameter_iterator=raw("[]"))
        assert selection.iterations(task, Bundle(), ir.ComponentSpec()) == []

    @pytest.mark.parametrize("asked", [True, False])
    def test_the_whole_list_is_given_where_it_is_asked_for(self, asked):
        parameters = {"a": {"componentInputParameter": "rows" if asked else "item"}}
        artifacts = {"b": {"componentInputArtifact": "files" if asked else "file"}}
        inputs = {"parameters": parameters, "artifacts": artifacts}
        body = parsed(ir.ComponentSpec, {"dag": {"tasks": {"t": {"inputs": inputs}}}})
        given = Bundle({"rows": [1, 2]}, {"files": [ONE]})

        of_rows = ir.PipelineTaskSpec(parameter_iterator=OF_INPUT)
        (first, _) = selection.iterations(of_rows, given, body)
        assert first.parameters == {"item": 1} | ({"rows": [1, 2]} if asked else {})
        of_files = ir.PipelineTaskSpec(artifact_iterator=OF_ARTIFACTS)
        (only,) = selection.iterations(of_files, given, body)
        assert only.artifacts == {"file": ONE} | ({"files": [ONE]} if asked else {})


DEFINED = parsed(
    ir.ComponentOutputsSpec,
    {"parameters": {"p": {"parameterType": "LIST"}}, "artifacts": {"a": {"isArtifactList": True}}},
)


class TestCollected:
    def test_it_is_lists_in_the_iterations_order(self):
        each = [Bundle({"p": n}, {"a": artifact}) for n, artifact in ((1, ONE), (2, TWO))]
        assert selection.collect_outputs(DEFINED, each) == Bundle({"p": [1, 2]}, {"a": [ONE, TWO]})

    def test_what_was_skipped_is_left_out(self):
        each = [Bundle({"p": 1}, {"a": ONE}), Bundle(), Bundle({"p": 3}), Bundle({}, {"a": TWO})]
        assert selection.collect_outputs(DEFINED, each) == Bundle({"p": [1, 3]}, {"a": [ONE, TWO]})

    def test_no_iterations_make_empty_lists(self):
        assert selection.collect_outputs(DEFINED, []) == Bundle({"p": []}, {"a": []})

    def test_nested_loops_make_lists_of_lists_but_artifacts_stay_flat(self):
        inner = [
            selection.collect_outputs(
                DEFINED, [Bundle({"p": 1}, {"a": ONE}), Bundle({"p": 2}, {"a": TWO})]
            ),
            selection.collect_outputs(DEFINED, []),
            selection.collect_outputs(DEFINED, [Bundle({"p": 3}, {"a": THREE})]),
        ]  # fmt: skip
        assert selection.collect_outputs(DEFINED, inner) == Bundle(
            {"p": [[1, 2], [], [3]]}, {"a": [ONE, TWO, THREE]}
        )

    def test_what_is_not_declared_is_not_handed_on(self):
        assert selection.collect_outputs(DEFINED, [Bundle({"q": 1})]).parameters == {"p": []}

    def test_a_list_that_one_iteration_makes_stays_one_value(self):
        each = [Bundle({"p": [1, 2]}), Bundle({"p": [3]})]
        assert selection.collect_outputs(DEFINED, each).parameters == {"p": [[1, 2], [3]]}


class TestOneOf:
    selectors = [("if", "x"), ("elif", "y"), ("else", "z")]
    handed = {"if": {"x": 1}, "elif": {"y": 2}, "else": {"z": None}}

    @pytest.mark.parametrize("done", [TaskState.SUCCEEDED, TaskState.CACHED])
    def test_it_is_of_the_task_that_came_about(self, done):
        for task, expected in (("if", 1), ("elif", 2), ("else", None)):
            states = dict.fromkeys(self.handed, TaskState.SKIPPED) | {task: done}
            found = selection.one_of(self.selectors, states, self.handed.__getitem__)
            assert found == expected

    @pytest.mark.parametrize(
        "states",
        [
            {},
            dict.fromkeys(("if", "elif", "else"), TaskState.SKIPPED),
            {"if": TaskState.FAILED, "elif": TaskState.RUNNING, "else": TaskState.OMITTED},
        ],
    )
    def test_a_value_alone_is_not_enough(self, states):
        with pytest.raises(ModelyardError) as caught:
            selection.one_of(self.selectors, states, self.handed.__getitem__)
        assert caught.value.code == "NothingSelected"
        assert "if, elif, else" in caught.value.message

    def test_a_task_without_the_output_is_passed_over(self):
        states = dict.fromkeys(("if", "elif"), TaskState.SUCCEEDED)
        handed = {"if": {}, "elif": {"y": 2}}
        assert selection.one_of(self.selectors, states, handed.__getitem__) == 2


class TestWhatKfpCompiles:
    def spec(self, pipeline):
        return parsed(ir.PipelineSpec, compiling.compiled(pipeline))

    def test_fields_of_items_are_followed_into_nested_loops(self):
        spec = self.spec(compiling.loops)
        rows = [{"kind": "a", "sizes": [1, 2]}, {"kind": "b", "sizes": []}]
        said = list(self.said(spec, spec.root.dag, {"rows": rows, "groups": '["g"]'}))
        assert sorted(said, key=str) == sorted(["heads", "a", 1, 2, "g"], key=str)

    def said(self, spec, dag, given):
        """What ``say`` is given throughout; a task that is handed an output is passed over."""
        for task in dag.tasks.values():
            inputs = {}
            for name, one in task.inputs.parameters.items():
                if one.component_input_parameter not in given:
                    continue
                value = given[one.component_input_parameter]
                wanted = one.parameter_expression_selector
                inputs[name] = selection.select(value, wanted) if wanted else value
            if task.trigger_policy.condition and inputs[
                next(name for name in inputs if name.endswith("kind"))
            ] != "a":  # fmt: skip
                continue
            each = [Bundle(inputs)]
            component = spec.components[task.component_ref.name]
            if task.WhichOneof("iterator"):
                each = selection.iterations(task, Bundle(inputs), component)
            for one in each:
                if component.WhichOneof("implementation") == "dag":
                    yield from self.said(spec, component.dag, one.parameters)
                elif "text" in one.parameters:
                    yield one.parameters["text"]

    def test_every_selector_is_read(self):
        spec = self.spec(compiling.loops)
        selectors = [
            one.parameter_expression_selector
            for component in spec.components.values()
            for task in component.dag.tasks.values()
            for one in task.inputs.parameters.values()
            if one.parameter_expression_selector
        ]
        assert len(selectors) >= 4
        for selector in selectors:
            selection.check(selector)

    def test_collected_outputs_are_declared_as_lists(self):
        spec = self.spec(compiling.loops)
        loop = next(
            spec.components[task.component_ref.name]
            for task in spec.root.dag.tasks.values()
            if spec.components[task.component_ref.name].output_definitions.parameters
            and task.WhichOneof("iterator")
        )
        (name,) = loop.output_definitions.parameters
        inner = [Bundle({name: ["1", "2"]}), Bundle({name: []})]
        assert selection.collect_outputs(loop.output_definitions, inner).parameters == {
            name: [["1", "2"], []]
        }

    @pytest.mark.parametrize(("ran", "value"), [(0, "h"), (1, "t")])
    def test_one_of_two_branches_is_chosen(self, ran, value):
        spec = self.spec(compiling.alternatives)
        dag = next(
            component.dag
            for component in spec.components.values()
            if any(
                len(one.artifact_selectors) > 1 for one in component.dag.outputs.artifacts.values()
            )
        )
        (parameter,) = dag.outputs.parameters.values()
        chosen = parameter.value_from_oneof.parameter_selectors
        selectors = [(one.producer_subtask, one.output_parameter_key) for one in chosen]
        states = {
            task: TaskState.SUCCEEDED if place == ran else TaskState.SKIPPED
            for place, (task, _) in enumerate(selectors)
        }
        handed = {task: {name: "ht"[place]} for place, (task, name) in enumerate(selectors)}
        assert selection.one_of(selectors, states, handed.__getitem__) == value
        (artifact,) = dag.outputs.artifacts.values()
        assert [one.producer_subtask for one in artifact.artifact_selectors] == list(states)
