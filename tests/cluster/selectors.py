"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.cluster.refusals import bad_request

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_TERMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"({_KEY})\s*(?:==|=)\s*({_VALUE})"), "is"),
    (re.compile(rf"({_KEY})\s*!=\s*({_VALUE})"), "is not"),
    (re.compile(rf"({_KEY})\s+in\s*\(([^()]*)\)"), "in"),
    (re.compile(rf"({_KEY})\s+notin\s*\(([^()]*)\)"), "not in"),
    (re.compile(rf"!\s*({_KEY})"), "absent"),
    (re.compile(rf"({_KEY})"), "present"),
)
_COMMON = ("metadata.name", "metadata.namespace")
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
#: What each kind may be selected by, besides its name and its namespace.
_FIELDS = {
    "Pod": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "Job": ("status.successful",),
    "Event": (
        *(f"involvedObject.{part}" for part in _INVOLVED),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "Node": ("spec.unschedulable",),
    "Namespace": ("status.phase",),
    "Secret": ("type",),
    "ReplicaSet": ("status.replicas",),
}

Labels = Mapping[str, str]


def labels(text: str) -> Callable[[Labels], bool]:
    """The predicate that a labelSelector of a request is.

    Raises:
        Refusal: 400, the text is none.
    """
    tests = [_label(part.strip()) for part in _parts(text)]
    return lambda had: all(test(had) for test in tests)


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _label(term: str) -> Callable[[Labels], bool]:
    for pattern, operator in _TERMS:
        if found := pattern.fullmatch(term):
            return _test(operator, *found.groups())
    raise bad_request(f'unable to parse requirement: found "{term}"')


def _test(operator: str, key: str, value: str = "") -> Callable[[Labels], bool]:
    values = {one.strip() for one in value.split(",")}
    return {
        "is": lambda had: had.get(key) == value.strip(),
        "is not": lambda had: had.get(key) != value.strip(),
        "in": lambda had: had.get(key) in values,
        "not in": lambda had: had.get(key) not in values,
        "absent": lambda had: key not in had,
        "present": lambda had: key in had,
    }[operator]


def matches(selector: Mapping[str, Any] | None, had: Labels) -> bool:
    """Whether a LabelSelector (matchLabels, matchExpressions) takes these labels.

    None takes nothing; an empty one takes everything.
    """
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(had.get(key) != value for key, value in wanted.items()):
        return False
    return all(expression(one, had) for one in selector.get("matchExpressions") or ())


def expression(one: Mapping[str, Any], had: Labels) -> bool:
    """Whether one matchExpression holds; of a node selector, Gt and Lt too."""
    key, values = one["key"], one.get("values") or []
    value = had.get(key)
    match one["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return key in had
        case "DoesNotExist":
            return key not in had
        case "Gt":
            return value is not None and value.isdigit() and int(value) > int(values[0])
        case "Lt":
            return value is not None and value.isdigit() and int(value) < int(values[0])
    raise bad_request(f'"{one["operator"]}" is not a valid label selector operator')


def fields(text: str, kind: str) -> Callable[[Mapping[str, Any]], bool]:
    """The predicate that a fieldSelector of a request is.

    Raises:
        Refusal: 400, the text is none, or names a field that this kind is not selected by.
    """
    tests = []
    for part in _parts(text):
        found = re.fullmatch(r"([A-Za-z.]+)(==|=|!=)(.*)", part.strip())
        if found is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, same, value = found[1], found[2] != "!=", found[3]
        if field not in _COMMON and field not in _FIELDS.get(kind, ()):
            raise bad_request(f"field label not supported: {field}")
        tests.append((field, same, value))
    return lambda obj: all((_field(obj, field) == value) is same for field, same, value in tests)


def _field(obj: Mapping[str, Any], field: str) -> str:
    if obj.get("kind") == "Job" and field == "status.successful":
        return str((obj.get("status") or {}).get("succeeded", 0))
    if obj.get("kind") == "Event" and field == "source":
        return str((obj.get("source") or {}).get("component", ""))
    value: Any = obj
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return "false" if field.endswith(("unschedulable", "hostNetwork")) else ""
    return str(value).lower() if isinstance(value, bool) else str(value)
