"""Conditions of tasks: ``triggerPolicy.condition``, an expression over what the task is given.

``inputs.parameter_values['NAME']`` is a parameter's value, with numbers as doubles, as KFP's
backend has them; an expression makes whole numbers of them itself, with ``int(...)``. Older
compilers wrote ``inputs.parameters['NAME'].string_value``, ``int_value`` or ``double_value``;
there, lists, mappings and truth values are texts. A condition that cannot be evaluated is an
error, never false: a branch that is left out in silence is worse than a run that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.errors import BadInputError, ModelyardError
from pipelines import evaluation, expressions, values
from pipelines.artifacts import Artifact

_NAMES = frozenset({"inputs"})
_SHOWN = 200


class ConditionUndecidedError(ModelyardError):
    """A condition cannot be evaluated with what its task is given."""

    code = "ConditionUndecided"


def check(expression: str) -> None:
    """Refuse a condition that can never be evaluated.

    Raises:
        BadInputError: ``ConditionInvalid``.
    """
    _parsed(expression)


def names(expression: str) -> frozenset[str]:
    """List the parameters that a condition names.

    Raises:
        BadInputError: ``ConditionInvalid``.
    """
    tokens = _parsed(expression).tokens
    return frozenset(
        name
        for field in ("parameter_values", "parameters")
        for name in expressions.indexed(tokens, ("inputs", field))
    )


def evaluate(
    expression: str,
    parameters: Mapping[str, Any],
    artifacts: Mapping[str, Artifact | list[Artifact]] | None = None,
) -> bool:
    """Evaluate a condition.

    Args:
        expression: The condition.
        parameters: What the task is given.
        artifacts: The artifacts that it is given.

    Raises:
        BadInputError: ``ConditionInvalid``.
        ConditionUndecidedError: If it names what is not there, compares what cannot be compared,
            is neither true nor false, or takes too long.
    """
    condition = _parsed(expression)
    try:
        inputs = _inputs(parameters, artifacts or {})
        found = evaluation.evaluate(condition, {"inputs": inputs})
    except (expressions.ExpressionUndecidedError, OverflowError) as error:
        raise _undecided(expression, str(error)) from None
    if not isinstance(found, bool):
        raise _undecided(expression, "it is neither true nor false")
    return found


def _parsed(expression: str) -> expressions.Expression:
    try:
        return expressions.parse(expression, _NAMES)
    except expressions.ExpressionInvalidError as error:
        raise BadInputError(
            f"The condition {_shown(expression)} cannot be read: {error}.",
            "KFP's compiler writes such a condition where it compares a string that has a quote, "
            "or a number or boolean with a string: compare values of one type.",
            code="ConditionInvalid",
        ) from None


def _undecided(expression: str, why: str) -> ConditionUndecidedError:
    return ConditionUndecidedError(
        f"The condition {_shown(expression)} cannot be decided: {why}.",
        "Compare what the task is given with values of the same type.",
    )


def _shown(expression: str) -> str:
    return expression if len(expression) <= _SHOWN else f"{expression[:_SHOWN]}…"


def _inputs(
    parameters: Mapping[str, Any], artifacts: Mapping[str, Artifact | list[Artifact]]
) -> dict[str, Any]:
    return {
        "parameter_values": expressions.doubled(parameters),
        "parameters": {name: _old(value) for name, value in parameters.items()},
        "artifacts": {
            name: {"artifacts": [_artifact(one) for one in _listed(found)]}
            for name, found in artifacts.items()
        },
    }


def _old(value: Any) -> dict[str, Any]:
    """Convert a value to the fields that older compilers name."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {"string_value": values.as_text(value)}
    fields: dict[str, Any] = {"double_value": float(value)}
    if isinstance(value, int) or value.is_integer():
        fields["int_value"] = int(value)
    return fields


def _listed(found: Artifact | list[Artifact]) -> list[Artifact]:
    return found if isinstance(found, list) else [found]


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "name": artifact.called,
        "uri": artifact.uri,
        "type": {"schema_title": artifact.schema, "schema_version": artifact.version},
        "metadata": expressions.doubled(artifact.metadata),
    }
