"""Kubernetes settings of an executor: parsed, checked, and resolved to parts of a pod.

A value of theirs may be an input of the DAG that the task is in, or an output of another task in
it. An optional one that is null switches its setting off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from pipelines import platform_forms as forms
from pipelines.faults import FaultCollector, PipelineFault, PipelineInvalidError, shorten
from pipelines.platform_forms import KubernetesSettings, ValueSource

# Outputs of tasks, by the names of the task and the output.
Outputs = Mapping[tuple[str, str], Any]


def read(config: Mapping[str, Any]) -> KubernetesSettings:
    """Parse the settings of an executor.

    Raises:
        PipelineInvalidError: With all that is wrong.
    """
    try:
        return KubernetesSettings.model_validate(config)
    except ValidationError as error:
        found = list(_faults(error, "kubernetes"))
        raise PipelineInvalidError("The Kubernetes configuration", found) from None


def faults(config: Mapping[str, Any], place: str) -> list[PipelineFault]:
    """List the faults of an executor's settings at ``place``."""
    try:
        KubernetesSettings.model_validate(config)
    except ValidationError as error:
        return list(_faults(error, place))
    return []


def _faults(error: ValidationError, place: str) -> Iterator[PipelineFault]:
    for one in error.errors():
        there = place
        for part in one["loc"]:
            there += f"[{part}]" if isinstance(part, int) else f".{part}"
        problem = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            problem = "there is no such setting"
        elif one["type"] not in {"value_error", "missing"}:
            problem += f", not {shorten(one['input'])}"
        yield PipelineFault(there, f"{problem[:1].upper()}{problem[1:]}.")


def values(settings: KubernetesSettings) -> Iterator[ValueSource]:
    """List the values that may refer to inputs or outputs."""
    for one in (
        *settings.secret_as_env,
        *settings.secret_as_volume,
        *settings.config_map_as_env,
        *settings.config_map_as_volume,
        *settings.pvc_mount,
        *settings.image_pull_secret,
    ):
        yield one.name
    loose = (
        settings.node_selector.node_selector_json,
        *(one.toleration_json for one in settings.tolerations),
        *(one.node_affinity_json for one in settings.node_affinity),
        *(one.resource_claim_json for one in settings.pod_resource_claims),
    )
    yield from (one for one in loose if one is not None)


def resolve(
    settings: KubernetesSettings, parameters: Mapping[str, Any], outputs: Outputs | None = None
) -> dict[str, Any]:
    """Resolve the parts of a pod that the settings specify.

    Args:
        settings: The settings.
        parameters: The inputs of the DAG that the task is in; one that is missing is null.
        outputs: The outputs of the tasks of the DAG.

    Returns:
        What is not empty of ``env``, ``volumes``, ``volumeMounts``, ``nodeSelector``,
        ``tolerations``, ``affinity``, ``imagePullSecrets``, ``imagePullPolicy``, ``metadata``
        (``labels`` and ``annotations``), ``activeDeadlineSeconds``, ``securityContext`` and
        ``resourceClaims``, each in the form that a pod has it, or its container.

    Raises:
        PipelineInvalidError: With all values that are missing, or of the wrong kind.
    """
    pod = _PodBuilder(parameters, outputs or {})
    made = {
        "env": pod.env(settings),
        **pod.mounted(settings),
        "nodeSelector": pod.node_selector(settings),
        "tolerations": pod.tolerations(settings),
        "affinity": pod.affinity(settings),
        "imagePullSecrets": [{"name": name} for name in pod.pull_secrets(settings)],
        "imagePullPolicy": settings.image_pull_policy,
        "metadata": settings.pod_metadata.plain(),
        "activeDeadlineSeconds": settings.active_deadline_seconds,
        "securityContext": settings.security_context.plain(),
        "resourceClaims": pod.resource_claims(settings),
    }
    pod.faults.raise_any(
        "The task's Kubernetes configuration",
        "Fix the values of the inputs and outputs that it takes, or the pipeline.",
        code="PlatformInvalid",
    )
    return {key: value for key, value in made.items() if value}


