"""The configuration of a cluster: the YAML file that ``MODELYARD_CLUSTER`` names.

It configures what the pods of all runs have in common. What a single run requests is among its
parameters. Names follow "Object Names and IDs" and "Labels and Selectors" of Kubernetes'
documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.errors import BadInputError
from infra.settings import Settings

_MOST_FAULTS = 5
_PLATFORM_VARIABLES = ("MODELYARD_", "PREFECT_", "MLFLOW_")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA_KEY = re.compile(r"[-._A-Za-z0-9]+")
_IMAGE = re.compile(r"[A-Za-z0-9][^\s\x00-\x1f]*")
_NAS_ID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SECRET_NAME = re.compile(r"(^|_)(PASSWORD|TOKEN|SECRET|SECRET_ACCESS_KEY|SECRET_KEY|API_KEY)$")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


def secrets_among(env: Mapping[str, str]) -> list[str]:
    """List the variables that look like secrets, by name or by a password in a URL."""
    return [
        name
        for name, value in env.items()
        if _SECRET_NAME.search(name.upper()) or _PASSWORD_IN_URL.search(value)
    ]


def _matching(pattern: re.Pattern[str], most: int, rule: str) -> AfterValidator:
    def check(text: str) -> str:
        if len(text) > most or not pattern.fullmatch(text):
            raise ValueError(f"{rule}, of {most} characters at most")
        return text

    return AfterValidator(check)


def _or_empty(validator: AfterValidator) -> AfterValidator:
    def check(text: str) -> str:
        return validator.func(text) if text else text  # type: ignore[call-arg]

    return AfterValidator(check)


def _label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253):
        raise ValueError("what is before the / of a label's key is a DNS name")
    if not (_LABEL_PART.fullmatch(name) and len(name) <= 63):
        raise ValueError("a label's key is letters, digits, -, _ and ., of 63 characters at most")
    return text


_is_label = _matching(_LABEL, 63, "it is lower-case letters, digits and -")
_is_subdomain = _matching(_SUBDOMAIN, 253, "it is lower-case letters, digits, - and .")

_Name = Annotated[str, _is_subdomain]
_Label = Annotated[str, _or_empty(_is_label)]
_NameOrNone = Annotated[str, _or_empty(_is_subdomain)]
_Image = Annotated[str, _or_empty(_matching(_IMAGE, 512, "it is an image without spaces"))]
_LabelKey = Annotated[str, AfterValidator(_label_key)]
_LabelValue = Annotated[
    str, _or_empty(_matching(_LABEL_PART, 63, "a label is letters, digits, -, _ and ."))
]
_Variable = Annotated[
    str, _matching(_VARIABLE, 253, "a variable is letters, digits and _, no digit first")
]
_NasId = Annotated[str, _matching(_NAS_ID, 63, "an id is letters, digits, -, _ and .")]
_Id = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretKey(_Model):
    """One key of a Secret in the cluster."""

    name: _Name
    key: Annotated[str, _matching(_DATA_KEY, 253, "a key is letters, digits, -, _ and .")]


class NasVolume(_Model):
    """Shared file system that pods mount: an NFS export or a PersistentVolumeClaim."""

    server: str = ""
    path: str = ""
    claim: _NameOrNone = ""

    @model_validator(mode="after")
    def _one_kind(self) -> NasVolume:
        nfs = bool(self.server) and bool(self.path)
        if bool(self.server) != bool(self.path) or nfs == bool(self.claim):
            raise ValueError("give either server and path, or claim")
        if nfs and not self.path.startswith("/"):
            raise ValueError("path begins with /")
        return self


class Toleration(_Model):
    """Toleration of a taint by pods."""

    key: _LabelKey | Literal[""] = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: _LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    tolerationSeconds: int | None = None

    @model_validator(mode="after")
    def _whole(self) -> Toleration:
        if not self.key and self.operator != "Exists":
            raise ValueError("without a key, operator is Exists")
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists goes without a value")
        if self.tolerationSeconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds goes with effect NoExecute")
        return self


def _as_kubernetes_takes_it(toleration: dict[str, Any]) -> dict[str, Any]:
    Toleration(**toleration)
    return toleration


class ClusterConfig(_Model):
    """Configuration of a cluster for all runs."""

    context: str = Field("", description="Context of the kubeconfig; the current one if empty.")
    namespace: _Label = Field(
        "",
        description="Namespace of the runs; that of the context, or of the service account, if "
        "empty.",
    )
    image: _Image = Field("", description="Image of runs that name none.")
    image_pull_secrets: list[_Name] = Field(
        [], description="Names of the Secrets of private registries."
    )
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="Always, IfNotPresent or Never; Kubernetes' own default if empty."
    )
    service_account: _NameOrNone = Field(
        "", description="ServiceAccount of runs' pods, whose token is not mounted."
    )
    pipeline_service_account: _NameOrNone = Field(
        "",
        description="ServiceAccount of the pods of pipeline runs, which create a Job for each "
        "component; its token is mounted. That of service_account if empty.",
    )
    config_map: _NameOrNone = Field(
        "",
        description="ConfigMap whose keys become environment variables of runs' pods, such as "
        "PREFECT_API_URL and MLFLOW_TRACKING_URI.",
    )
    secret: _NameOrNone = Field(
        "",
        description="Secret whose keys become environment variables of runs' pods, such as "
        "MODELYARD_DATABASE_URL.",
    )
    env: dict[_Variable, str] = Field(
        {},
        description="Further environment variables of runs' pods. What looks like a secret is "
        "refused.",
    )
    secret_env: dict[_Variable, SecretKey] = Field(
        {}, description="Environment variables from Secrets: {VARIABLE: {name: SECRET, key: KEY}}."
    )
    nas: dict[_NasId, NasVolume] = Field(
        {},
        description="Volumes of nas://ID:/path by ID: an NFS export {server, path}, or a "
        "PersistentVolumeClaim {claim}.",
    )
    run_as_user: _Id = Field(1000, description="User of runs' pods; never root.")
    run_as_group: _Id = Field(1000, description="Group of runs' pods.")
    fs_group: _Id = Field(1000, description="Group of the volumes of runs' pods.")
    component_user: _Id | None = Field(
        None,
        description="User of servers of models, and of pipeline components that set none; the "
        "image's own if empty. A namespace that enforces the Pod Security Standard restricted "
        "needs one.",
    )
    node_selector: dict[_LabelKey, _LabelValue] = Field(
        {},
        description="Labels of the nodes of all runs, in addition to those of the instance type.",
    )
    tolerations: list[Annotated[dict[str, Any], AfterValidator(_as_kubernetes_takes_it)]] = Field(
        [], description="Tolerations of all runs, as Kubernetes writes them."
    )
    priority_class: _NameOrNone = Field("", description="PriorityClass of runs' pods.")
    gpu_runtime_class: _NameOrNone = Field(
        "",
        description="RuntimeClass of pods with GPUs, such as nvidia, where it is not the nodes' "
        "default runtime.",
    )
    most_gpus: int | None = Field(
        None,
        ge=0,
        description="Largest number of GPUs of one run, in all its nodes; no limit if empty.",
    )
    nodes_may_come: bool = Field(
        False, description="The cluster is autoscaled: present nodes are no limit."
    )
    storage_class: _NameOrNone = Field(
        "",
        description="StorageClass of the volumes for data storage; an emptyDir on the node's disk "
        "if empty.",
    )
    pending_minutes: float = Field(
        10,
        gt=0,
        le=7 * 24 * 60,
        description="How long a run's pods may take to start: image pulls, volumes, the other "
        "nodes of a distributed run.",
    )
    queue_minutes: float | None = Field(
        None,
        gt=0,
        le=366 * 24 * 60,
        description="How long a run may wait for resources that other runs occupy, GPUs or a "
        "quota; no limit if empty.",
    )
    finished_seconds: int = Field(
        3600, ge=0, description="How long Kubernetes keeps a finished Job."
    )
    grace_seconds: int = Field(
        30, ge=1, le=3600, description="Termination grace period of a stopped pod."
    )

    @property
    def platform_secrets(self) -> frozenset[str]:
        """Names of the Secrets that hold the platform's credentials."""
        named = {
            key.name
            for variable, key in self.secret_env.items()
            if variable.startswith(_PLATFORM_VARIABLES)
        }
        return frozenset({*named, *filter(None, [self.secret])})

    @model_validator(mode="after")
    def _nothing_secret(self) -> ClusterConfig:
        if found := secrets_among(self.env):
            raise ValueError(
                f"env.{found[0]} looks like a secret; keep it in a Secret of the cluster and "
                "name that in secret_env"
            )
        if both := sorted(self.env.keys() & self.secret_env.keys()):
            raise ValueError(f"{both[0]} is in env and in secret_env; keep one")
        return self


