from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from infra.errors import BadInputError
from tasks import parameters
from tasks.pipelines.request import PipelineRun
from tasks.training.training_request import Training

_NAMES = st.sampled_from(["a", "b", "group", "algorithm", "uri", "entry_point", "provided"])
_VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers()))
_TREES = st.recursive(_VALUES, lambda inner: st.dictionaries(_NAMES, inner, max_size=4))
GROUPS = st.dictionaries(_NAMES, _TREES, max_size=5)


def leaves(tree: Any, place: str = "") -> dict[str, Any]:
    """Every value that is no group, by its dotted place."""
    if not isinstance(tree, dict):
        return {place: tree}
    return {
        at: value for name in tree for at, value in leaves(tree[name], f"{place}.{name}").items()
    }


class TestMerged:
    @pytest.mark.parametrize(
        ("under", "over", "laid"),
        [
            ({}, {}, {}),
            ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
            ({"g": {"a": 1, "b": 2}}, {"g": {"b": 3, "c": 4}}, {"g": {"a": 1, "b": 3, "c": 4}}),
            ({"g": {"h": {"a": 1}}}, {"g": {"h": {"b": 2}}}, {"g": {"h": {"a": 1, "b": 2}}}),
            ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
            ({"g": {"a": 1}}, {"g": 2}, {"g": 2}),
            ({"g": 2}, {"g": {"a": 1}}, {"g": {"a": 1}}),
            ({"g": {"a": 1}}, {"g": None}, {"g": None}),
        ],
    )
    def test_groups_are_merged_and_the_rest_replaced(
        self, under: dict[str, Any], over: dict[str, Any], laid: dict[str, Any]
    ) -> None:
        assert parameters.merge(under, over) == laid

    @pytest.mark.parametrize(
        ("under", "over", "laid"),
        [
            ({"uri": "/a", "entry_point": "t.py"}, {"provided": "p"}, {"provided": "p"}),
            ({"provided": "p"}, {"uri": "/a"}, {"uri": "/a"}),
            (
                {"uri": "/a", "entry_point": "t.py"},
                {"entry_point": "u.py"},
                {"uri": "/a", "entry_point": "u.py"},
            ),
            (
                {"uri": "/a", "entry_point": "t.py"},
                {"entry_point": "u.py", "provided": ""},
                {"uri": "/a", "entry_point": "u.py", "provided": ""},
            ),
            ({"provided": "p"}, {"provided": None}, {"provided": None}),
            ({"uri": "/a"}, {}, {"uri": "/a"}),
            # Both at once are somebody's mistake, which is refused elsewhere.
            ({}, {"uri": "/a", "provided": "p"}, {"uri": "/a", "provided": "p"}),
            ({"uri": "/a"}, {"provided": ["p"]}, {"provided": ["p"]}),
        ],
    )
    def test_one_kind_of_algorithm_replaces_the_other(
        self, under: dict[str, Any], over: dict[str, Any], laid: dict[str, Any]
    ) -> None:
        assert parameters.merge({"algorithm": under}, {"algorithm": over}) == {"algorithm": laid}
        assert parameters.merge({"g": under}, {"g": over}) == {"g": {**under, **over}}

    @given(GROUPS, GROUPS)
    def test_every_value_that_is_laid_over_is_there(
        self, under: dict[str, Any], over: dict[str, Any]
    ) -> None:
        laid = leaves(parameters.merge(under, over))

        assert all(laid[place] == value for place, value in leaves(over).items())

    @given(GROUPS, GROUPS)
    def test_every_other_value_is_from_below(
        self, under: dict[str, Any], over: dict[str, Any]
    ) -> None:
        laid = leaves(parameters.merge(under, over))
        above, below = leaves(over), leaves(under)

        for place in laid.keys() - above.keys():
            assert laid[place] == below[place]

    @given(GROUPS, GROUPS)
    def test_nothing_that_it_is_told_is_changed(
        self, under: dict[str, Any], over: dict[str, Any]
    ) -> None:
        before = copy.deepcopy((under, over))

        parameters.merge(under, over)

        assert (under, over) == before

    @given(GROUPS)
    def test_nothing_is_neutral_and_itself_is_no_change(self, group: dict[str, Any]) -> None:
        assert parameters.merge(group, {}) == group
        assert parameters.merge({}, group) == group
        assert parameters.merge(group, group) == group


