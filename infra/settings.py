"""Settings: every ``MODELYARD_*`` environment variable, with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic.config import JsonDict
from pydantic_settings import BaseSettings, SettingsConfigDict

# Where a stack runs, a command takes the stack's settings, which its runs have. But not these.
_CALLERS: JsonDict = {"of": "caller"}


class Settings(BaseSettings):
    """Settings from ``MODELYARD_*`` environment variables."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_", env_ignore_empty=True, extra="ignore"
    )

    home: Path = Field(
        default_factory=lambda: Path.home() / ".modelyard",
        description="Where the local stack keeps its database, artifacts, runs and logs.",
        json_schema_extra=_CALLERS,
    )
    database_url: str | None = Field(
        None,
        description="An external PostgreSQL for the catalogue; on a laptop the embedded one.",
    )
    postgres_bin: Path | None = Field(
        None, description="A folder of PostgreSQL binaries to use instead of the embedded ones."
    )
    prefect_port: int = Field(
        4200, ge=0, le=65535, description="Port of the Prefect UI and API; another if taken."
    )
    mlflow_port: int = Field(
        5000, ge=0, le=65535, description="Port of the MLflow UI and API; another if taken."
    )
    web_port: int = Field(
        4300, ge=0, le=65535, description="Port of Modelyard's own pages; another if taken."
    )
    web_hosts: str = Field(
        "",
        description="Host names by which the stack's servers may be asked for, separated by "
        "commas, beside the loopback ones.",
    )
    door: bool = Field(
        True,
        description="Whether the stack's servers ask for its owner's credential. Off only where "
        "the machine is its user's alone, such as a container.",
    )
    region: str = Field("local", description="What a script reads from EM_REGION.")
    appkey: str = Field("modelyard", description="What a script reads from EM_APPKEY.")
    stop_grace_seconds: float = Field(
        3.0, gt=0, description="How long a stopped script may tidy up before it is killed."
    )
    min_free_mib: int = Field(
        512, ge=0, description="A run is refused when the home's disk has less room than this."
    )
    log_lines_per_second: int = Field(
        200,
        gt=0,
        description="How many of a script's lines go to the run's log in the Prefect UI; "
        "the rest is in the run's log file all the same.",
    )
    instance_types: Path | None = Field(
        None, description="A YAML file with instance types beside the built-in ones."
    )
    instance_types_settings: str = Field(
        "", description="The content of that file as JSON, which every pod receives."
    )
    gpus: str | None = Field(
        None,
        description="The GPUs that runs on this machine may use, such as 0,1; none for none. "
        "By default those that NVIDIA's driver knows.",
    )
    join_seconds: int = Field(
        300, gt=0, description="How long the nodes of a distributed run wait for each other."
    )
    checkpoint_seconds: float = Field(
        30.0,
        gt=0,
        description="How often new checkpoints are copied to a checkpoint_uri that is no folder "
        "of this machine.",
    )
    tensorboard_days: float = Field(
        120.0, gt=0, description="How long a run's TensorBoard logs are kept after its end."
    )
    pipeline_launcher: Literal["process", "docker", "kubernetes"] = Field(
        "process",
        description="What components of pipelines run as: processes of this machine, containers "
        "of its Docker engine, or Jobs of a cluster, the latter two each in its image.",
    )
    pipeline_staging_uri: str = Field(
        "",
        description="An s3://, obs:// or nas:// URI through which components on a cluster get "
        "their files, and below which their artifacts are kept.",
    )
    pipeline_artifact_mib: float = Field(
        16.0,
        ge=0,
        description="Artifacts of pipelines that are so large at most are copied to MLflow; "
        "others are linked there.",
    )
    pipeline_artifact_days: float = Field(
        120.0,
        ge=0,
        description="How long artifacts of a pipeline run are kept after its end; 0 is for ever.",
    )
    cluster: Path | None = Field(
        None, description="A YAML file that says where and how runs go to a Kubernetes cluster."
    )
    cluster_settings: str = Field(
        "", description="The content of that file as JSON, which a run's pod receives."
    )
    home_lasts: bool = Field(
        True, description="Whether the home outlives a run; that of a run's pod goes with the pod."
    )
    start_timeout_seconds: float = Field(
        180.0,
        gt=0,
        description="How long the stack may take until every part is healthy.",
        json_schema_extra=_CALLERS,
    )

    # Storage. A value of a credential may be secret:NAME, a Prefect Secret block.
    nas: dict[str, Path] = Field(
        {}, description='Mounted folders by the id of nas://ID:/path: {"ID": "/mnt/folder"}.'
    )
    s3_endpoint_url: str | None = Field(
        None, description="The server of s3:// URIs; Amazon's own without it."
    )
    s3_region: str | None = Field(None, description="The region of s3:// buckets.")
    s3_access_key_id: SecretStr | None = Field(
        None, description="For s3:// URIs; without it, what boto3 finds by its own rules."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Belongs to the key's id.")
    s3_session_token: SecretStr | None = Field(None, description="Of a temporary access key.")
    obs_region: str | None = Field(None, description="The region of obs:// containers.")
    obs_access_key_id: SecretStr | None = Field(None, description="For obs:// URIs.")
    obs_secret_access_key: SecretStr | None = Field(None, description="Belongs to the key's id.")
    obs_session_token: SecretStr | None = Field(None, description="Of a temporary access key.")
    obs_plain_http: str = Field(
        "",
        description="Endpoints of obs:// URIs that speak plain http, separated by commas; those "
        "on loopback do in any case.",
    )
    transfer_threads: int = Field(
        8, ge=1, le=64, description="How many parts and files are transferred at once."
    )
    transfer_part_mib: int = Field(
        16, ge=5, le=512, description="The size of the parts that large files are sent in."
    )
    transfer_attempts: int = Field(
        5, ge=1, le=20, description="How often a part is tried before a transfer is given up."
    )
    transfer_timeout_seconds: float = Field(
        30.0, gt=0, description="How long a server may be silent in the middle of a transfer."
    )

    def resolved_home(self) -> Path:
        """The home as an absolute path; it may not exist yet."""
        return self.home.expanduser().absolute()


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return f"MODELYARD_{field.upper()}"


def of_the_stack() -> frozenset[str]:
    """List the variables of settings that a running stack overrides in a caller's shell.

    The database's is not among them: the stack sets its own for its processes.
    """
    return frozenset(
        variable(name)
        for name, field in Settings.model_fields.items()
        if field.json_schema_extra != _CALLERS and name != "database_url"
    )


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        pydantic.ValidationError: If a variable does not parse.
    """
    return Settings()