class _PodBuilder:
    """Builder of a pod's parts that collects faults."""

    def __init__(self, parameters: Mapping[str, Any], outputs: Outputs) -> None:
        self.faults = FaultCollector()
        self._parameters = parameters
        self._outputs = outputs

    def _value(self, value: ValueSource, place: str) -> Any:
        if value.component_input_parameter is not None:
            return self._parameters.get(value.component_input_parameter)
        if value.task_output_parameter is not None:
            wanted = value.task_output_parameter
            key = (wanted.producer_task, wanted.output_parameter_key)
            if key not in self._outputs:
                self.faults.add(place, f"The task {key[0]} has left no {key[1]}.")
                return None
            return self._outputs[key]
        return value.runtime_value.constant if value.runtime_value else None

    def _name(self, value: ValueSource, place: str) -> str | None:
        """Resolve a name; None disables its setting."""
        found = self._value(value, place)
        if found is None:
            return None
        if not isinstance(found, str) or not found:
            self.faults.add(place, f"{shorten(found)} is not a name.", "Give a string.")
            return None
        return found

    def env(self, settings: KubernetesSettings) -> list[dict[str, Any]]:
        found = []
        for number, secret in enumerate(settings.secret_as_env):
            name = self._name(secret.name, f"secretAsEnv[{number}]")
            found += [
                _variable(one.env_var, "secretKeyRef", name, one.secret_key, secret.optional)
                for one in secret.key_to_env
                if name
            ]
        for number, config in enumerate(settings.config_map_as_env):
            name = self._name(config.name, f"configMapAsEnv[{number}]")
            found += [
                _variable(
                    two.env_var, "configMapKeyRef", name, two.config_map_key, config.optional
                )
                for two in config.key_to_env
                if name
            ]
        for fact in settings.field_path_as_env:
            source = {"fieldRef": {"fieldPath": fact.field_path}}
            found.append({"name": fact.name, "valueFrom": source})
        return found

    def mounted(self, settings: KubernetesSettings) -> dict[str, list[dict[str, Any]]]:
        """Build volumes and mounts. Volume names are generated: a Secret's may be invalid."""
        volumes: list[dict[str, Any]] = []
        mounts: list[dict[str, Any]] = []

        def add(name: str, source: dict[str, Any], path: str, within: str = "") -> None:
            if path.rstrip("/") in {one["mountPath"].rstrip("/") for one in mounts}:
                self.faults.add(path, "Two volumes are mounted there.", "Move one of them.")
            volumes.append({"name": name, **source})
            mounts.append({"name": name, "mountPath": path, **({"subPath": within} if within
                                                              else {})})  # fmt: skip

        for number, claim in enumerate(settings.pvc_mount):
            name = self._name(claim.name, f"pvcMount[{number}]")
            if name is None:
                self.faults.add(f"pvcMount[{number}]", "The claim's name is missing.")
            add(
                f"claim-{number}",
                {"persistentVolumeClaim": {"claimName": name}},
                claim.mount_path,
                claim.sub_path,
            )
        for number, secret in enumerate(settings.secret_as_volume):
            name = self._name(secret.name, f"secretAsVolume[{number}]")
            if name:
                of = {"secretName": name, "optional": secret.optional}
                add(f"secret-{number}", {"secret": of}, secret.mount_path)
        for number, config in enumerate(settings.config_map_as_volume):
            name = self._name(config.name, f"configMapAsVolume[{number}]")
            if name:
                of = {"name": name, "optional": config.optional}
                add(f"config-map-{number}", {"configMap": of}, config.mount_path)
        for empty in settings.empty_dir_mounts:
            add(empty.volume_name, {"emptyDir": _only(
                medium=empty.medium, sizeLimit=empty.size_limit
            )}, empty.mount_path)  # fmt: skip
        for passing in settings.generic_ephemeral_volume:
            add(passing.volume_name, _ephemeral(passing), passing.mount_path)
        shared = settings.enabled_shared_memory
        if shared is not None:
            source = {"emptyDir": _only(medium="Memory", sizeLimit=shared.size)}
            add(shared.volume_name, source, "/dev/shm")  # noqa: S108 - that is where it is
        return {"volumes": volumes, "volumeMounts": mounts}

    def pull_secrets(self, settings: KubernetesSettings) -> list[str]:
        names = (
            self._name(one.name, f"imagePullSecret[{number}]")
            for number, one in enumerate(settings.image_pull_secret)
        )
        return [name for name in names if name]

    def node_selector(self, settings: KubernetesSettings) -> dict[str, str]:
        source = settings.node_selector.node_selector_json
        if source is None:
            return dict(settings.node_selector.labels)
        found = self._value(source, "nodeSelector")
        if found is None:
            return {}
        if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
            self.faults.add("nodeSelector", f"{shorten(found)} is not a mapping of strings.")
            return {}
        return dict(found)

    def tolerations(self, settings: KubernetesSettings) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number, one in enumerate(settings.tolerations):
            place = f"tolerations[{number}]"
            if one.toleration_json is None:
                found.append(one.fixed().plain())
            else:
                found += self._given(forms.TolerationSettings, one.toleration_json, place)
        return found

    def resource_claims(self, settings: KubernetesSettings) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number, one in enumerate(settings.pod_resource_claims):
            place = f"podResourceClaims[{number}]"
            if one.resource_claim_json is None:
                found.append(one.fixed().plain())
            else:
                found += self._given(forms.ResourceClaim, one.resource_claim_json, place)
        return found

    def _given(
        self, form: type[forms.SettingsModel], value: ValueSource, place: str
    ) -> list[dict[str, Any]]:
        """Resolve a value to a list of settings: one, several, or none."""
        given = self._value(value, place)
        found: list[dict[str, Any]] = []
        for made in given if isinstance(given, list) else [given]:
            if made:
                found += self._formed(form, made, place)
        return found

    def _formed(
        self, form: type[forms.SettingsModel], given: Any, place: str
    ) -> list[dict[str, Any]]:
        try:
            return [form.model_validate(given).plain()]
        except ValidationError as error:
            self.faults.found += _faults(error, place)
            return []

    def affinity(self, settings: KubernetesSettings) -> dict[str, Any]:
        near: list[forms.PodAffinityTerm] = []
        away: list[forms.PodAffinityTerm] = []
        for term in settings.pod_affinity:
            (away if term.anti else near).append(term)
        node = self._node_affinity(settings)
        return _only(
            nodeAffinity=node,
            podAffinity=_pod_affinity(near),
            podAntiAffinity=_pod_affinity(away),
        )

    def _node_affinity(self, settings: KubernetesSettings) -> dict[str, Any]:
        required: list[dict[str, Any]] = []
        preferred: list[dict[str, Any]] = []
        for number, term in enumerate(settings.node_affinity):
            place = f"nodeAffinity[{number}]"
            if term.node_affinity_json is not None:
                given = self._value(term.node_affinity_json, place)
                self._add_affinity(given, place, required, preferred)
                continue
            wanted = _only(
                matchExpressions=[one.plain() for one in term.match_expressions],
                matchFields=[one.plain() for one in term.match_fields],
            )
            if wanted and term.weight is not None:
                preferred.append({"weight": term.weight, "preference": wanted})
            elif wanted:
                required.append(wanted)
        terms = {"nodeSelectorTerms": required} if required else {}
        return _only(
            requiredDuringSchedulingIgnoredDuringExecution=terms,
            preferredDuringSchedulingIgnoredDuringExecution=preferred,
        )

    def _add_affinity(
        self, given: Any, place: str, required: list[Any], preferred: list[Any]
    ) -> None:
        """Add an affinity in Kubernetes' own form."""
        if not given:
            return
        if not isinstance(given, dict):
            self.faults.add(place, f"{shorten(given)} is not an affinity.", "Give a mapping.")
            return
        must = given.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
        should = given.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        terms = must.get("nodeSelectorTerms") if isinstance(must, dict) else None
        if (must and not isinstance(terms, list)) or not isinstance(should, list):
            self.faults.add(place, f"{shorten(given)} is not a node affinity.")
            return
        required += terms or []
        preferred += should