class TestWithoutNulls:
    @given(GROUPS)
    def test_only_nulls_of_groups_are_left_out(self, group: dict[str, Any]) -> None:
        found = leaves(parameters.drop_nulls(group))

        assert found == {
            place: value for place, value in leaves(group).items() if value is not None
        }

    def test_a_list_is_a_value(self) -> None:
        given_ = {"metrics": [{"name": "loss", "pattern": None}], "a": {"b": None}}

        assert parameters.drop_nulls(given_) == {"metrics": given_["metrics"], "a": {}}


class _Model(BaseModel):
    name: str = ""
    many: int = 1


class TestRead:
    def test_it_is_read(self) -> None:
        assert parameters.read(_Model, {"many": "2"}) == _Model(many=2)

    def test_an_unknown_one_is_named(self) -> None:
        with pytest.raises(BadInputError, match="`odd`") as raised:
            parameters.read(_Model, {"odd": 2})

        assert (raised.value.code, raised.value.hint) == (
            "ParameterUnknown", "Known are: many, name.",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("model", "name", "hint"),
        [
            (Training, "max_minute", "Did you mean max_minutes? Known are: "),
            (Training, "hyperparameter", "Did you mean hyperparameters? Known are: "),
            (Training, "trees", "A hyperparameter is given as hyperparameters.trees. Known are: "),
            (
                PipelineRun,
                "rows",
                "An argument of the pipeline is given as arguments.rows. Known are: ",
            ),
        ],
    )
    def test_what_may_be_meant_is_said_first(
        self, model: type[BaseModel], name: str, hint: str
    ) -> None:
        with pytest.raises(BadInputError) as raised:
            parameters.read(model, {name: 5})

        assert raised.value.hint.startswith(hint)

    def test_a_wrong_one_is_named_without_its_value(self) -> None:
        with pytest.raises(BadInputError, match="Invalid parameter `many`: ") as raised:
            parameters.read(_Model, {"many": "hunter2"})

        assert raised.value.code == "ParameterInvalid"
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__

    def test_a_value_of_another_type_is_named_by_its_type(self) -> None:
        with pytest.raises(BadInputError) as raised:
            parameters.read(_Model, {"many": [7], "name": {"secret": "hunter2"}})

        assert raised.value.message == (
            "Invalid parameters `name`: expected a string, got a mapping; "
            "`many`: expected a whole number, got a list."
        )


class _Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    uri: str = ""


