from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as forall
from hypothesis import strategies as st

from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import training_templates as rows
from registry.training_templates import TrainingTemplateDetailView
from tasks.training import training_templates
from tasks.training.training_request import Training
from tests.tasks.test_parameters import GROUPS, leaves

Kept = dict[str, dict[str, Any]]

_FORM = training_templates.empty_in_form(Training)

# What a form posts that nobody touched: see flows/forms.py.
_UNTOUCHED: dict[str, Any] = Training().model_dump(mode="json") | {"experiment": None}
_UNTOUCHED["resources"] |= dict.fromkeys(
    ("nodes", "processes_per_node", "boot_storage_gib", "data_storage_gib")
)
_UNTOUCHED["model"] |= {"register": None}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """The templates that there are; their rows are kept in memory."""
    found: Kept = {}

    def show(name: str) -> TrainingTemplateDetailView:
        if name not in found:
            raise NotFoundError(f"no {name}", code="TemplateUnknown")
        return TrainingTemplateDetailView.model_construct(**found[name])

    def create(
        name: str, description: str, parameters: dict[str, Any]
    ) -> TrainingTemplateDetailView:
        if name in found:
            raise ConflictError("taken", code="NameTaken")
        found[name] = {"name": name, "description": description, "parameters": parameters}
        return show(name)

    def change(
        name: str, new_name: str | None, description: str | None, revise: Callable[..., Any]
    ) -> TrainingTemplateDetailView:
        row = show(name)
        revised = revise(row.parameters)
        del found[name]
        return create(new_name or name, description or row.description, revised)

    monkeypatch.setattr(rows, "show", show)
    monkeypatch.setattr(rows, "create", create)
    monkeypatch.setattr(rows, "change", change)
    monkeypatch.setattr(rows, "parameters", lambda name: show(name).parameters)
    return found


class TestChecked:
    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"hyperparameters": {"lr": 0.1, "token": "secret:HF"}},
            {"algorithm": {"entry_point": "train.py"}},
            {"algorithm": {"provided": "image-classifier"}},
            {"datasets": [{"name": "train", "uri": "/nowhere"}], "max_minutes": 5.0},
            {"metrics": [{"name": "loss", "pattern": None}], "experiment": "mine"},
            {"output_uri": "s3://bucket/key", "description": "d"},
            {"resources": {"nodes": 2}},
            {"logs": {"stream": False}},
        ],
        ids=str,
    )
    def test_what_is_given_is_kept_and_nothing_else(self, given: dict[str, Any]) -> None:
        assert training_templates.checked(given) == given

    def test_relative_paths_are_made_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        given = {
            "algorithm": {"uri": "a"}, "datasets": [{"name": "d", "uri": "b"}], "output_uri": "c"
        }  # fmt: skip

        assert training_templates.checked(given) == {
            "algorithm": {"uri": f"{tmp_path}/a"},
            "datasets": [{"name": "d", "uri": f"{tmp_path}/b"}],
            "output_uri": f"{tmp_path}/c",
        }

    def test_null_is_left_out(self) -> None:
        given = {"output_uri": None, "hyperparameters": {"a": 1, "b": None}}

        assert training_templates.checked(given) == {"hyperparameters": {"a": 1}}

    @pytest.mark.parametrize(
        ("code", "given"),
        [
            ("ParameterOfRun", {"name": "a"}),
            ("ParameterOfRun", {"template": "a"}),
            ("ParameterUnknown", {"epochs": 1}),
            ("ParameterInvalid", {"max_minutes": "long"}),
            ("ParameterInvalid", {"algorithm": {"path": "/a"}}),
            ("ParameterInvalid", {"hyperparameters": [1]}),
            ("ParameterInvalid", {"hyperparameters": {"a": [1]}}),
            ("MaxMinutesInvalid", {"max_minutes": 0}),
            ("HyperparametersTooMany", {"hyperparameters": {f"k{i}": i for i in range(101)}}),
            ("HyperparameterNameInvalid", {"hyperparameters": {"a b": 1}}),
            ("HyperparameterValueInvalid", {"hyperparameters": {"a": float("nan")}}),
            ("DatasetsTooMany", {"datasets": [{"name": f"d{i}", "uri": "/a"} for i in range(11)]}),
            ("DatasetNameTwice", {"datasets": [{"name": "a", "uri": "/a"}] * 2}),
            ("MetricPatternInvalid", {"metrics": [{"name": "a", "pattern": "("}]}),
            ("TextInvalid", {"description": "d" * 4001}),
            ("TextInvalid", {"hyperparameters": {"a": "\0"}}),
            ("ExperimentInvalid", {"experiment": "e" * 251}),
            ("ModelNameInvalid", {"model": {"name": "a/b"}}),
        ],
        ids=str,
    )
    def test_what_no_run_could_use_is_refused(self, code: str, given: dict[str, Any]) -> None:
        with pytest.raises(BadInputError) as raised:
            training_templates.checked(given)

        assert raised.value.code == code
        assert raised.value.hint