def _variable(
    name: str, kind: str, of: str | None, key: str, optional: bool | None
) -> dict[str, Any]:
    source: dict[str, Any] = {"name": of, "key": key}
    if optional is not None:
        source["optional"] = optional
    return {"name": name, "valueFrom": {kind: source}}


def _only(**parts: Any) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if value}


def _ephemeral(volume: forms.GenericEphemeralVolume) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": list(volume.access_modes),
        "resources": {"requests": {"storage": volume.size}},
    }
    if not volume.default_storage_class:
        spec["storageClassName"] = volume.storage_class_name
    template = _only(metadata=volume.metadata.plain(), spec=spec)
    return {"ephemeral": {"volumeClaimTemplate": template}}


def _pod_affinity(terms: list[forms.PodAffinityTerm]) -> dict[str, Any]:
    required: list[dict[str, Any]] = []
    preferred: list[dict[str, Any]] = []
    for term in terms:
        made = _only(
            labelSelector=_selector(term.match_pod_expressions, term.match_pod_labels),
            topologyKey=term.topology_key,
            namespaces=term.namespaces,
            namespaceSelector=_selector(
                term.match_namespace_expressions, term.match_namespace_labels
            ),
        )
        if term.weight is None:
            required.append(made)
        else:
            preferred.append({"weight": term.weight, "podAffinityTerm": made})
    return _only(
        requiredDuringSchedulingIgnoredDuringExecution=required,
        preferredDuringSchedulingIgnoredDuringExecution=preferred,
    )


def _selector(expressions: list[forms.Requirement], labels: Mapping[str, str]) -> dict[str, Any]:
    return _only(matchExpressions=[one.plain() for one in expressions], matchLabels=dict(labels))
