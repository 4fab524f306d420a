"""The scheduler: which node a pod goes to, or why none will have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from tests.cluster.control_loop import ControlLoop
from tests.cluster.events import Teller
from tests.cluster.pod_status import merged
from tests.cluster.quantities import pod_requests, quantity
from tests.cluster.store import Store

_OVER = ("Succeeded", "Failed")
_REPELS = ("NoSchedule", "NoExecute")
_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
_UNHELPFUL = (_AFFINITY, "node(s) were unschedulable", "node(s) had untolerated taint")


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    """Whether one of a pod's tolerations is for a taint."""
    for one in tolerations:
        if one.get("effect") and one["effect"] != taint["effect"]:
            continue
        if one.get("key") and one["key"] != taint["key"]:
            continue
        exists = one.get("operator", "Equal") == "Exists"
        if exists or (one.get("key") and one.get("value", "") == taint.get("value", "")):
            return True
    return False


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values") or []
    has = key in labels
    if rule["operator"] in ("Gt", "Lt"):
        try:
            own, bound = int(labels.get(key, "")), int(values[0])
        except ValueError:
            return False
        return own > bound if rule["operator"] == "Gt" else own < bound
    return {
        "In": has and labels.get(key) in values,
        "NotIn": labels.get(key) not in values if has else True,
        "Exists": has,
        "DoesNotExist": not has,
    }[rule["operator"]]


