r"""Metrics from log lines, by regular expression.

A pattern's first group is the value. Where what it matched is no number, it is the metric's
name and the second group is the value, so that one pattern can serve several metrics, as
Katib's filters do. Without a pattern, ``NAME = VALUE`` and ``NAME: VALUE`` are found, whatever
signs the name is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import regex
from pydantic import BaseModel, ConfigDict, Field

from infra.errors import BadInputError

NUMBER = r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|(?i:nan|inf(?:inity)?))"

_LONGEST_LINE = 4096

# A pattern with nested repetition can take for ever on a short line, and holds the interpreter's
# lock meanwhile: nothing else of the process, not even a stop, would get a turn.
_LONGEST_SEARCH_SECONDS = 0.2


class MetricPattern(BaseModel):
    """A metric, and how to find its values in the log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="The metric's name, as MLflow will show it.")
    pattern: str | None = Field(
        None,
        description="Regular expression with one group for the value, or two for the name and "
        "the value. Left out: NAME=VALUE or NAME: VALUE.",
    )

    def expression(self) -> regex.Pattern[str]:
        """The compiled pattern.

        Raises:
            BadInputError: If it does not compile, or has no group for the value.
        """
        if self.pattern is None:
            name = regex.escape(self.name)
            return regex.compile(rf"(?<![\w./-]){name}[\"']?\s*[=:]\s*({NUMBER})(?!\w|\.\d)")
        try:
            expression = regex.compile(self.pattern)
        except regex.error as error:
            raise BadInputError(
                f"The pattern of metric {self.name!r} does not compile: {error}.",
                "Mend the regular expression.",
                code="MetricPatternInvalid",
            ) from error
        if expression.groups == 0:
            raise BadInputError(
                f"The pattern of metric {self.name!r} has no group for the value.",
                "Put the value in parentheses: loss=([0-9.]+).",
                code="MetricPatternWithoutGroup",
            )
        return expression


class Collector:
    """Finds metrics in the lines of one log, in order."""

    def __init__(
        self, metrics: Sequence[MetricPattern], warn: Callable[[str], object] = lambda _: None
    ) -> None:
        """Collect ``metrics``; ``warn`` is told of a pattern that is given up."""
        self._patterns = {metric.name: metric.expression() for metric in metrics}
        self._warn = warn

    def collect(self, line: str) -> Iterator[tuple[str, float]]:
        """The values in ``line``: pairs of a metric's name and its value, which may be NaN.

        A pattern that needs longer than a moment for a line is not tried on any further one.
        """
        if len(line) > _LONGEST_LINE:
            line = line[:_LONGEST_LINE].rpartition(" ")[0]  # and no half of a number
        for name, expression in list(self._patterns.items()):
            try:
                matches = list(expression.finditer(line, timeout=_LONGEST_SEARCH_SECONDS))
            except TimeoutError:
                del self._patterns[name]
                self._warn(f"The pattern of metric {name!r} takes too long; it is given up.")
                continue
            for match in matches:
                value = _value(name, match)
                if value is not None:
                    yield name, value


def _value(name: str, match: regex.Match[str]) -> float | None:
    value = _number(match[1])
    if value is None and match.re.groups > 1 and match[1] == name:
        value = _number(match[2])
    return value


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
