import subprocess
import sys
import textwrap
import threading

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError, ModelyardError
from pipelines import conditions, expressions
from pipelines.artifacts import Artifact
from tests.pipelines import compiling

GIVEN = {
    "a": 3, "f": 2.5, "s": "heads", "b": True, "l": [1, 2], "d": {"a": 1}, "n": None, "q": "it's",
    "tiny": 1e-9, "word": "true",
}  # fmt: skip


def holds(expression, **more):
    return conditions.evaluate(expression.replace("$", "inputs.parameter_values"), GIVEN | more)


class TestHolds:
    @pytest.mark.parametrize(
        "expression",
        [
            "$['a'] == 3",
            "$['a'] == 3.0",
            "int($['a']) == 3",
            "double(int($['a'])) == 3.0",
            "$['f'] > int($['a']) - 1 && $['f'] <= 2.5",
            "$['f'] != double(3)",
            "$['s'] == 'heads'",
            '$["s"] == "heads"',
            "$['b'] == true",
            "!($['b'] == false)",
            "$['word'] == 'true'",
            "$['tiny'] <= 1e-09",
            "!($['s'] == 'tails') && !(int($['a']) > 3) && int($['a']) == 3",
            "$['s'] == 'x' || $['a'] == 3",
            "$['s'] == 'x' ? false : $['a'] == 3",
            "$['q'] == 'it\\'s'",
            "$['q'] == \"it's\"",
            "$['q'] == r\"it's\"",
            "r'\\' == '\\\\' && $['s'] == 'heads'",
            "$['s'] == '''heads''' // as it should be",
            "'==' == '=' + '='",
            "$['l'] == [1, 2]",
            "$['l'] != [1, 3]",
            "$['d'] == {'a': 1}",
            "$['d'].a == 1",
            "$.a == 3",
            "$['l'].exists(x, x == 2)",
            "$['s'] in ['heads', 'tails']",
            "$['s'].startsWith('h') && size($['s']) == 5",
            "$['n'] == null",
            "$['s'] != null",
            "($['a'] == 3) == true",
            "$['a'] == 3 == true",
            "1 + 1 == 2 && 2 == 1 + 1",
            "-$['a'] == -3",
            "parseJson('{\"x\": [1]}').x[0] == 1",
            "string($['a']) == '3'",
            "inputs.parameters['s'].string_value == 'heads'",
            "inputs.parameters['a'].int_value == 3",
            "inputs.parameters['f'].double_value == 2.5",
            "inputs.parameters['b'].string_value == 'true'",
            "inputs.parameters['l'].string_value == '[1,2]'",
        ],
    )
    def test_what_is_so_holds_and_its_opposite_does_not(self, expression):
        assert holds(expression) is True
        assert holds(f"!({expression.partition('//')[0]})") is False

    @pytest.mark.parametrize(
        "expression",
        [
            "$['missing'] == 3",
            "$['s'] == 3",
            "$['s'] != 3",
            "$['b'] == 'true'",
            "$['b'] == 1",
            "$['a'] == '3'",
            "$['l'] == 1",
            "$['s'] > 1",
            "$['n'] > 1",
            "$['s'] == 'heads' && $['missing'] == 1",
            "$['a']",
            "'true'",
            "int($['s']) == 1",
            "1 / 0 == 1",
            "$['l'][9] == 1",
            "$['a'] / 2 == 1",
            "parseJson('{') == 1",
            "inputs.elsewhere == 1",
            "inputs.parameters['a'].string_value == '3'",
            "inputs.parameters['f'].int_value == 2",
        ],
    )
    def test_what_cannot_be_decided_is_an_error_and_never_false(self, expression):
        with pytest.raises(ModelyardError) as caught:
            holds(expression)
        assert caught.value.code == "ConditionUndecided"
        assert not isinstance(caught.value, BadInputError)

    def test_an_error_that_does_not_matter_is_passed_over(self):
        assert holds("$['s'] == 3 || $['a'] == 3") is True
        assert holds("$['a'] == 4 && $['missing'] == 1") is False
        assert holds("$['s'] != 3 && $['a'] == 4") is False

    def test_the_error_names_what_is_missing_and_tells_no_value(self):
        with pytest.raises(ModelyardError, match="there is no 'missing'"):
            holds("$['missing'] == 3")
        with pytest.raises(ModelyardError, match="a string is compared with a number") as caught:
            holds("$['secret'] == 3", secret="hunter2")
        assert "hunter2" not in str(caught.value)

    def test_numbers_are_doubles_as_in_protocol_buffers(self):
        assert holds("$['a'] == 9007199254740992", a=2**53 + 1) is True
        assert holds("$['a'] / 2.0 == 1.5") is True

    def test_a_number_beyond_doubles_is_an_error(self):
        with pytest.raises(ModelyardError) as caught:
            holds("$['a'] > 1", a=10**400)
        assert caught.value.code == "ConditionUndecided"

    def test_artifacts_can_be_asked(self):
        model = Artifact("train/model", "/m", "system.Model", metadata={"accuracy": 0.95})
        says = "inputs.artifacts['model'].artifacts[0].metadata['accuracy'] * 100.0 > 90.0"
        assert conditions.evaluate(says, {}, {"model": model}) is True
        assert conditions.evaluate(says, {}, {"model": [model]}) is True
        named = "inputs.artifacts['model'].artifacts[0].name == 'model'"
        assert conditions.evaluate(named, {}, {"model": model}) is True
        with pytest.raises(ModelyardError):
            conditions.evaluate(says, {}, {})

    def test_threads_share_an_expression(self):
        found = []

        def ask(number):
            right = number == 3
            found.extend(holds("int($['a']) == 3", a=number) is right for _ in range(200))

        threads = [threading.Thread(target=ask, args=(number,)) for number in (3, 4, 3, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 800
        assert all(found)

    def test_the_evaluator_logs_nothing(self, caplog, capfd):
        with pytest.raises(ModelyardError):
            holds("$['s'] == 3")
        assert not caplog.records
        assert capfd.readouterr().err == ""


class TestCheck:
    @pytest.mark.parametrize(
        "expression",
        [
            "",
            "  ",
            "1 ==",
            "== 1",
            "(1 == 1",
            "1 == 1)",
            "[1) == 1",
            "a b",
            "'open == 1",
            "$ == 1",
            "1 == 1; 2 == 2",
            "inputs.parameter_values['s'] == 'it's'",
            "'inputs.parameter_values['b']' == 'true'",
            "inputs.parameter_values['f'] < inf",
            "elsewhere == 1",
            "unheard_of(1) == 1",
            "modelyard_equal(1, 1)",
            "[1].all(x, [1].all(y, x == y))",
            "'a' * ",
            "x" * (expressions.MOST_CHARACTERS + 1),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, expression):
        with pytest.raises(BadInputError) as caught:
            conditions.check(expression)
        assert caught.value.code == "ConditionInvalid"
        assert len(str(caught.value)) < 800

    @pytest.mark.parametrize(
        "expression",
        [
            "(" * 100_000,
            "(" * 30 + "true" + ")" * 30,
            "[" * 3000 + "]" * 3000,
            "1" + "+1" * 3000 + " == 1",
            "inputs" + ".a" * 3000,
            "true" + " == true" * 300,
            "true" + " == true" * 30,
            "(" * 20 + "1" + "+1+1+1+1+1+1+1+1+1+1+1)" * 20 + " == 1",
        ],
    )
    def test_what_would_take_the_evaluator_too_deep_is_refused(self, expression):
        with pytest.raises(BadInputError):
            conditions.check(expression)

    def test_long_conditions_are_fine(self):
        long = " && ".join(f"!(inputs.parameter_values['x'] == '{n}')" for n in range(300))
        conditions.check(long)
        assert conditions.evaluate(long, {"x": "300"}) is True

    def test_the_bounds_hold_in_a_thread_with_a_small_stack(self):
        """In a process of its own, because the evaluator would take this one down."""
        script = """
            import threading
            from pipelines import expressions
            hardest = [
                "(" * 23 + "true" + ")" * 23, "[" * 23 + "]" * 23, "size(" * 22 + "[1]" + ")" * 22,
                "1" + "+1" * 198 + " == 1", "inputs" + ".a" * 199, "true" + " == true" * 22,
                "true ? " * 99 + "true" + ": true" * 99, "!" * 199 + "true",
            ]
            def ask():
                for text in hardest:
                    try:
                        expressions.parse(text, frozenset({"inputs"})).value({"inputs": {}})
                    except (
                        expressions.ExpressionInvalidError, expressions.ExpressionUndecidedError
                    ):
                        pass
                print("done")
            threading.stack_size(512 * 1024)
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
        )
        assert (ended.returncode, ended.stdout.strip()) == (0, "done"), ended.stderr


class TestNames:
    def test_every_parameter_is_named_once(self):
        named = conditions.names(
            "inputs.parameter_values['a'] == 1 && !(inputs.parameters[\"b\"].int_value == 2)"
            " || inputs.parameter_values['a'] == 3 || 'inputs.parameter_values' == 'c'"
        )
        assert named == {"a", "b"}


class TestStrictness:
    """Our ``==`` is CEL's wherever the kinds are the same."""

    operands = st.one_of(
        st.lists(st.sampled_from(numbers), min_size=1, max_size=3).map(" + ".join)
        for numbers in (["1", "-1", "3", "(1 + 1)", "size('ab')"], ["1.0", "3.0", "double(2)"])
    )
    truths = st.recursive(
        st.builds(
            "{} {} {}".format, operands, st.sampled_from(["==", "!=", "<", "<=", ">"]), operands
        ),
        lambda inner: st.one_of(
            st.builds("!({})".format, inner),
            st.builds("{} && {}".format, inner, inner),
            st.builds("{} || {}".format, inner, inner),
            st.builds("({}) == ({})".format, inner, inner),
            st.builds("({}) ? ({}) : ({})".format, inner, inner, inner),
            st.builds("[{}, true][0] != ({})".format, inner, inner),
        ),
        max_leaves=6,
    )

    @given(truths)
    def test_both_say_the_same(self, text):
        assert conditions.evaluate(text, {}) is cel.evaluate(text)


class TestWhatKfpCompiles:
    def test_every_condition_is_read(self):
        written = compiling.conditions_of(compiling.branches)
        assert len(written) == 15
        for condition in written:
            conditions.check(condition)
            assert conditions.names(condition)

    @pytest.mark.parametrize(
        ("given", "taken"),
        [
            ({"s": "it", "i": 3, "f": 3.0, "b": True},
             {"s=it", "i=3", "f=3", "b=true", "i<4.5", "i<=f", "outer if", "inner else"}),
            ({"s": "xs", "i": 4, "f": 2.5, "b": False},
             {"s!=it", "f>2", "i<4.5", "outer elif"}),
            ({"s": "1", "i": 5, "f": 9.25, "b": True},
             {"s!=it", "f>2", "b=true", "i<=f", "s=1", "outer else"}),
        ],
    )  # fmt: skip
    def test_the_branches_that_python_would_take_are_taken(self, given, taken):
        assert compiling.taken(given) == taken
