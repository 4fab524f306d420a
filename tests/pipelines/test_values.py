import json
import math
from decimal import Decimal

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInputError
from pipelines import values
from pipelines.values import ParameterType as T

finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one, other):
    """Equal, and of the same types all through."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def proto(value):
    return json_format.ParseDict(value, struct_pb2.Value())


class TestFromProto:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            (True, True),
            (3.0, 3),
            (2.5, 2.5),
            ("3", "3"),
            ([1.0, [2.0]], [1, [2]]),
            ({"b": 1.0, "a": [True]}, {"a": [True], "b": 1}),
            (1e21, 1e21),
        ],
    )
    def test_integral_numbers_become_ints_everywhere(self, value, expected):
        assert same(values.from_proto(proto(value)), expected)

    def test_keys_are_in_order(self):
        assert list(values.from_proto(proto({"b": 1, "c": 2, "a": 3}))) == ["a", "b", "c"]

    def test_nothing_at_all_is_none(self):
        assert values.from_proto(struct_pb2.Value()) is None

    def test_true_stays_a_truth_value(self):
        assert values.from_proto(proto(True)) is True

    @given(plain)
    def test_it_is_what_protobufs_own_json_says(self, value):
        assert same(values.from_proto(proto(value)), values.protojson(value))


class TestProtojson:
    def test_integral_doubles_are_ints_also_inside(self):
        assert json.dumps(values.protojson({"b": 6.0, "a": [1.0, 2.5, True]})) == (
            '{"a": [1, 2.5, true], "b": 6}'
        )

    @given(plain)
    def test_it_changes_no_value(self, value):
        assert values.protojson(value) == value


class TestAsText:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, ""),
            ("as it is {{$}} ", "as it is {{$}} "),
            (True, "true"),
            (False, "false"),
            (3, "3"),
            (3.0, "3"),
            (2**70, str(2**70)),
            (0.1, "0.1"),
            (-2.5e-8, "-0.000000025"),
            (1.5e22, "15000000000000000000000"),
            ([1, 2.0, "a b"], '[1,2,"a b"]'),
            ({"b": [True, None], "a": "é"}, '{"a":"é","b":[true,null]}'),
        ],
    )
    def test_it_is_written_as_kfps_launcher_does(self, value, text):
        assert values.as_text(value) == text

    @given(finite)
    def test_a_number_has_no_exponent_and_keeps_its_value(self, number):
        text = values.as_text(number)
        assert "e" not in text.lower()
        assert float(text) == number
        assert Decimal(text) == Decimal(repr(number))

    @given(st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=4), plain, max_size=3))
    def test_a_list_or_mapping_is_json_again(self, value):
        assert json.loads(values.as_text(value)) == value


class TestChecked:
    @pytest.mark.parametrize(
        ("value", "wanted", "expected"),
        [
            (3, T.NUMBER_INTEGER, 3),
            (3.0, T.NUMBER_INTEGER, 3),
            (3, T.NUMBER_DOUBLE, 3),
            (2.5, T.NUMBER_DOUBLE, 2.5),
            ("x", T.STRING, "x"),
            (True, T.BOOLEAN, True),
            ([1, "a", None], T.LIST, [1, "a", None]),
            ({"a": 1}, T.STRUCT, {"a": 1}),
            ({"state": "COMPLETE"}, T.TASK_FINAL_STATUS, {"state": "COMPLETE"}),
            ({}, T.TASK_CONFIG, {}),
            ("anything", T.UNSPECIFIED, "anything"),
        ],
    )
    def test_what_is_of_its_type_is_taken(self, value, wanted, expected):
        assert same(values.validate(value, wanted, "x"), expected)

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            (True, T.NUMBER_INTEGER),
            (True, T.NUMBER_DOUBLE),
            (1, T.BOOLEAN),
            (2.5, T.NUMBER_INTEGER),
            ("3", T.NUMBER_INTEGER),
            (3, T.STRING),
            ("[1]", T.LIST),
            ({}, T.LIST),
            ([], T.STRUCT),
            ("x", T.TASK_FINAL_STATUS),
            (None, T.STRING),
            (None, T.UNSPECIFIED),
            (math.inf, T.NUMBER_INTEGER),
            (math.nan, T.NUMBER_DOUBLE),
            (math.inf, T.NUMBER_DOUBLE),
            ([math.nan], T.LIST),
            ({1: 2}, T.STRUCT),
            ([object()], T.LIST),
            ("x", 99),
        ],
    )
    def test_what_is_not_is_refused_with_its_place(self, value, wanted):
        with pytest.raises(BadInputError) as caught:
            values.validate(value, wanted, "train.rate")
        assert caught.value.code == "ParameterTypeWrong"
        assert "train.rate" in caught.value.message

    def test_the_value_itself_is_not_told(self):
        with pytest.raises(BadInputError) as caught:
            values.validate("hunter2", T.NUMBER_INTEGER, "password")
        assert "hunter2" not in str(caught.value)

    def test_what_nests_too_deep_is_refused(self):
        deep: list = []
        for _ in range(values.MOST_LEVELS):
            deep = [deep]
        with pytest.raises(BadInputError, match="deeper"):
            values.validate(deep, T.LIST, "x")
        assert values.validate(deep[0], T.LIST, "x") == deep[0]

    def test_only_the_literals_are_allowed_where_there_are_some(self):
        assert values.validate(1, T.NUMBER_INTEGER, "x", [1, 2]) == 1
        with pytest.raises(BadInputError) as caught:
            values.validate(3, T.NUMBER_INTEGER, "x", [1, 2])
        assert caught.value.code == "ParameterNotAllowed"
        assert "1, 2" in caught.value.hint

    def test_a_truth_value_is_no_literal_number(self):
        with pytest.raises(BadInputError):
            values.validate(True, T.BOOLEAN, "x", [1])


class TestFitted:
    @pytest.mark.parametrize(
        ("value", "wanted", "expected"),
        [
            (3, T.STRING, "3"),
            (True, T.STRING, "true"),
            ({"a": [1]}, T.STRING, '{"a":[1]}'),
            ("a", T.STRING, "a"),
            ('{"a": 1}', T.STRUCT, {"a": 1}),
            ("[1, 2]", T.LIST, [1, 2]),
            ("3", T.NUMBER_INTEGER, 3),
            ("True", T.BOOLEAN, True),
            (3.0, T.NUMBER_INTEGER, 3),
        ],
    )
    def test_texts_and_what_they_are_json_of_become_each_other(self, value, wanted, expected):
        assert same(values.coerce(value, wanted, "x"), expected)

    @pytest.mark.parametrize(
        ("value", "wanted"),
        [("x", T.NUMBER_INTEGER), ("[1]", T.STRUCT), (1, T.BOOLEAN), (None, T.STRING),
         ([math.nan], T.STRING)],
    )  # fmt: skip
    def test_anything_else_is_refused(self, value, wanted):
        with pytest.raises(BadInputError) as caught:
            values.coerce(value, wanted, "here")
        assert caught.value.code == "ParameterTypeWrong"
        assert "here" in caught.value.message

    @given(plain.filter(lambda value: value is not None and not isinstance(value, str)))
    def test_a_value_survives_its_way_through_a_text(self, value):
        wanted = {bool: T.BOOLEAN, int: T.NUMBER_DOUBLE, float: T.NUMBER_DOUBLE, list: T.LIST,
                  dict: T.STRUCT}[type(value)]  # fmt: skip
        again = values.coerce(values.coerce(value, T.STRING, "x"), wanted, "x")
        assert (float(again) if isinstance(value, float) else again) == value


class TestFromOutputFile:
    @pytest.mark.parametrize(
        ("text", "wanted", "expected"),
        [
            (" raw\n", T.STRING, " raw\n"),
            ("3\n", T.NUMBER_INTEGER, 3),
            ("3.0", T.NUMBER_INTEGER, 3),
            ("2.5", T.NUMBER_DOUBLE, 2.5),
            ("True", T.BOOLEAN, True),
            ("fALSE", T.BOOLEAN, False),
            ('[1, "A"]', T.LIST, [1, "A"]),
            ('{"A": 1}', T.STRUCT, {"A": 1}),
        ],
    )
    def test_texts_are_raw_and_the_rest_is_json(self, text, wanted, expected):
        assert same(values.from_output_file(text, wanted), expected)

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("", T.NUMBER_INTEGER),
            ("three", T.NUMBER_INTEGER),
            ("2.5", T.NUMBER_INTEGER),
            ("yes", T.BOOLEAN),
            ("1", T.BOOLEAN),
            ("[1", T.LIST),
            ("{}", T.LIST),
            ("NaN", T.NUMBER_DOUBLE),
            ("null", T.NUMBER_DOUBLE),
            ("[" * 100_000, T.LIST),
            ("[" * 500 + "]" * 500, T.LIST),
            ("9" * 10_000, T.NUMBER_INTEGER),
        ],
    )
    def test_what_is_malformed_is_refused(self, text, wanted):
        with pytest.raises(BadInputError) as caught:
            values.from_output_file(text, wanted)
        assert caught.value.code == "OutputMalformed"
        assert len(str(caught.value)) < 300
