"""What a pipeline may say of Kubernetes, as the SDK's extension for it writes it.

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
        raise ValueError(f"{path!r} is no absolute path")
    return path


def _label(name: str) -> str:
    if not _LABEL.match(name):
        raise ValueError(f"{name!r} is no name: small letters, digits and hyphens, 63 at most")
    return name


def _variable(name: str) -> str:
    if not _VARIABLE.match(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    return name


def _amount(text: str) -> str:
    try:
        quantity(text)
    except BadInputError as error:
        raise ValueError(f"{text!r} is no quantity; write it like 5Gi") from error
    return text


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is no path within a volume")
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


class Form(BaseModel):
    """A group of settings, in the names of JSON; unknown ones are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def plain(self) -> dict[str, Any]:
        """What is set, as Kubernetes names it."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


class Output(Form):
    """An output of another task of the same DAG."""

    producer_task: Name
    output_parameter_key: Name


class Constant(Form):
    """A value that is fixed."""

    constant: Any = None


class Value(Form):
    """Where a value comes from: a constant, an input of the DAG, or an output of a task in it."""

    runtime_value: Constant | None = None
    component_input_parameter: str | None = None
    task_output_parameter: Output | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError(
                "it has to be one of runtimeValue, componentInputParameter and taskOutputParameter"
            )
        return self


class Named(Form):
    """Something whose name is fixed, or is a value; the SDK writes both for a fixed one."""

    @property
    def name(self) -> Value:
        """Where the name comes from."""
        raise NotImplementedError

    def source(self, fixed: str, parameter: Value | None) -> Value:
        """Where the name comes from."""
        if parameter is not None:
            return parameter
        return Value(runtime_value=Constant(constant=fixed))


class _Secret(Named):
    secret_name: str = ""
    secret_name_parameter: Value | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if not self.secret_name and self.secret_name_parameter is None:
            raise ValueError("it has neither secretName nor secretNameParameter")
        return self

    @property
    def name(self) -> Value:
        """Where the secret's name comes from."""
        return self.source(self.secret_name, self.secret_name_parameter)


class _ConfigMap(Named):
    config_map_name: str = ""
    config_map_name_parameter: Value | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if not self.config_map_name and self.config_map_name_parameter is None:
            raise ValueError("it has neither configMapName nor configMapNameParameter")
        return self

    @property
    def name(self) -> Value:
        """Where the config map's name comes from."""
        return self.source(self.config_map_name, self.config_map_name_parameter)


class SecretVariable(Form):
    """Which key of a secret becomes which variable."""

    secret_key: Name
    env_var: Variable


class ConfigMapVariable(Form):
    """Which key of a config map becomes which variable."""

    config_map_key: Name
    env_var: Variable


class SecretAsEnv(_Secret):
    """A secret, as environment variables."""

    key_to_env: list[SecretVariable] = []
    optional: bool | None = None


class SecretAsVolume(_Secret):
    """A secret, as files."""

    mount_path: Path
    optional: bool = False


class ImagePullSecret(_Secret):
    """A secret that images are pulled with."""


class ConfigMapAsEnv(_ConfigMap):
    """A config map, as environment variables."""

    key_to_env: list[ConfigMapVariable] = []
    optional: bool | None = None


class ConfigMapAsVolume(_ConfigMap):
    """A config map, as files."""

    mount_path: Path
    optional: bool = False


class PvcMount(Named):
    """A claim that is mounted."""

    mount_path: Path
    sub_path: Annotated[str, AfterValidator(_inside)] = ""
    pvc_name_parameter: Value | None = None
    constant: str | None = None
    component_input_parameter: str | None = None
    task_output_parameter: Output | None = None

    @model_validator(mode="after")
    def _has_name(self) -> Self:
        if self._old() is None and self.pvc_name_parameter is None:
            raise ValueError("it has no pvcNameParameter, which names the claim")
        return self

    def _old(self) -> Value | None:
        if self.constant:
            return Value(runtime_value=Constant(constant=self.constant))
        if self.component_input_parameter:
            return Value(component_input_parameter=self.component_input_parameter)
        if self.task_output_parameter is not None:
            return Value(task_output_parameter=self.task_output_parameter)
        return None

    @property
    def name(self) -> Value:
        """Where the claim's name comes from."""
        old = self._old()
        return self.source("", self.pvc_name_parameter or old)


class Toleration(Form):
    """A taint of nodes that is put up with."""

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


class TolerationSetting(Form):
    """A toleration, or where one or a list of them comes from."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None
    toleration_json: Value | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.toleration_json is None:
            self.fixed()
        return self

    def fixed(self) -> Toleration:
        """The toleration itself."""
        return Toleration.model_validate(self.model_dump(exclude={"toleration_json"}))


class NodeSelector(Form):
    """Labels that nodes must have."""

    labels: dict[str, str] = {}
    node_selector_json: Value | None = None


class Requirement(Form):
    """What a label or a field must be."""

    key: Name
    operator: Operator
    values: list[str] = []


class NodeAffinityTerm(Form):
    """What nodes must be like; or should be, with a weight."""

    match_expressions: list[Requirement] = []
    match_fields: list[Requirement] = []
    weight: Weight | None = None
    node_affinity_json: Value | None = None


class PodAffinityTerm(Form):
    """Which pods to be near to, or away from."""

    match_pod_expressions: list[Requirement] = []
    match_pod_labels: dict[str, str] = {}
    topology_key: Name
    namespaces: list[str] = []
    match_namespace_expressions: list[Requirement] = []
    match_namespace_labels: dict[str, str] = {}
    weight: Weight | None = None
    anti: bool = False


class PodMetadata(Form):
    """Labels and annotations."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class FieldPathAsEnv(Form):
    """A fact of the pod, as an environment variable."""

    name: Variable
    field_path: Name


class EmptyDirMount(Form):
    """An empty folder of the pod's own."""

    volume_name: Label
    mount_path: Path
    medium: str = ""
    size_limit: Amount | None = None


class GenericEphemeralVolume(Form):
    """A volume that lives as long as the pod."""

    volume_name: Label
    mount_path: Path
    access_modes: Annotated[list[AccessMode], Field(min_length=1)]
    size: Amount
    default_storage_class: bool = False
    storage_class_name: str = ""
    metadata: PodMetadata = PodMetadata()


class SharedMemory(Form):
    """Memory that processes of the pod share."""

    volume_name: Label = "shared-memory"
    size: Amount | None = None


class SecurityContext(Form):
    """Whom the container runs as."""

    run_as_user: Identity | None = None
    run_as_group: Identity | None = None
    run_as_non_root: bool | None = None


class ResourceClaim(Form):
    """Devices that a pod is given by a claim of Kubernetes."""

    name: str = ""
    resource_claim_name: str = ""
    resource_claim_template_name: str = ""

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if bool(self.resource_claim_name) == bool(self.resource_claim_template_name):
            raise ValueError("it has to be one of resourceClaimName and resourceClaimTemplateName")
        return self

    def plain(self) -> dict[str, Any]:
        """It with a name of its own, which a pod must have."""
        of = self.resource_claim_name or self.resource_claim_template_name
        return {"name": self.name or of, **super().plain()}


class ResourceClaimSetting(Form):
    """A resource claim, or where one or a list of them comes from."""

    resource_claim_template_name: str = ""
    resource_claim_json: Value | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.resource_claim_json is None:
            self.fixed()
        return self

    def fixed(self) -> ResourceClaim:
        """The claim itself."""
        return ResourceClaim(resource_claim_template_name=self.resource_claim_template_name)


class Settings(Form):
    """All that is said of one executor."""

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