class TestVerbs:
    def test_update_lays_over_and_takes_out(self, kept: Kept) -> None:
        training_templates.create("t", "d", {"max_minutes": 5.0, "hyperparameters": {"a": 1}})

        training_templates.update(
            "t", "u", None, {"max_minutes": None, "hyperparameters": {"b": 2}}
        )

        assert list(kept) == ["u"]
        assert kept["u"]["description"] == "d"
        assert kept["u"]["parameters"] == {"hyperparameters": {"a": 1, "b": 2}}

    def test_what_would_make_it_wrong_changes_nothing(self, kept: Kept) -> None:
        training_templates.create("t", "d", {"max_minutes": 5.0})

        for given in ({"max_minutes": -1}, {"nothing": 1}, {"name": "a"}):
            with pytest.raises(BadInputError):
                training_templates.update("t", "u", "e", given)

        assert kept["t"]["parameters"] == {"max_minutes": 5.0}
        assert list(kept) == ["t"]

    def test_a_copy_is_changed_and_the_first_one_is_not(self, kept: Kept) -> None:
        training_templates.create("t", "d", {"max_minutes": 5.0, "hyperparameters": {"a": 1}})

        training_templates.copy("t", "u", None, {"hyperparameters": {"a": 2}})
        training_templates.copy("t", "v", "another", {})

        assert kept["t"]["parameters"]["hyperparameters"] == {"a": 1}
        assert kept["u"]["parameters"] == {"max_minutes": 5.0, "hyperparameters": {"a": 2}}
        assert [kept[name]["description"] for name in "uv"] == ["d", "another"]

    @pytest.mark.parametrize("name", ["", " a", "a\n", "t" * 251])
    def test_names_that_cannot_be_kept_are_refused(self, kept: Kept, name: str) -> None:
        training_templates.create("t", "", {})
        for make in (
            lambda: training_templates.create(name, "", {}),
            lambda: training_templates.update("t", name, None, {}),
            lambda: training_templates.copy("t", name, None, {}),
        ):
            with pytest.raises(BadInputError) as raised:
                make()
            assert raised.value.code == "NameInvalid"
        assert list(kept) == ["t"]

    def test_descriptions_that_cannot_be_kept_are_refused(self, kept: Kept) -> None:
        training_templates.create("t", "", {})
        for make in (
            lambda: training_templates.create("u", "d" * 4001, {}),
            lambda: training_templates.update("t", None, "\0", {}),
        ):
            with pytest.raises(BadInputError) as raised:
                make()
            assert raised.value.code == "TextInvalid"