def _parse_settings(document: str) -> ClusterConfig:
    try:
        return ClusterConfig.model_validate_json(document)
    except ValidationError:  # its message would show values
        raise BadInputError(
            "MODELYARD_CLUSTER_SETTINGS is not a valid cluster configuration.",
            "The worker sets it in its pods; for your own configuration set MODELYARD_CLUSTER.",
            code="ClusterInvalid",
        ) from None


def load(settings: Settings) -> ClusterConfig:
    """Load the configuration from the settings' file; all defaults if they name none.

    Raises:
        BadInputError: With the code ``ClusterInvalid``: the file cannot be read, or a field of it
            is unknown or invalid. Values are not shown, because one could be a secret.
    """
    if settings.cluster_settings:
        return _parse_settings(settings.cluster_settings)
    if settings.cluster is None:
        return ClusterConfig()
    path = settings.cluster.expanduser()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _invalid(path, reason, "MODELYARD_CLUSTER names a YAML file.") from error
    except UnicodeDecodeError:
        raise _invalid(path, "it is not UTF-8 text", "Save it as UTF-8.") from None
    except (yaml.YAMLError, ValueError) as error:  # the latter of a day that no month has
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _invalid(path, f"it is not valid YAML{where}", "Fix it there.") from None
    if found is None:
        found = {}
    if not isinstance(found, dict):
        raise _invalid(path, "it is not a mapping", "Write lines such as namespace: training.")
    try:
        return ClusterConfig.model_validate(found)
    except ValidationError as error:
        raise _invalid(path, _faults(error), _remedy(error)) from None


def _faults(error: ValidationError) -> str:
    faults = [
        ": ".join(part for part in (".".join(map(str, fault["loc"])), _said(fault)) if part)
        for fault in error.errors(include_input=False, include_url=False)
    ]
    more = len(faults) - _MOST_FAULTS
    return "; ".join(faults[:_MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def _said(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "there is no such field"
    return str(fault["msg"]).removeprefix("Value error, ")


def _remedy(error: ValidationError) -> str:
    unknown = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
    if any(len(where) == 1 for where in unknown):
        return f"The fields are: {', '.join(ClusterConfig.model_fields)}."
    return "Fix these fields of the file."


def _invalid(path: Path, reason: str, hint: str) -> BadInputError:
    return BadInputError(
        f"The cluster file {path} is invalid: {reason}.", hint, code="ClusterInvalid"
    )
