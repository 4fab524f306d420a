"""What an evaluation is asked, and what of it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError
from infra.home import Home
from infra.settings import Settings
from tasks.evaluation import evaluation_request
from tasks.evaluation.evaluation_request import Evaluation


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What can be evaluated."""
    monkeypatch.setattr(evaluation_request.inference_request, "check", lambda *_: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("x,y\n1,2\n")
    return {
        "model": "m/1", "input_uri": str(tmp_path / "in"), "input_format": "csv",
        "target_field": "y", "output_uri": str(tmp_path / "out"), "class_names": ["a", "b"],
    }  # fmt: skip


def check(home: Home, given: dict[str, Any]) -> None:
    evaluation_request.check(Evaluation(**given), home, Settings(home=home.root))


@pytest.mark.parametrize(
    "more", [{}, {"task": "regression", "class_names": []}, {"class_names": list(range(50))}]
)
def test_what_can_run_is_taken(home: Home, given: dict[str, Any], more: dict[str, Any]) -> None:
    check(home, given | more)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"model": ""}, "ParameterMissing"),
        ({"target_field": ""}, "ParameterMissing"),
        ({"class_names": []}, "ClassNamesMissing"),
        ({"class_names": ["a"]}, "ClassNamesMissing"),
        ({"class_names": list(range(51))}, "ClassesTooMany"),
        ({"class_names": ["a", "b", "a"]}, "ClassNamesClash"),
        ({"class_names": ["1", "1.0"]}, "ClassNamesClash"),
        ({"class_names": ["", " "]}, "ClassNamesClash"),
        ({"class_names": ["a", "\ud800"]}, "ClassNameInvalid"),
        ({"task": "regression"}, "ClassNamesUnused"),
        ({"slice_field": "y"}, "TargetFieldTwice"),
        ({"drop_fields": ["y"]}, "TargetFieldTwice"),
        ({"input_format": "jsonl"}, "InputEmpty"),
    ],
)
def test_what_cannot_is_refused(
    home: Home, given: dict[str, Any], more: dict[str, Any], code: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        check(home, given | more)

    assert raised.value.code == code
    assert raised.value.hint


def test_more_than_the_limit_is_refused(
    home: Home, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_request, "MOST_BYTES", 7)

    with pytest.raises(BadInputError) as raised:
        check(home, given)

    assert raised.value.code == "InputTooLarge"


def test_the_batch_inference_keeps_fields_from_the_model(given: dict[str, Any]) -> None:
    request = Evaluation(**given, drop_fields=["id"], batch={"pods": 2})

    inference = request.inference()

    assert inference.drop_fields == ["y", "id"]
    assert inference.include == ["*.csv"]
    assert inference.output_uri == f"{given['output_uri']}/predictions"
    assert inference.pods == 2
