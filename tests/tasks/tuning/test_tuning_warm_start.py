"""Trials of another tuning that a tuning learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.errors import BadInputError
from registry.runs import run_views, runs
from registry.tunings import trials
from tasks.tuning import tuning_warm_start
from tests.registry.tuned import row
from tests.tasks.tuning.conftest import LOSS, Given
from tuning.trials import Trial, TrialState


class TestWarmStart:
    @pytest.fixture(autouse=True)
    def _earlier(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, Any] = {"flow": "tune", "parameters": {"objective": [LOSS]}}
        show = run_views.RunDetailView.model_construct
        monkeypatch.setattr(runs, "show", lambda _: show(**self.found))
        monkeypatch.setattr(runs, "find", {"earlier": "id-1"}.__getitem__)

    def test_one_that_sought_the_same(self, tuning: Given) -> None:
        tuning_warm_start.check(tuning())
        tuning_warm_start.check(tuning(warm_start="earlier"))

    def test_a_form_has_given_a_single_objective(self, tuning: Given) -> None:
        self.found["parameters"] = {"objective": LOSS}

        tuning_warm_start.check(tuning(warm_start="earlier"))

    def test_a_run_of_another_flow(self, tuning: Given) -> None:
        self.found["flow"] = "train"
        with pytest.raises(BadInputError) as raised:
            tuning_warm_start.check(tuning(warm_start="earlier"))

        assert raised.value.code == "WarmStartNoTuning"

    @pytest.mark.parametrize(
        "sought",
        [
            [], [{**LOSS, "direction": "maximize"}], [{**LOSS, "metric": "f1"}],
            [LOSS, {"metric": "f1", "direction": "maximize"}], [{"metric": "loss"}], ["loss"],
            None, [{**LOSS, "use": "last"}],
        ],
        ids=str,
    )  # fmt: skip
    def test_one_that_sought_something_else(self, tuning: Given, sought: list[Any]) -> None:
        self.found["parameters"] = {"objective": sought}
        with pytest.raises(BadInputError) as raised:
            tuning_warm_start.check(tuning(warm_start="earlier"))

        assert raised.value.code == "WarmStartDiffers"
        assert "this tuning has minimize loss (best)" in raised.value.message

    def test_its_name_becomes_its_id(self) -> None:
        found = tuning_warm_start.pin({"warm_start": "earlier", "name": "n"})
        assert found == {"warm_start": "id-1", "name": "n"}
        for nothing in ({}, {"warm_start": ""}, {"warm_start": None}):
            assert tuning_warm_start.pin(nothing) == nothing

    @pytest.mark.parametrize("key", ["a\0b", " ", "x" * 300])
    def test_a_name_that_none_can_have(self, key: str) -> None:
        with pytest.raises(BadInputError) as raised:
            tuning_warm_start.pin({"warm_start": key})

        assert raised.value.code == "WarmStartInvalid"

    def test_only_what_had_ended_by_then_is_learned_from(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [row(0, ended=3.0), row(1, ended=5.0), row(2, ended=None, state="RUNNING")]
        monkeypatch.setattr(trials, "of", {"id-1": rows}.__getitem__)

        (found,) = tuning_warm_start.trials_of("earlier", 4.0)

        assert replace(found, values=None) == Trial(
            0, {"lr": 0.5}, TrialState.SUCCEEDED, None, started=2.0, created=1.0, ended=3.0
        )
        assert found.values == (0.25,)
