"""Which outputs of a model an evaluation can read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import storage
from infra.errors import BadInputError
from registry.flavors import signatures
from registry.frameworks.layout import Layout
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


@pytest.mark.parametrize("is_known", [True, False])
def test_a_signature_refuses_it_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    (tmp_path / "MLmodel").write_text(
        "flavors: {python_function: {}}\n"
        "signature:\n"
        """  outputs: '[{"type": "string", "name": "label"}, {"type": "double", "name": "p"}]'\n"""
    )
    model = SimpleNamespace(framework="mlflow" if is_known else "custom")
    monkeypatch.setattr(output_fields.inference_request, "resolve", lambda _: model)
    layout = Layout(storage.store(str(tmp_path)))
    monkeypatch.setattr(output_fields.models, "layout", lambda _: layout)
    output_fields.check_signature(Evaluation(prediction_field="label"))

    if not is_known:
        output_fields.check_signature(Evaluation(prediction_field="lable"))
        return
    with pytest.raises(BadInputError) as raised:
        output_fields.check_signature(Evaluation(prediction_field="lable"))

    assert "no output 'lable'; its signature has 'label', 'p'." in raised.value.message
    assert str(raised.value.hint).startswith("Did you mean label?")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("""signature: {outputs: '[{"name": "a"}, {"name": "b"}]'}""", ["a", "b"]),
        ("""signature: {outputs: '[{"name": "a"}]'}""", ["prediction"]),
        ("""signature: {outputs: '[{"type": "long"}]'}""", []),
        ("signature: {outputs: null}", []),
        ("signature: {outputs: '[]'}", []),
        ("", []),
        ("}", []),
        ("[1]", []),
    ],
)
def test_outputs_of_a_signature(tmp_path: Path, text: str, wanted: list[str]) -> None:
    (tmp_path / "MLmodel").write_text(f"flavors: {{python_function: {{}}}}\n{text}\n")

    assert signatures.outputs(Layout(storage.store(str(tmp_path)))) == wanted


def test_a_library_that_is_known_has_outputs_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(
        """{"flavors": {"sklearn": {}}, "signature": {"outputs": "[{\\"name\\": \\"a\\"}]"}}"""
    )

    assert signatures.outputs(Layout(storage.store(str(tmp_path)))) == []
