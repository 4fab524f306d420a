"""The search space: an Experiment's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.errors import BadInputError
from tuning.katib.document import Section, finite, invalid
from tuning.katib.metrics import Say
from tuning.space import Value

_RANGES = ("int", "double")
_TYPES = (*_RANGES, "categorical", "discrete")

# Of each distribution: whether it is a logarithmic one, and what it is not here.
_DISTRIBUTIONS = {
    "": (False, ""),
    "uniform": (False, ""),
    "logUniform": (True, ""),
    "normal": (False, "there is no normal distribution; the range is searched evenly"),
    "logNormal": (
        True,
        "there is no normal distribution; the range is searched on a logarithmic scale",
    ),
}


def parameters(spec: Section, say: Say, *, grid: bool) -> list[dict[str, Any]]:
    """The flow's ``parameters``, under Katib's names.

    Raises:
        BadInputError: If there are none, or one is not what it must be.
    """
    found = [_parameter(section, say, grid=grid) for section in spec.sections("parameters")]
    if not found:
        raise BadInputError(
            "The Experiment has no spec.parameters.", "Give what is to be varied.",
            code="KatibFieldMissing",
        )  # fmt: skip
    return found


def _parameter(section: Section, say: Say, *, grid: bool) -> dict[str, Any]:
    name = section.required("name")
    kind = section.required("parameterType")
    if kind not in _TYPES:
        raise invalid(
            section.place("parameterType"), f"is {kind[:60]!r}", f"Give {', '.join(_TYPES)}."
        )
    space = section.section("feasibleSpace")
    what = f"Parameter {name!r}"
    if kind in _RANGES:
        return {"name": name, "type": kind, **_range(space, kind, what, say, grid=grid)}
    texts = space.texts("list")
    unique = list(dict.fromkeys(texts))
    if len(unique) < len(texts):
        say(f"{what}: what its list has twice is given once.")
    for field in ("min", "max", "step"):
        if space.text(field):
            raise invalid(space.place(field), "stands beside a list", "Give one of them.")
    if kind == "discrete":
        kind, values = _numbers(unique, what, say)
        return {"name": name, "type": kind, "values": values}
    return {"name": name, "type": kind, "values": unique}


def _range(space: Section, kind: str, what: str, say: Say, *, grid: bool) -> dict[str, Any]:
    if space.texts("list"):
        raise invalid(space.place("list"), "stands beside a range", "Give one of them.")
    found: dict[str, Any] = {}
    for field in ("min", "max", "step"):
        value = space.whole(field) if kind == "int" else space.number(field)
        if value is not None:
            found[field] = value
    if "step" in found and not grid:
        say(
            f"{what}: the step {found.pop('step'):g} is a grid's; other strategies also try what "
            "lies between. For these values alone give them as a discrete parameter's."
        )
    name = space.text("distribution")
    if name not in _DISTRIBUTIONS:
        raise invalid(
            space.place("distribution"),
            f"is {name[:60]!r}",
            f"Give {', '.join(filter(None, _DISTRIBUTIONS))}.",
        )
    logarithmic, note = _DISTRIBUTIONS[name]
    if logarithmic and found.get("min", 0) <= 0:
        note = "a logarithmic scale needs a min above 0; the range is searched evenly"
    elif logarithmic:
        found["log"] = True
    if note:
        say(f"{what}: the distribution is {name}, and {note}.")
    return found


def _numbers(texts: Sequence[str], what: str, say: Say) -> tuple[str, list[Value]]:
    """A discrete parameter's values; a categorical one's where they are no numbers."""
    numbers = [finite(text) for text in texts]
    if None in numbers:
        say(f"{what}: it is categorical here, as a discrete one has numbers only.")
        return "categorical", list(texts)
    unique: dict[float, Value] = {}
    for text, number in zip(texts, numbers, strict=True):
        assert number is not None
        unique.setdefault(number, int(text) if text.strip().lstrip("+-").isdigit() else number)
    if len(unique) < len(texts):
        say(f"{what}: numbers that are written in several ways are given once.")
    return "discrete", list(unique.values())
