"""The outputs of a model in which an evaluation finds its predictions and probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from infra.errors import BadInputError, ModelyardError
from infra.suggestions import did_you_mean, show_names
from registry.flavors import signatures
from registry.models import models
from tasks.batch_inference import inference_request
from tasks.evaluation.evaluation_request import OUTPUT_FIELDS, Evaluation

_MLFLOW = "mlflow"  # the framework


# Read once everything is predicted, so a retry can have others.
_PREDICTED = (
    "Correct it, and retry, which predicts nothing again: modelyard runs update RUN -p {}=NAME, "
    "and modelyard runs retry RUN."
)
_UNPREDICTED = "Give it as the model calls its output."


def check_signature(request: Evaluation) -> None:
    """Refuse a model whose signature lacks an output that the evaluation reads; see :func:`check`.

    Raises:
        BadInputError: With the code ``OutputFieldMissing``.
    """
    model = inference_request.resolve(request.inference())
    if model.framework != _MLFLOW or request.batch.server_url or request.batch.server:
        return
    try:
        found = signatures.outputs(models.layout(model))
    except ModelyardError:  # the run itself says why, when it fetches them
        return
    if found:
        check(request, found, "its signature", is_predicted=False)


def check(
    request: Evaluation, outputs: Sequence[str], source: str, *, is_predicted: bool = True
) -> None:
    """Refuse a model that lacks an output which the evaluation reads.

    A field that was given must be there. Of those by default one may be missing: a regression has
    no probabilities, and the most probable class counts as predicted.

    Args:
        request: The evaluation.
        outputs: The names of the model's outputs.
        source: What has them, for the message, such as ``the first result of a.csv``.
        is_predicted: Whether everything is predicted, which a retry would keep.

    Raises:
        BadInputError: With the code ``OutputFieldMissing``.
    """
    missing = {
        parameter: name
        for parameter in OUTPUT_FIELDS
        if (name := getattr(request, parameter)) not in outputs
    }
    given = [
        parameter
        for parameter, name in missing.items()
        if name and name != Evaluation.model_fields[parameter].default
    ]
    needed = OUTPUT_FIELDS[:1] if request.task == "regression" else OUTPUT_FIELDS
    if not given and not all(parameter in missing for parameter in needed):
        return
    parameter = given[0] if given else OUTPUT_FIELDS[0]
    remedy = _PREDICTED.format(parameter) if is_predicted else _UNPREDICTED
    meant = did_you_mean(missing[parameter], outputs)
    raise BadInputError(
        f"{parameter}: the model has no output {missing[parameter]!r}; {source} has "
        f"{show_names(outputs)}.",
        f"{meant} {remedy}".lstrip(),
        code="OutputFieldMissing",
    )
