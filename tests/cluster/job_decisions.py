"""What the Job controller decides. Nothing here waits or writes."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
INDEX = "batch.kubernetes.io/job-completion-index"
_LONGEST = 63


@dataclass(frozen=True)
class Tally:
    """A pod of a Job, as it counts."""

    uid: str
    name: str
    phase: str
    deleting: bool
    ready: bool
    index: int | None
    pod: Mapping[str, Any]

    @property
    def is_over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_active(self) -> bool:
        return not self.is_over and not self.deleting


def tally(pod: Mapping[str, Any]) -> Tally:
    """How a pod counts."""
    meta, status = pod["metadata"], pod.get("status") or {}
    index = (meta.get("annotations") or {}).get(INDEX)
    return Tally(
        uid=meta["uid"],
        name=meta["name"],
        phase=status.get("phase", "Pending"),
        deleting="deletionTimestamp" in meta,
        ready=any(
            one["type"] == "Ready" and one["status"] == "True"
            for one in status.get("conditions") or []
        ),
        index=None if index is None else int(index),
        pod=pod,
    )


def is_indexed(job: Mapping[str, Any]) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def condition(job: Mapping[str, Any], *kinds: str) -> Mapping[str, Any] | None:
    """The first of the conditions that a Job has and that is true."""
    held = (job.get("status") or {}).get("conditions") or []
    for kind in kinds:
        for one in held:
            if one["type"] == kind and one["status"] == "True":
                return dict(one)
    return None


def replaces_late(job: Mapping[str, Any]) -> bool:
    """Whether a pod that is being deleted still keeps its place."""
    default = "Failed" if job["spec"].get("podFailurePolicy") else "TerminatingOrFailed"
    return bool(job["spec"].get("podReplacementPolicy", default) == "Failed")


def _codes(pod: Mapping[str, Any], name: str) -> Iterable[int]:
    status = pod.get("status") or {}
    both = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for one in both:
        ended = (one.get("state") or {}).get("terminated")
        if ended and ended["exitCode"] and name in ("", one["name"]):
            yield ended["exitCode"]


def _applies(rule: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    """What of a pod a rule of a failure policy is about; "" if nothing."""
    if on_codes := rule.get("onExitCodes"):
        for code in _codes(pod, on_codes.get("containerName", "")):
            if (code in on_codes["values"]) == (on_codes["operator"] == "In"):
                return f"exit code {code}"
    for pattern in rule.get("onPodConditions") or []:
        for one in (pod.get("status") or {}).get("conditions") or []:
            if (one["type"], one["status"]) == (pattern["type"], pattern.get("status", "True")):
                return f"condition {one['type']}"
    return ""


def policy_for(job: Mapping[str, Any], pod: Mapping[str, Any]) -> tuple[str, str]:
    """What is done about a failed pod (``Count`` without a rule for it), and the sentence."""
    meta = pod["metadata"]
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or []
    for number, rule in enumerate(rules):
        if what := _applies(rule, pod):
            told = (
                f"{'Container' if 'exit' in what else 'Pod'} {meta['namespace']}/{meta['name']} "
                f"has {what} matching {rule['action']} rule at index {number}"
            )
            return rule["action"], told
    return "Count", ""


def succeeds(job: Mapping[str, Any], succeeded: set[int]) -> str:
    """The sentence of the rule of a success policy that is met; "" if none is."""
    rules = (job["spec"].get("successPolicy") or {}).get("rules") or []
    for number, rule in enumerate(rules):
        of = rule.get("succeededIndexes")
        counted = succeeded if of is None else succeeded & set(indexes(of))
        wanted = rule.get("succeededCount")
        if wanted is None:
            wanted = len(set(indexes(of or "")))
        if len(counted) >= wanted and (wanted or of):
            return f"Matched rules at index {number}"
    return ""


def indexes(text: str) -> list[int]:
    """The numbers of a text such as ``1,3-5``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def written(numbers: Iterable[int]) -> str:
    """Numbers as ``indexes`` reads them."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(
        str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}"
        for first, last in parts
    )


def new_pod(job: Mapping[str, Any], index: int | None) -> dict[str, Any]:
    """A pod of a Job."""
    template = copy.deepcopy(job["spec"]["template"])
    meta, spec = dict(template.get("metadata") or {}), template["spec"]
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    labels = dict(meta.get("labels") or {})
    for key, value in (("controller-uid", uid), ("job-name", name)):
        labels |= {key: value, f"batch.kubernetes.io/{key}": value}
    annotations = dict(meta.get("annotations") or {})
    stem = name
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        stem = f"{name}-{index}"
        spec.setdefault("hostname", stem)
        own = {
            "name": "JOB_COMPLETION_INDEX",
            "valueFrom": {"fieldRef": {"apiVersion": "v1",
                                       "fieldPath": f"metadata.labels['{INDEX}']"}},
        }  # fmt: skip
        for one in [*(spec.get("initContainers") or []), *spec["containers"]]:
            if all(known["name"] != own["name"] for known in one.get("env") or []):
                one["env"] = [*(one.get("env") or []), own]
    tail = "".join(random.choices(_LETTERS, k=5))
    return {
        "metadata": {
            **{key: meta[key] for key in ("finalizers",) if key in meta},
            "name": f"{stem[: _LONGEST - 6]}-{tail}",
            "generateName": f"{stem}-",
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid,
                    "controller": True, "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }  # fmt: skip