def _matches(term: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    rules = term.get("matchExpressions") or []
    field_rules = term.get("matchFields") or []
    if not rules and not field_rules:
        return False
    return all(_holds(rule, labels) for rule in rules) and all(
        _holds(rule, fields) for rule in field_rules
    )


def wants(spec: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether a pod's own rules allow a node."""
    labels = node["metadata"].get("labels") or {}
    selector = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity is None:
        return True
    return any(_matches(term, node) for term in affinity["nodeSelectorTerms"])


def _free(node: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> dict[str, Fraction]:
    free = {name: quantity(text) for name, text in node["status"]["allocatable"].items()}
    for pod in pods:
        free["pods"] -= 1
        for name, amount in pod_requests(pod["spec"]).items():
            free[name] = free.get(name, Fraction(0)) - amount
    return free


def reasons(
    pod: Mapping[str, Any], node: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]
) -> list[str]:
    """Why a node will not have a pod, as the scheduler says it; none if it will."""
    spec, tolerations = pod["spec"], pod["spec"].get("tolerations") or []
    unschedulable = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if node["spec"].get("unschedulable") and not tolerates(tolerations, unschedulable):
        return ["node(s) were unschedulable"]
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] in _REPELS and not tolerates(tolerations, taint):
            told = f"{taint['key']}: {taint.get('value', '')}"
            return [f"node(s) had untolerated taint {{{told}}}"]
    if not wants(spec, node):
        return [_AFFINITY]
    free = _free(node, pods)
    short = [
        f"Insufficient {name}"
        for name, amount in pod_requests(spec).items()
        if amount > 0 and amount > free.get(name, 0)
    ]
    return ["Too many pods", *short] if free.get("pods", 1) < 1 else short


def refusal(found: Mapping[str, Sequence[str]]) -> str:
    """The scheduler's sentence, of the reasons of each node."""
    total = len(found)
    if not total:
        return "no nodes available to schedule pods"
    counts = Counter(reason for reasons in found.values() for reason in reasons)
    told = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    unhelpful = sum(any(one.startswith(_UNHELPFUL) for one in each) for each in found.values())
    victims = {
        "No preemption victims found for incoming pod": total - unhelpful,
        "Preemption is not helpful for scheduling": unhelpful,
    }
    preemption = ", ".join(f"{count} {why}" for why, count in victims.items() if count)
    return (
        f"0/{total} nodes are available: {told}. preemption: 0/{total} nodes are available: "
        f"{preemption}."
    )


class Scheduler(ControlLoop):
    """Binds pods to nodes, oldest first; those with a higher priority before them."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._teller = Teller(store, "default-scheduler")

    async def _go_on(self) -> None:
        seen = -1
        while True:
            changes = self._store.since(seen) if seen >= 0 else None
            seen = self._store.revision
            if changes is None or any(_matters(one) for one in changes):
                self.schedule()
            await self._store.changed(seen)

    def schedule(self) -> None:
        """Try every pod that has no node once."""
        waiting = [
            pod
            for pod in self._store.list("Pod", fields="spec.nodeName=")
            if "deletionTimestamp" not in pod["metadata"]
            and not pod["spec"].get("schedulingGates")
            and (pod.get("status") or {}).get("phase", "Pending") not in _OVER
        ]
        waiting.sort(
            key=lambda pod: (
                -(pod["spec"].get("priority") or 0),
                pod["metadata"]["creationTimestamp"],
            )
        )
        for pod in waiting:
            self._try(pod)

    def _try(self, pod: dict[str, Any]) -> None:
        problem = self._volumes(pod)
        nodes = self._store.list("Node")
        if problem:
            told = (
                f"0/{len(nodes)} nodes are available: {problem}. preemption: 0/{len(nodes)} nodes"
            )
            self._refuse(pod, f"{told} are available: {len(nodes)} Preemption is not helpful for "
                              "scheduling.")  # fmt: skip
            return
        bound: dict[str, list[dict[str, Any]]] = {}
        for other in self._store.each("Pod"):
            if (other.get("status") or {}).get("phase") not in _OVER:
                bound.setdefault(other["spec"].get("nodeName", ""), []).append(other)
        found = {
            node["metadata"]["name"]: reasons(pod, node, bound.get(node["metadata"]["name"], []))
            for node in nodes
        }
        fits = [name for name, why in found.items() if not why]
        if fits:
            self._bind(pod, min(fits, key=lambda name: (len(bound.get(name, [])), name)))
        else:
            self._refuse(pod, refusal(found))

    def _volumes(self, pod: Mapping[str, Any]) -> str:
        """Why a pod's claims do not let it be scheduled; "" if they do."""
        meta = pod["metadata"]
        for volume in pod["spec"].get("volumes") or []:
            own = "ephemeral" in volume
            if own:
                name = f"{meta['name']}-{volume['name']}"
            elif "persistentVolumeClaim" in volume:
                name = volume["persistentVolumeClaim"]["claimName"]
            else:
                continue
            claim = self._store.find("PersistentVolumeClaim", meta["namespace"], name)
            if claim is None:
                missing = f'persistentvolumeclaim "{name}"'
                if own:
                    return f"waiting for ephemeral volume controller to create the {missing}"
                return f"{missing} not found"
            if (claim.get("status") or {}).get("phase") == "Bound":
                continue
            kind = self._store.find(
                "StorageClass", None, claim["spec"].get("storageClassName", "")
            )
            if kind is None or kind.get("volumeBindingMode") != "WaitForFirstConsumer":
                return "pod has unbound immediate PersistentVolumeClaims"
        return ""

    def _refuse(self, pod: dict[str, Any], message: str) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        condition = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastProbeTime": None,
        }  # fmt: skip
        old = status.get("conditions") or []
        if any(one.get("message") == message for one in old):
            return
        status = {**status, "phase": "Pending", "conditions": merged(old, [condition])}
        self._store.set_status("Pod", meta["namespace"], meta["name"], status)
        self._teller.tell(pod, "FailedScheduling", message, "Warning")

    def _bind(self, pod: dict[str, Any], node: str) -> None:
        meta = pod["metadata"]
        self._choose_for_claims(pod, node)
        key = ("Pod", meta["namespace"], meta["name"])
        had = self._store.objects[key]
        condition = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
        status = had.get("status") or {}
        held = merged(status.get("conditions") or [], [condition])
        new = {
            **had,
            "metadata": dict(had["metadata"]),
            "spec": {**had["spec"], "nodeName": node},
            "status": {**status, "phase": "Pending", "conditions": held},
        }
        self._store.keep(key, had, new)  # the spec is closed to everybody else
        told = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self._teller.tell(pod, "Scheduled", told)

    def _choose_for_claims(self, pod: Mapping[str, Any], node: str) -> None:
        """Let claims that wait for their first pod be bound."""
        meta = pod["metadata"]
        for volume in pod["spec"].get("volumes") or []:
            name = f"{meta['name']}-{volume['name']}" if "ephemeral" in volume else (
                volume.get("persistentVolumeClaim") or {}).get("claimName", "")  # fmt: skip
            claim = self._store.find("PersistentVolumeClaim", meta["namespace"], name)
            if claim is not None and (claim.get("status") or {}).get("phase") != "Bound":
                chosen = {
                    "metadata": {"annotations": {"volume.kubernetes.io/selected-node": node}}
                }
                self._store.patch("PersistentVolumeClaim", meta["namespace"], name, chosen)


def _matters(change: Any) -> bool:
    """Whether a change may let a pod be scheduled, or is a pod to be scheduled."""
    if change.kind == "Pod":
        over = (change.obj.get("status") or {}).get("phase") in _OVER
        return change.type != "MODIFIED" or over or not change.obj["spec"].get("nodeName")
    return change.kind in ("Node", "PersistentVolumeClaim", "StorageClass")
