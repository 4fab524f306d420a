"""Which outputs of a model an evaluation can read."""

from __future__ import annotations

import pytest

from infra.errors import BadInputError
from tasks.evaluation import output_fields
from tasks.evaluation.evaluation_request import Evaluation

REGRESSION = {"task": "regression"}


@pytest.mark.parametrize(
    ("given", "outputs"),
    [
        ({}, ["prediction"]),
        ({}, ["prediction", "probabilities"]),
        ({}, ["probabilities", "embedding"]),
        ({"prediction_field": "label"}, ["label", "score"]),
        ({"prediction_field": "label", "probabilities_field": "score"}, ["label", "score"]),
        ({"prediction_field": "", "probabilities_field": "score"}, ["label", "score"]),
        (REGRESSION, ["prediction"]),
        (REGRESSION | {"prediction_field": "price"}, ["price", "spread"]),
    ],
)
def test_what_an_evaluation_can_read(given: dict[str, str], outputs: list[str]) -> None:
    output_fields.check(Evaluation(**given), outputs, "it")


@pytest.mark.parametrize(
    ("given", "outputs", "message", "hint"),
    [
        ({"prediction_field": "predicton"}, ["prediction", "probabilities"],
         "prediction_field: the model has no output 'predicton'; it has 'prediction', "
         "'probabilities'.", "Did you mean prediction? "),
        ({"probabilities_field": "probabilites"}, ["prediction", "probabilities"],
         "probabilities_field: the model has no output 'probabilites'; it has",
         "Did you mean probabilities? "),
        ({}, ["label", "score"], "prediction_field: the model has no output 'prediction'; it has "
         "'label', 'score'.", "Correct it, and retry"),
        ({"prediction_field": ""}, ["label"], "prediction_field: the model has no output ''", ""),
        (REGRESSION, ["probabilities", "x"], "no output 'prediction'; it has", ""),
        (REGRESSION | {"prediction_field": "prise"}, ["price", "prediction"], "no output 'prise'",
         "Did you mean price? "),
        ({}, [f"f{at}" for at in range(25)], "'f19' and 5 more.", ""),
        ({}, [], "it has none.", ""),
    ],
)  # fmt: skip
def test_a_field_that_the_model_does_not_have_is_refused(
    given: dict[str, str], outputs: list[str], message: str, hint: str
) -> None:
    with pytest.raises(BadInputError) as raised:
        output_fields.check(Evaluation(**given), outputs, "it")

    assert raised.value.code == "OutputFieldMissing"
    assert message in raised.value.message
    assert str(raised.value.hint).startswith(hint)


def test_before_anything_is_predicted_no_retry_is_advised() -> None:
    with pytest.raises(BadInputError) as raised:
        output_fields.check(Evaluation(), ["label"], "it", is_predicted=False)

    assert raised.value.hint == "Give it as the model calls its output."
