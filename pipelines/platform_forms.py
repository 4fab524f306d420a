"""Models of a pipeline's Kubernetes settings, as the SDK's extension writes them.

The names are those of its ``KubernetesExecutorConfig``. Whole numbers may come as texts, as the
JSON of protocol buffers has them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from infra.errors import BadInputError
from pipelines.container import quantity

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/") or ":" in path:
        raise ValueError(f"{path!r} is not an absolute path")
    return path


def _label(name: str) -> str:
    if not _LABEL.match(name):
        raise ValueError(f"{name!r} is not a name: small letters, digits and hyphens, 63 at most")
    return name


def _variable(name: str) -> str:
    if not _VARIABLE.match(name):
        raise ValueError(f"{name!r} is not a name of an environment variable")
    return name


def _amount(text: str) -> str:
    try:
        quantity(text)
    except BadInputError as error:
        raise ValueError(f"{text!r} is not a quantity; write it like 5Gi") from error
    return text


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a path within a volume")
    return path


Path = Annotated[str, AfterValidator(_absolute)]
Label = Annotated[str, AfterValidator(_label)]
Variable = Annotated[str, AfterValidator(_variable)]
Amount = Annotated[str, AfterValidator(_amount)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
AccessMode = Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]
Effect = Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]
Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
Weight = Annotated[int, Field(ge=1, le=100)]
Identity = Annotated[int, Field(ge=0, lt=2**63)]


class SettingsModel(BaseModel):
    """Base model of settings, in JSON names; unknown fields are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def plain(self) -> dict[str, Any]:
        """Return the set fields, in Kubernetes' names."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


class TaskOutputSource(SettingsModel):
    """Reference to an output of another task of the same DAG."""

    producer_task: Name
    output_parameter_key: Name


class Constant(SettingsModel):
    """A fixed value."""

    constant: Any = None


class ValueSource(SettingsModel):
    """Source of a value: a constant, an input of the DAG, or an output of a task."""

    runtime_value: Constant | None = None
    component_input_parameter: str | None = None
    task_output_parameter: TaskOutputSource | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                "it has to be one of runtimeValue, componentInputParameter and taskOutputParameter"
            )
        return self


class NamedResource(SettingsModel):
    """Object with a fixed or a resolved name; the SDK writes both for a fixed one."""

    @property
    def name(self) -> ValueSource:
        """Source of the name."""
        raise NotImplementedError

    def source(self, fixed: str, parameter: ValueSource | None) -> ValueSource:
        """Source of the name."""
        if parameter is not None:
            return parameter
        return ValueSource(runtime_value=Constant(constant=fixed))


class _Secret(NamedResource):
    secret_name: str = ""
    secret_name_parameter: ValueSource | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if not self.secret_name and self.secret_name_parameter is None:
            raise ValueError("it has neither secretName nor secretNameParameter")
        return self

    @property
    def name(self) -> ValueSource:
        """Source of the Secret's name."""
        return self.source(self.secret_name, self.secret_name_parameter)


class _ConfigMap(NamedResource):
    config_map_name: str = ""
    config_map_name_parameter: ValueSource | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if not self.config_map_name and self.config_map_name_parameter is None:
            raise ValueError("it has neither configMapName nor configMapNameParameter")
        return self

    @property
    def name(self) -> ValueSource:
        """Source of the ConfigMap's name."""
        return self.source(self.config_map_name, self.config_map_name_parameter)


class SecretVariable(SettingsModel):
    """Variable from a key of a Secret."""

    secret_key: Name
    env_var: Variable


class ConfigMapVariable(SettingsModel):
    """Variable from a key of a ConfigMap."""

    config_map_key: Name
    env_var: Variable


class SecretAsEnv(_Secret):
    """Secret as environment variables."""

    key_to_env: list[SecretVariable] = []
    optional: bool | None = None


class SecretAsVolume(_Secret):
    """Secret as a volume."""

    mount_path: Path
    optional: bool = False


class ImagePullSecret(_Secret):
    """Image pull secret."""


class ConfigMapAsEnv(_ConfigMap):
    """ConfigMap as environment variables."""

    key_to_env: list[ConfigMapVariable] = []
    optional: bool | None = None


class ConfigMapAsVolume(_ConfigMap):
    """ConfigMap as a volume."""

    mount_path: Path
    optional: bool = False


class PvcMount(NamedResource):
    """Mount of a persistent volume claim."""

    mount_path: Path
    sub_path: Annotated[str, AfterValidator(_inside)] = ""
    pvc_name_parameter: ValueSource | None = None
    constant: str | None = None
    component_input_parameter: str | None = None
    task_output_parameter: TaskOutputSource | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if self._old() is None and self.pvc_name_parameter is None:
            raise ValueError("it has no pvcNameParameter, which names the claim")
        return self

    def _old(self) -> ValueSource | None:
        if self.constant:
            return ValueSource(runtime_value=Constant(constant=self.constant))
        if self.component_input_parameter:
            return ValueSource(component_input_parameter=self.component_input_parameter)
        if self.task_output_parameter is not None:
            return ValueSource(task_output_parameter=self.task_output_parameter)
        return None

    @property
    def name(self) -> ValueSource:
        """Source of the claim's name."""
        old = self._old()
        return self.source("", self.pvc_name_parameter or old)