class TestFill:
    @pytest.fixture(autouse=True)
    def _template(self, kept: Kept) -> None:
        kept["t"] = {
            "parameters": {
                "experiment": "mine",
                "algorithm": {"uri": "/a", "entry_point": "train.py"},
                "hyperparameters": {"lr": 0.1, "epochs": 3},
                "datasets": [{"name": "train", "uri": "/d"}],
                "max_minutes": 5.0,
            }
        }

    def test_without_a_template_nothing_is_filled(self) -> None:
        for given in ({"name": "a"}, {"name": "a", "template": ""}, {"template": None}):
            assert training_templates.fill(given) == given

    def test_the_template_alone(self, kept: Kept) -> None:
        filled = training_templates.fill({"template": "t"})

        assert filled == {**kept["t"]["parameters"], "template": "t"}

    def test_what_is_given_wins(self) -> None:
        filled = training_templates.fill(
            {
                "template": "t", "name": "run", "experiment": "Default", "max_minutes": None,
                "hyperparameters": {"lr": 1, "epochs": None}, "datasets": [],
                "algorithm": {"provided": "p"},
            }
        )  # fmt: skip

        assert filled == {
            "template": "t", "name": "run", "experiment": "Default",
            "hyperparameters": {"lr": 1}, "datasets": [], "algorithm": {"provided": "p"},
        }  # fmt: skip

    def test_a_form_that_nobody_touched_is_the_template(self, kept: Kept) -> None:
        posted = {**_UNTOUCHED, "template": "t"}

        assert training_templates.fill(posted, _FORM) == training_templates.fill({"template": "t"})

    def test_a_form_wins_where_somebody_wrote(self) -> None:
        posted: dict[str, Any] = {**_UNTOUCHED, "template": "t"}
        posted |= {"hyperparameters": {"lr": 2}, "max_minutes": None, "name": "run"}
        posted["algorithm"] = {**posted["algorithm"], "entry_point": "other.py"}
        posted["logs"] = {**posted["logs"], "stream": False}

        filled = training_templates.fill(posted, _FORM)

        assert filled["algorithm"] == {"uri": "/a", "entry_point": "other.py"}
        assert filled["hyperparameters"] == {"lr": 2, "epochs": 3}
        assert (filled["name"], filled["max_minutes"]) == ("run", 5.0)
        assert filled["logs"] == {"stream": False}

    def test_a_form_wins_also_where_it_has_the_default(self, kept: Kept) -> None:
        kept["t"]["parameters"]["resources"] = {"nodes": 2, "torchrun": True}
        posted = {**_UNTOUCHED, "template": "t", "experiment": "Default"}
        posted["resources"] = {**_UNTOUCHED["resources"], "nodes": 1}

        filled = training_templates.fill(posted, _FORM)

        assert filled["resources"] == {"nodes": 1, "torchrun": True}
        assert filled["experiment"] == "Default"

    def test_what_is_filled_may_be_filled_again(self) -> None:
        given = {"template": "t", "hyperparameters": {"lr": 2}}
        once = training_templates.fill(given)

        assert training_templates.fill(once) == once

    def test_an_unknown_template_is_refused(self) -> None:
        with pytest.raises(NotFoundError) as raised:
            training_templates.fill({"template": "u"})

        assert raised.value.code == "TemplateUnknown"

    @forall(under=GROUPS, over=GROUPS)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_every_value_given_stands_and_every_other_is_the_templates(
        self, kept: Kept, under: dict[str, Any], over: dict[str, Any]
    ) -> None:
        kept["any"] = {"parameters": under}

        filled = leaves(training_templates.fill({**over, "template": "any"}))

        above = {place: value for place, value in leaves(over).items() if value is not None}
        assert filled.pop(".template") == "any"
        assert all(filled[place] == value for place, value in above.items())
        for place in filled.keys() - above.keys():
            assert filled[place] == leaves(under)[place]

    @forall(places=st.sets(st.sampled_from(list(Training.model_fields))))
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    def test_whichever_fields_a_form_posts_unchanged_they_come_from_the_template(
        self, kept: Kept, places: set[str]
    ) -> None:
        posted = {place: _UNTOUCHED[place] for place in places} | {"template": "t"}

        assert training_templates.fill(posted, _FORM) == training_templates.fill({"template": "t"})


@pytest.mark.parametrize(
    ("place", "value", "left_out"),
    [
        ("name", "", True),
        ("name", None, True),
        ("name", "a", False),
        ("experiment", "Default", False),
        ("experiment", "", True),
        ("resources.nodes", 1, False),
        ("resources.nodes", None, True),
        ("resources.boot_storage_gib", 0, False),
        ("hyperparameters", {}, True),
        ("hyperparameters.lr", 0, False),
        ("hyperparameters.lr", None, True),
        ("algorithm", {}, True),
        ("datasets", [], True),
        ("hyperparameters.lr", "", False),
        ("algorithm.uri", "", True),
        ("logs.stream", True, True),
        ("logs.stream", 1, False),
        ("logs.stream", False, False),
        ("model.register", "never", False),
        ("model.name", "", True),
        ("unknown", 1, False),
        ("max_minutes.inner", 1, False),
    ],
)
def test_a_form_has_what_is_not_empty(place: str, value: Any, left_out: bool) -> None:
    assert _FORM(place, value) is left_out
