"""What the API server refuses of a Job, beyond its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.cluster import naming, pod_checks, selectors
from tests.cluster.refusals import Wrong, invalid, shown

Spec = Mapping[str, Any]
_NOT_NEGATIVE = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
_MOST_INDEXED = 100_000
_INDEXES = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def job(obj: Mapping[str, Any]) -> Iterator[Wrong]:
    """What is wrong with a Job."""
    spec = obj.get("spec") or {}
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    for key in _NOT_NEGATIVE:
        if (spec.get(key) or 0) < 0:
            yield invalid(f"spec.{key}", spec[key], "must be greater than or equal to 0")
    yield from pod_checks.unsupported(
        "spec.completionMode", spec.get("completionMode"), ("NonIndexed", "Indexed")
    )
    yield from _template(spec, template)
    yield from pod_checks.pod(pod, "spec.template.spec")
    if pod.get("restartPolicy") == "Always":
        yield from pod_checks.unsupported(
            "spec.template.spec.restartPolicy", "Always", ("OnFailure", "Never")
        )
    yield from _indexed(spec, obj["metadata"].get("name", ""))
    yield from _success(spec)
    yield from _failure(spec, pod)


def _template(spec: Spec, template: Spec) -> Iterator[Wrong]:
    meta = template.get("metadata") or {}
    labels = meta.get("labels") or {}
    yield from naming.labels(labels, "spec.template.labels")
    yield from naming.annotations(meta.get("annotations") or {}, "spec.template.annotations")
    selector = spec.get("selector")
    if selector is None:
        yield Wrong("spec.selector", "Required value")
    elif not selectors.matches(selector, labels):
        yield invalid("spec.template.metadata.labels", "", "`selector` does not match template "
                      "`labels`")  # fmt: skip
    uid = (selector or {}).get("matchLabels", {}).get("batch.kubernetes.io/controller-uid")
    if selector is not None and not spec.get("manualSelector") and uid is None:
        yield invalid("spec.selector", "", "`selector` not auto-generated")


def _indexed(spec: Spec, name: str) -> Iterator[Wrong]:
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and spec.get("completions") is None:
        when = "when completion mode is Indexed"
        yield Wrong("spec.completions", "Required value", when)
    if indexed and (spec.get("parallelism") or 0) > _MOST_INDEXED:
        why = f"must be less than or equal to {_MOST_INDEXED} when completion mode is Indexed"
        yield invalid("spec.parallelism", spec["parallelism"], why)
    if indexed and spec.get("completions"):
        last = f"{name}-{spec['completions'] - 1}"
        if naming.wrong_name("label", last):
            why = f"will not able to create pod with invalid DNS label: {last}"
            yield invalid("metadata.name", name, why)
    for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
        if not indexed and spec.get(key) is not None:
            yield invalid(f"spec.{key}", spec[key], "requires indexed completion mode")
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        when = "when maxFailedIndexes is specified"
        yield Wrong("spec.backoffLimitPerIndex", "Required value", when)


def _success(spec: Spec) -> Iterator[Wrong]:
    policy = spec.get("successPolicy")
    if policy is None:
        return
    at = "spec.successPolicy"
    if spec.get("completionMode") != "Indexed":
        yield invalid(at, "", "requires indexed completion mode")
    rules = policy.get("rules") or ()
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        yield Wrong(f"{at}.rules", "Required value", why)
    completions = spec.get("completions") or 0
    for index, rule in enumerate(rules):
        place = f"{at}.rules[{index}]"
        indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        if indexes is None and count is None:
            why = "at least one of succeededCount or succeededIndexes must be specified"
            yield Wrong(place, "Required value", why)
        if indexes is not None:
            numbers = [int(number) for number in re.findall(r"\d+", indexes)]
            if not _INDEXES.fullmatch(indexes) or numbers != sorted(numbers):
                why = "error parsing succeededIndexes: cannot convert string to integer for index"
                yield invalid(f"{place}.succeededIndexes", indexes, why)
            elif numbers[-1] >= completions:
                why = "error parsing succeededIndexes: too large index"
                yield invalid(f"{place}.succeededIndexes", indexes, why)
        if count is not None and not 0 < count <= completions:
            why = f"must be greater than 0, and less than or equal to {completions} (the number "
            yield invalid(f"{place}.succeededCount", count, why + "of specified completions)")


def _failure(spec: Spec, pod: Spec) -> Iterator[Wrong]:
    policy, replacement = spec.get("podFailurePolicy"), spec.get("podReplacementPolicy")
    known = ("Failed",) if policy is not None else ("Failed", "TerminatingOrFailed")
    yield from pod_checks.unsupported("spec.podReplacementPolicy", replacement, known)
    if policy is None:
        return
    at = "spec.podFailurePolicy"
    if pod.get("restartPolicy") != "Never":
        why = 'only "Never" is supported when podFailurePolicy is specified'
        yield invalid("spec.template.spec.restartPolicy", pod.get("restartPolicy"), why)
    names = {
        one.get("name") for key in ("containers", "initContainers") for one in pod.get(key, ())
    }
    for index, rule in enumerate(policy.get("rules") or ()):
        place = f"{at}.rules[{index}]"
        yield from pod_checks.unsupported(f"{place}.action", rule.get("action"), _ACTIONS)
        if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            why = "requires the backoffLimitPerIndex to be set"
            yield invalid(f"{place}.action", "FailIndex", why)
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
        if (codes is None) == (not conditions):
            why = "specifying one of onExitCodes and onPodConditions is required"
            yield invalid(place, "", why)
        if codes is not None:
            yield from _codes(codes, f"{place}.onExitCodes", names)


def _codes(codes: Spec, at: str, names: set[Any]) -> Iterator[Wrong]:
    yield from pod_checks.unsupported(f"{at}.operator", codes.get("operator"), ("In", "NotIn"))
    values = codes.get("values") or []
    if not values:
        yield invalid(f"{at}.values", "", "at least one value is required")
    if codes.get("operator") == "In" and 0 in values:
        why = "must not be 0 for the In operator"
        yield invalid(f"{at}.values[{values.index(0)}]", 0, why)
    if values != sorted(values):
        yield invalid(f"{at}.values", "", "must be ordered")
    if len(set(values)) != len(values):
        twice = next(value for value in values if values.count(value) > 1)
        yield Wrong(f"{at}.values", "Duplicate value", shown(twice))
    name = codes.get("containerName")
    if name is not None and name not in names:
        yield invalid(f"{at}.containerName", name, "must be one of the container or initContainer "
                      "names in the pod template")  # fmt: skip