class _Outer(BaseModel):
    datasets: list[_Inner] = []
    mounts: list[str] = []
    group: _Inner | None = None
    either: _Inner | list[_Inner] | None = None
    scalars: dict[str, parameters.Scalar] = {}
    minutes: float | None = None
    text: parameters.Text = ""
    choice: Literal["a", "b"] = "a"
    several: list[int | str] = []


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"datasets": {"train": "/d"}},
         "`datasets`: expected a list of {name, uri}, got a mapping"),
        ({"datasets": ["/d"]}, "`datasets.0`: expected {name, uri}, got a string"),
        ({"datasets": [{"uri": "/d"}]}, "`datasets.0.name`: it is missing"),
        ({"datasets": [{"name": "a", "path": "/d"}]}, "`datasets.0.path`: unknown field"),
        ({"mounts": "nas"}, "`mounts`: expected a list of strings, got a string"),
        ({"mounts": [[1]]}, "`mounts.0`: expected a string, got a list"),
        ({"group": [1]}, "`group`: expected {name, uri}, got a list"),
        ({"either": "x"}, "`either`: expected {name, uri} or a list of {name, uri}, got a string"),
        ({"either": {"uri": "x"}}, "`either.name`: it is missing"),
        ({"either": [{"uri": "x"}]}, "`either.0.name`: it is missing"),
        ({"scalars": 5}, "`scalars`: expected a mapping, got 5"),
        ({"scalars": {"a": [1]}},
         "`scalars.a`: expected a boolean, a number or a string, got a list"),
        ({"minutes": "soon"}, "`minutes`: expected a number, got a string"),
        ({"minutes": {}}, "`minutes`: expected a number, got a mapping"),
        ({"text": {"a": 1}}, "`text`: expected a string, got a mapping"),
        ({"choice": "c"}, "`choice`: must be 'a' or 'b', not 'c'"),
        ({"choice": "hunter2"}, "`choice`: must be 'a' or 'b', not a string"),
        ({"text": 2.5}, "`text`: expected a string, got 2.5"),
        ({"text": True}, "`text`: expected a string, got true"),
        ({"several": {"a": 1}}, "`several`: expected a list, got a mapping"),
    ],
    ids=str,
)  # fmt: skip
def test_an_invalid_field_is_named_with_what_is_expected(
    given_: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        parameters.read(_Outer, given_)

    assert raised.value.message == f"Invalid parameter {message}."
    assert raised.value.code == "ParameterInvalid"
    is_list = ": expected a list" in message
    assert raised.value.hint.startswith("A list is in brackets") == is_list


class _Asked(BaseModel):
    numbers: dict[str, int | float] = {}
    listed: list[float] = []
    text: str = "default"


@pytest.mark.parametrize(
    ("given_", "where"),
    [
        ({"numbers": {"x": 2**63}}, "`numbers.x`: 9.22e+18 is too large"),
        ({"numbers": {"x": -(2**64)}}, "`numbers.x`: -1.84e+19 is too large"),
        ({"numbers": {"x": 1e20}}, "`numbers.x`: 1e+20 is too large"),
        ({"listed": [1, 1e300]}, "`listed.1`: 1e+300 is too large"),
        ({"listed": [10**400]}, "`listed.0`: of about 400 digits is too large"),
        ({"listed": [-(2**1024)]}, "`listed.0`: of about 308 digits is too large"),
        ({"listed": [2**1024 - 2**970]}, "`listed.0`: of about 308 digits is too large"),
        ({"listed": [2**1024 - 2**971]}, "`listed.0`: 1.8e+308 is too large"),
    ],
)
def test_numbers_that_prefect_could_not_give_back(given_: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInputError, match=where.replace("+", r"\+")) as raised:
        parameters.read(_Asked, given_)

    assert raised.value.code == "NumberTooLarge"


def test_numbers_that_it_can() -> None:
    numbers = {"a": 2**63 - 1, "b": -(2**63 - 1), "c": 9e18, "d": 1e-300, "e": True}

    assert parameters.read(_Asked, {"numbers": numbers}).numbers["a"] == 2**63 - 1


def _nested(levels: int, kind: str = "list") -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "mapping"])
@pytest.mark.parametrize("levels", [33, 300, 20_000])
def test_what_prefect_could_not_list_is_refused(kind: str, levels: int) -> None:
    with pytest.raises(BadInputError, match="`text`: more than 32 levels") as raised:
        parameters.read(_Asked, {"text": _nested(levels, kind)})

    assert raised.value.code == "NestedTooDeep"


def test_a_few_levels_are_not_too_deep() -> None:
    class Asked(BaseModel):
        value: Any

    assert parameters.read(Asked, {"value": _nested(32)}).value == _nested(32)


def test_null_is_left_out_everywhere() -> None:
    asked = {"text": None, "numbers": {"x": None, "y": 1}, "listed": None}

    assert parameters.read(_Asked, asked) == _Asked(numbers={"y": 1})
