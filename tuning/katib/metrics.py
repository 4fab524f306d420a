"""Objective and metrics of an Experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infra.errors import BadInputError
from tuning.katib.document import Section, invalid
from tuning.metrics import MetricPattern

Say = Callable[[str], object]

_TYPES = ("minimize", "maximize")
_BEST = {"minimize": "min", "maximize": "max"}
_STRATEGIES = ("min", "max", "latest")

# Katib's own, which ours finds everything of, and more.
_DEFAULT_FILTER = r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)"

_FOLLOWS_LINES = (
    "metrics are found in what the script prints, and no file is followed: print them, or call "
    "mlflow.log_metric"
)
_COLLECTORS = {
    "StdOut": "",
    "None": "",
    "File": _FOLLOWS_LINES,
    "TensorFlowEvent": "scalars are found in event files below EM_TENSORBOARD_LOG_DIR, which the "
    "script must write to; a metric is called by its tag, with the folder before it",
    "PrometheusMetric": f"nothing is scraped; {_FOLLOWS_LINES}",
    "Custom": f"no other container collects; {_FOLLOWS_LINES}",
    "Push": "mlflow.log_metric in the script does what report_metrics did; its run is set up "
    "in the environment",
}


def objective(spec: Section, say: Say) -> dict[str, Any]:
    """The flow's ``objective``.

    Raises:
        BadInputError: If it has no metric, or neither direction.
    """
    section = spec.section("objective")
    metric = section.required("objectiveMetricName")
    direction = section.required("type")
    if direction not in _TYPES:
        raise invalid(
            section.place("type"), f"is {direction[:60]!r}", f"Give {' or '.join(_TYPES)}."
        )
    found: dict[str, Any] = {"metric": metric, "direction": direction}
    goal = section.number("goal")
    if goal is not None:
        found["goal"] = goal
    for strategy in section.sections("metricStrategies"):
        name, value = strategy.required("name"), strategy.required("value")
        if value not in _STRATEGIES:
            raise invalid(
                strategy.place("value"), f"is {value[:60]!r}", f"Give {', '.join(_STRATEGIES)}."
            )
        if name != metric:
            say(f"{strategy.place('value')}: every value of {name!r} is kept, not its {value}.")
        elif value == "latest":
            found["use"] = "last"
        elif value != _BEST[direction]:
            say(
                f"{strategy.place('value')}: a trial's value is the best or the last of "
                f"{metric!r}, never its worst; the best is taken."
            )
    return found


def metrics(spec: Section, say: Say) -> list[dict[str, str]]:
    """The flow's ``metrics``: the objective's, the additional ones, and how they are found.

    Raises:
        BadInputError: If a field is not what it must be.
    """
    section = spec.section("objective")
    names = [section.required("objectiveMetricName"), *section.texts("additionalMetricNames")]
    pattern = _collected(spec.section("metricsCollectorSpec"), say)
    unique = dict.fromkeys(name for name in names if name)
    return [{"name": name, **({"pattern": pattern} if pattern else {})} for name in unique]


def _collected(section: Section, say: Say) -> str:
    """The pattern that the filters are together; "" if there is none."""
    collector = section.section("collector")
    kind = collector.text("kind") or "StdOut"
    if kind not in _COLLECTORS:
        raise invalid(
            collector.place("kind"), f"is {kind[:60]!r}", f"Give {', '.join(_COLLECTORS)}."
        )
    source = section.section("source")
    source.ignore("httpGet")
    collector.ignore("customCollector")
    file = source.section("fileSystemPath")
    file.ignore("kind")
    path = file.text("path")
    if _COLLECTORS[kind]:
        say(f"{section.place('collector')} {kind}{f' of {path}' if path else ''}: "
            f"{_COLLECTORS[kind]}.")  # fmt: skip
    if file.text("format") == "JSON":
        say(f"{file.place('format')} JSON: metrics are found in lines of JSON that are printed.")
    filters = source.section("filter")
    place = filters.place("metricsFormat")
    given = filters.texts("metricsFormat")
    if given == [_DEFAULT_FILTER]:
        say(f"{place}: Katib's default is left out, as NAME=VALUE is found without it.")
        return ""
    patterns = [one for one in given if one and _usable(one, place, say)]
    if len(patterns) < 2:
        return patterns[0] if patterns else ""
    # Each counts its groups from 1, and keeps its flags to itself.
    joined = f"(?|{'|'.join(f'(?:{one})' for one in patterns)})"
    return joined if _usable(joined, place, say) else ""


def _usable(pattern: str, place: str, say: Say) -> bool:
    """Whether a filter is supported; reports why, if it is not."""
    try:
        groups = MetricPattern(name="metric", pattern=pattern).expression().groups
    except BadInputError as error:
        say(f"{place} {pattern!r}: {error.message}")
        return False
    if groups < 2:
        say(f"{place} {pattern!r}: it has no group for the metric's name, and one for its value.")
        return False
    return True