class TolerationSettings(SettingsModel):
    """Toleration of a taint."""

    key: str = ""
    operator: Literal["", "Equal", "Exists"] = ""
    value: str = ""
    effect: Effect = ""
    toleration_seconds: int | None = None

    @model_validator(mode="after")
    def _matches(self) -> Self:
        if not self.key and self.operator != "Exists":
            raise ValueError("without a key its operator is Exists")
        if self.operator == "Exists" and self.value:
            raise ValueError("with the operator Exists it has no value")
        return self


class TolerationSetting(SettingsModel):
    """A toleration, or the source of one or several."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None
    toleration_json: ValueSource | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.toleration_json is None:
            self.fixed()
        return self

    def fixed(self) -> TolerationSettings:
        """The fixed toleration."""
        return TolerationSettings.model_validate(self.model_dump(exclude={"toleration_json"}))


class NodeSelector(SettingsModel):
    """Node selector."""

    labels: dict[str, str] = {}
    node_selector_json: ValueSource | None = None


class Requirement(SettingsModel):
    """Match expression of a label or a field."""

    key: Name
    operator: Operator
    values: list[str] = []


class NodeAffinityTerm(SettingsModel):
    """Node affinity term: required, or preferred with a weight."""

    match_expressions: list[Requirement] = []
    match_fields: list[Requirement] = []
    weight: Weight | None = None
    node_affinity_json: ValueSource | None = None


class PodAffinityTerm(SettingsModel):
    """Pod affinity or anti-affinity term."""

    match_pod_expressions: list[Requirement] = []
    match_pod_labels: dict[str, str] = {}
    topology_key: Name
    namespaces: list[str] = []
    match_namespace_expressions: list[Requirement] = []
    match_namespace_labels: dict[str, str] = {}
    weight: Weight | None = None
    anti: bool = False


class PodMetadata(SettingsModel):
    """Labels and annotations."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class FieldPathAsEnv(SettingsModel):
    """Variable from a field of the pod."""

    name: Variable
    field_path: Name


class EmptyDirMount(SettingsModel):
    """emptyDir volume."""

    volume_name: Label
    mount_path: Path
    medium: str = ""
    size_limit: Amount | None = None


class GenericEphemeralVolume(SettingsModel):
    """Generic ephemeral volume."""

    volume_name: Label
    mount_path: Path
    access_modes: Annotated[list[AccessMode], Field(min_length=1)]
    size: Amount
    default_storage_class: bool = False
    storage_class_name: str = ""
    metadata: PodMetadata = PodMetadata()


class SharedMemory(SettingsModel):
    """Shared memory of the pod."""

    volume_name: Label = "shared-memory"
    size: Amount | None = None


class SecurityContext(SettingsModel):
    """Security context of the container."""

    run_as_user: Identity | None = None
    run_as_group: Identity | None = None
    run_as_non_root: bool | None = None


class ResourceClaim(SettingsModel):
    """Resource claim of devices."""

    name: str = ""
    resource_claim_name: str = ""
    resource_claim_template_name: str = ""

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if bool(self.resource_claim_name) == bool(self.resource_claim_template_name):
            raise ValueError("it has to be one of resourceClaimName and resourceClaimTemplateName")
        return self

    def plain(self) -> dict[str, Any]:
        """Return the fields with a name, which a pod requires."""
        of = self.resource_claim_name or self.resource_claim_template_name
        return {"name": self.name or of, **super().plain()}


class ResourceClaimSetting(SettingsModel):
    """A resource claim, or the source of one or several."""

    resource_claim_template_name: str = ""
    resource_claim_json: ValueSource | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.resource_claim_json is None:
            self.fixed()
        return self

    def fixed(self) -> ResourceClaim:
        """The fixed claim."""
        return ResourceClaim(resource_claim_template_name=self.resource_claim_template_name)


class KubernetesSettings(SettingsModel):
    """Kubernetes settings of one executor."""

    secret_as_volume: list[SecretAsVolume] = []
    secret_as_env: list[SecretAsEnv] = []
    pvc_mount: list[PvcMount] = []
    node_selector: NodeSelector = NodeSelector()
    pod_metadata: PodMetadata = PodMetadata()
    image_pull_secret: list[ImagePullSecret] = []
    image_pull_policy: Literal["", "Always", "Never", "IfNotPresent"] = ""
    config_map_as_volume: list[ConfigMapAsVolume] = []
    config_map_as_env: list[ConfigMapAsEnv] = []
    active_deadline_seconds: Annotated[int, Field(ge=0, lt=2**31)] = 0
    field_path_as_env: list[FieldPathAsEnv] = []
    tolerations: list[TolerationSetting] = []
    generic_ephemeral_volume: list[GenericEphemeralVolume] = []
    node_affinity: list[NodeAffinityTerm] = []
    pod_affinity: list[PodAffinityTerm] = []
    enabled_shared_memory: SharedMemory | None = None
    empty_dir_mounts: list[EmptyDirMount] = []
    security_context: SecurityContext = SecurityContext()
    pod_resource_claims: list[ResourceClaimSetting] = []
