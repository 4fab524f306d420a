from __future__ import annotations

import json

import pytest

from infra.errors import BadInputError
from modelyard.commands import algorithm
from tasks import provided


class TestList:
    def test_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        algorithm.list_()

        shown = capsys.readouterr().out
        assert all(provided.load(name).title.split()[0] in shown for name in provided.names())

    def test_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        algorithm.list_(json=True)

        found = json.loads(capsys.readouterr().out)
        assert [one["name"] for one in found] == provided.names()
        assert {one["framework"] for one in found} == {"pytorch", "scikit-learn"}


class TestShow:
    def test_for_people(self, capsys: pytest.CaptureFixture[str]) -> None:
        algorithm.show("gradient-boosting")

        shown = capsys.readouterr().out
        assert "title: Gradient boosting" in shown
        titles = [title for title in shown.splitlines() if title.isidentifier()]
        assert titles == ["needs", "datasets", "hyperparameters", "metrics"]
        assert "required" in shown
        assert '"squared_error"' in shown

    def test_for_programs(self, capsys: pytest.CaptureFixture[str]) -> None:
        algorithm.show("image-classifier", json=True)

        found = json.loads(capsys.readouterr().out)
        rate = next(one for one in found["hyperparameters"] if one["name"] == "learning_rate")
        assert (rate["type"], rate["default"], rate["min"], rate["max"]) == (
            "double",
            0.001,
            0,
            10,
        )
        assert (rate["min_excluded"], rate["log"]) == (True, True)
        assert rate["allowed"] == "a number above 0, at most 10"
        assert found["missing_packages"] == provided.load("image-classifier").missing_packages()
        assert "path" not in found

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(BadInputError, match="'nowhere'"):
            algorithm.show("nowhere")
