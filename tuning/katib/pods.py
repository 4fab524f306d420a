"""Resources of a trial: its containers and the number of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.katib.document import Tree, finite
from tuning.katib.metrics import Say

MARK = "${trialParameters."

# Of the machines that work together these run the script; others serve or start them.
_WORKING = frozenset({"master", "chief", "worker"})

# Fields without a meaning for a script, or that are reported elsewhere.
_SILENT = frozenset(
    {"name", "image", "command", "args", "env", "resources", "imagePullPolicy", "ports",
     "terminationMessagePath", "terminationMessagePolicy", "numNodes", "numProcPerNode",
     "resourcesPerNode", "containers", "initContainers", "restartPolicy", "dnsPolicy",
     "activeDeadlineSeconds", "schedulerName", "securityContext", "terminationGracePeriodSeconds"}
)  # fmt: skip


@dataclass(frozen=True)
class TrialContainer:
    """A container, and the pod that it stands in."""

    fields: Mapping[str, Tree]
    pod: Mapping[str, Tree]

    @property
    def name(self) -> str:
        """Its name; its image's where it has none."""
        return str(self.fields.get("name") or self.image)

    @property
    def image(self) -> str:
        """Its image; "" if another place names it."""
        return str(self.fields.get("image") or "")

    @property
    def words(self) -> list[str]:
        """Its command and arguments."""
        lists = (self.fields.get(key) for key in ("command", "args"))
        return [str(word) for one in lists if isinstance(one, list) for word in one if word]

    @property
    def varied(self) -> bool:
        """Whether an argument is a parameter's value."""
        return any(MARK in word for word in self.words)


def containers(tree: Tree, around: Mapping[str, Tree] | None = None) -> Iterator[TrialContainer]:
    """Every container of a trial, whatever its kind, in the document's order."""
    if isinstance(tree, dict):
        one = TrialContainer(tree, around or {})
        if isinstance(tree.get("image"), str) or one.varied:
            yield one
        for inner in tree.values():
            yield from containers(inner, tree)
    elif isinstance(tree, list):
        for inner in tree:
            yield from containers(inner, around)


def choose(found: Sequence[TrialContainer], primary: str) -> TrialContainer | None:
    """The container that trains: one that takes parameters, the primary one rather than others."""
    fitness = {id(one): (one.varied, one.name == primary) for one in found}
    best = max(found, key=lambda one: fitness[id(one)], default=None)
    if best is None or (len(found) > 1 and not any(fitness[id(best)])):
        return None
    return best


def resources(trial: Mapping[str, Tree], container: TrialContainer, say: Say) -> dict[str, Any]:
    """The flow's ``resources``."""
    spec = _mapping(trial.get("spec"))
    found: dict[str, Any] = {}
    nodes = _nodes(spec, say)
    if nodes > 1:
        found["nodes"] = nodes
    processes = _processes(spec)
    if processes > 1:
        found["processes_per_node"] = processes
    if container.image:
        found["image"] = container.image
    amounts = _amounts(container.fields)
    if amounts:
        given = ", ".join(f"{name} {amount}" for name, amount in amounts.items())
        say(f"The container's resources ({given}): give resources.instance_type.")
    pod = container.pod if "containers" in container.pod else {}
    for what, fields in (("container", container.fields), ("pod", pod)):
        left = [name for name, value in fields.items() if name not in _SILENT and value]
        if left:
            say(
                f"The {what}'s {', '.join(left)}: a script here runs in no pod, and its data come "
                "from datasets."
            )
    return found


def deadline_minutes(trial: Mapping[str, Tree], container: TrialContainer) -> float | None:
    """Time limit of a trial in minutes; None for none."""
    spec = _mapping(trial.get("spec"))
    places = (spec, _mapping(spec.get("runPolicy")), container.pod)
    seconds = [_number(place.get("activeDeadlineSeconds")) for place in places]
    given = [one for one in seconds if one is not None and one > 0]
    return min(given) / 60 if given else None


def retries(trial: Mapping[str, Tree]) -> float:
    """Number of times that Kubernetes would retry a failed trial."""
    spec = _mapping(trial.get("spec"))
    places = (spec, _mapping(spec.get("runPolicy")))
    return max(_number(place.get("backoffLimit")) or 0 for place in places)


def _amounts(fields: Mapping[str, Tree]) -> dict[str, Tree]:
    """What a container asks for of each resource."""
    asked = (_mapping(fields.get("resources")), _mapping(fields.get("resourcesPerNode")))
    found: dict[str, Tree] = {}
    for one in asked:
        for key in ("requests", "limits"):
            found |= _mapping(one.get(key))
    plain = {name: amount for name, amount in asked[1].items() if isinstance(amount, str)}
    return found | plain


def _nodes(spec: Mapping[str, Tree], say: Say) -> int:
    """How many machines work together."""
    nodes = _count(_mapping(spec.get("trainer")).get("numNodes"), 1)
    counted = 0
    for key, roles in spec.items():
        for role, replica in _mapping(roles).items() if key.endswith("ReplicaSpecs") else ():
            count = _count(_mapping(replica).get("replicas"), 1)
            if role.lower() in _WORKING:
                counted += count
            elif count:
                say(f"{key}.{role}, of {count}: on every node here the same script runs.")
    if max(_count(spec.get(key), 1) for key in ("parallelism", "completions")) > 1:
        say("The Job's parallelism and completions: a trial is one run of the script.")
    return max(counted, nodes)


def _processes(spec: Mapping[str, Tree]) -> int:
    """How many processes each machine starts; 1 if that is not a number, such as ``auto``."""
    trainer = _mapping(spec.get("trainer"))
    return max(_count(spec.get("nprocPerNode"), 1), _count(trainer.get("numProcPerNode"), 1))


def _mapping(tree: Tree) -> dict[str, Tree]:
    return tree if isinstance(tree, dict) else {}


def _number(tree: Tree) -> float | None:
    return finite(tree) if isinstance(tree, str) else None


def _count(tree: Tree, default: int) -> int:
    number = _number(tree)
    return default if number is None else int(number)
