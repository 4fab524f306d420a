r"""Metrics from log lines, by regular expression or as JSON.

A pattern's first group is the value. Where what it matched is no number, it is the metric's
name and the second group is the value, so that one pattern can serve several metrics, as
Katib's filters do. Without a pattern, ``NAME = VALUE`` and ``NAME: VALUE`` are found, whatever
signs the name is made of; in a line that is a JSON object, the member called ``NAME``, and beside
it the step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import regex
from pydantic import Field

from infra.errors import BadInputError
from infra.parameter_models import ParameterModel

NUMBER = r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|(?i:nan|inf(?:inity)?))"

_LONGEST_LINE = 4096
_LONGEST_JSON = 65536

# Keys of the step in a JSON line, the first match counts.
_STEPS = ("step", "global_step", "iteration", "epoch")
_LARGEST_STEP = 2**63

# A pattern with nested repetition can take for ever on a short line, and holds the interpreter's
# lock: no other thread of the process, not even a stop, would get a turn.
_LONGEST_SEARCH_SECONDS = 0.2


class MetricPattern(ParameterModel):
    """A metric and the pattern of its values in the log."""

    name: str = Field(description="The metric's name, as MLflow will show it.")
    pattern: str | None = Field(
        default=None,
        description="Regular expression with one group for the value, or two for the name and "
        "the value. Left out: NAME=VALUE, NAME: VALUE, or that member of a line of JSON.",
    )

    def expression(self) -> regex.Pattern[str]:
        """The compiled pattern.

        Raises:
            BadInputError: If it does not compile, nests too deep, or has no group for the value.
        """
        if self.pattern is None:
            name = regex.escape(self.name)
            return regex.compile(rf"(?<![\w./-]){name}[\"']?\s*[=:]\s*({NUMBER})(?!\w|\.\d)")
        try:
            expression = regex.compile(self.pattern)
        except (regex.error, RecursionError) as error:
            why = "it nests too deep" if isinstance(error, RecursionError) else error
            raise BadInputError(
                f"The pattern of metric {self.name!r} does not compile: {why}.",
                "Fix the regular expression.",
                code="MetricPatternInvalid",
            ) from None
        if expression.groups == 0:
            raise BadInputError(
                f"The pattern of metric {self.name!r} has no group for the value.",
                "Put the value in parentheses: loss=([0-9.]+).",
                code="MetricPatternWithoutGroup",
            )
        return expression


@dataclass(frozen=True)
class Observation:
    """One value of a metric.

    Attributes:
        name: The metric's name.
        value: The value, which may be NaN or infinite.
        step: Which step of the training it belongs to, where its source says so.
        at: Seconds since 1970, likewise.
    """

    name: str
    value: float
    step: int | None = None
    at: float | None = None


class MetricCollector:
    """Collector of metrics from the lines of one log, in order."""

    def __init__(
        self, metrics: Sequence[MetricPattern], warn: Callable[[str], object] = lambda _: None
    ) -> None:
        """Collect ``metrics``; ``warn`` is called for a pattern that is given up."""
        self._patterns = {metric.name: metric.expression() for metric in metrics}
        self._plain = {metric.name for metric in metrics if metric.pattern is None}
        self._warn = warn

    def collect(self, line: str) -> Iterator[Observation]:
        """Find the observations in ``line``.

        A pattern that needs longer than a moment for a line is not tried on any further one.
        """
        members = _members(line)
        if len(line) > _LONGEST_LINE:
            line = line[:_LONGEST_LINE].rpartition(" ")[0]  # and no half of a number
        for name, expression in list(self._patterns.items()):
            if members is not None and name in self._plain:
                value = _number(members.get(name))
                if value is not None:
                    yield Observation(name, value, _step(members))
                continue
            try:
                matches = list(expression.finditer(line, timeout=_LONGEST_SEARCH_SECONDS))
            except TimeoutError:
                del self._patterns[name]
                self._warn(f"The pattern of metric {name!r} takes too long; it is given up.")
                continue
            for match in matches:
                value = _value(name, match)
                if value is not None:
                    yield Observation(name, value)


def _members(line: str) -> dict[str, object] | None:
    """Parse a line that is a JSON object; None if it is not."""
    text = line.strip()
    if not (text.startswith("{") and text.endswith("}")) or len(text) > _LONGEST_JSON:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _step(members: Mapping[str, object]) -> int | None:
    for key in _STEPS:
        found = _number(members.get(key))
        if found is not None and found.is_integer() and 0 <= found < _LARGEST_STEP:
            return int(found)
    return None


def _value(name: str, match: regex.Match[str]) -> float | None:
    value = _number(match[1])
    if value is None and match.re.groups > 1 and match[1] == name:
        value = _number(match[2])
    return value


def _number(found: object) -> float | None:
    """Convert to a number; None if it is not one, and for true and false."""
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    try:
        return float(found)
    except (ValueError, OverflowError):
        return None
