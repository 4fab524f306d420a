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
        description="Folder of the local stack: its database, artifacts, runs and logs.",
        json_schema_extra=_CALLERS,
    )
    database_url: str | None = Field(
        None,
        description="URL of an external PostgreSQL database for the catalogue, "
        "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE; the embedded one if empty.",
    )
    postgres_bin: Path | None = Field(
        None, description="Folder of PostgreSQL binaries to use instead of the embedded ones."
    )
    prefect_port: int = Field(
        4200,
        ge=0,
        le=65535,
        description="Port of Prefect's UI and API; another one is chosen if it is in use.",
    )
    mlflow_port: int = Field(
        5000,
        ge=0,
        le=65535,
        description="Port of MLflow's UI and API; another one is chosen if it is in use.",
    )
    web_port: int = Field(
        4300,
        ge=0,
        le=65535,
        description="Port of Modelyard's own pages; another one is chosen if it is in use.",
    )
    web_hosts: str = Field(
        "",
        description="Host names that requests to the stack's servers may have, separated by "
        "commas, in addition to the loopback ones.",
    )
    door: bool = Field(
        True,
        description="Require the owner's credential in requests to the stack's servers. Turn it "
        "off only on a machine with a single user, such as a container.",
    )
    region: str = Field("local", description="Value of EM_REGION in scripts.")
    appkey: str = Field("modelyard", description="Value of EM_APPKEY in scripts.")
    stop_grace_seconds: float = Field(
        3.0, gt=0, description="Seconds between the signal that stops a script and the kill."
    )
    min_free_mib: int = Field(
        512, ge=0, description="Refuse runs if the home's disk has less free space than this."
    )
    log_lines_per_second: int = Field(
        200,
        gt=0,
        description="Largest number of a script's lines per second in the run's log in Prefect; "
        "the run's log file has all lines.",
    )
    instance_types: Path | None = Field(
        None, description="YAML file with instance types in addition to the built-in ones."
    )
    instance_types_settings: str = Field(
        "", description="Content of that file as JSON; set by workers in runs' pods."
    )
    gpus: str | None = Field(
        None,
        description="Indexes of the GPUs that local runs may use, such as 0,1, or none; all GPUs "
        "of NVIDIA's driver if empty.",
    )
    join_seconds: int = Field(
        300, gt=0, description="How long the nodes of a distributed run wait for each other."
    )
    checkpoint_seconds: float = Field(
        30.0,
        gt=0,
        description="Interval at which new checkpoints are copied to a checkpoint_uri in object "
        "storage.",
    )
    tensorboard_days: float = Field(
        120.0, gt=0, description="Retention of a run's TensorBoard logs after its end, in days."
    )
    pipeline_launcher: Literal["process", "docker", "kubernetes"] = Field(
        "process",
        description="Where pipeline components run: as processes of this machine, as containers "
        "of its Docker engine, or as Jobs of a cluster. The latter two use the component's image.",
    )
    pipeline_staging_uri: str = Field(
        "",
        description="s3://, obs:// or nas:// URI through which components on a cluster exchange "
        "files, and below which their artifacts are stored.",
    )
    pipeline_artifact_mib: float = Field(
        16.0,
        ge=0,
        description="Largest size of a pipeline artifact that is copied to MLflow; larger ones "
        "are linked.",
    )
    pipeline_artifact_days: float = Field(
        120.0,
        ge=0,
        description="Retention of a pipeline run's artifacts after its end, in days; 0 keeps them "
        "for ever.",
    )
    triton_image: str = Field(
        # The last release with the backend of TensorFlow.
        "nvcr.io/nvidia/tritonserver:25.02-py3",
        description="Image of Triton, for models whose framework is one of Triton's; it has a "
        "shell and the program tritonserver.",
    )
    vllm_image: str = Field(
        "vllm/vllm-openai:v0.28.0",
        description="Image of vLLM, for language models; it has a shell and the program vllm.",
    )
    server_start_seconds: float = Field(
        1800.0,
        gt=0,
        le=86_400,
        description="How long a server of an image may take until it has loaded its model.",
    )
    cluster: Path | None = Field(
        None,
        description="YAML file that configures the Kubernetes cluster of the pools; see the "
        "cluster file.",
    )
    cluster_settings: str = Field(
        "", description="Content of that file as JSON; set by workers in runs' pods."
    )
    home_lasts: bool = Field(
        True, description="Whether the home outlives a run; false in a run's pod."
    )
    start_timeout_seconds: float = Field(
        180.0,
        gt=0,
        description="How long the stack may take until every part is healthy.",
        json_schema_extra=_CALLERS,
    )

    # Storage. A value of a credential may be secret:NAME, a Prefect Secret block.
    nas: dict[str, Path] = Field(
        {}, description='Mounted folders of nas://ID:/path as JSON: {"ID": "/mnt/folder"}.'
    )
    s3_endpoint_url: str | None = Field(
        None, description="Endpoint of s3:// URIs; Amazon's own if empty."
    )
    s3_region: str | None = Field(None, description="Region of s3:// buckets.")
    s3_access_key_id: SecretStr | None = Field(
        None, description="Access key of s3:// URIs; boto3's own credential chain if empty."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Secret of that access key.")
    s3_session_token: SecretStr | None = Field(
        None, description="Session token of a temporary access key."
    )
    obs_region: str | None = Field(None, description="Region of obs:// containers.")
    obs_access_key_id: SecretStr | None = Field(None, description="Access key of obs:// URIs.")
    obs_secret_access_key: SecretStr | None = Field(None, description="Secret of that access key.")
    obs_session_token: SecretStr | None = Field(
        None, description="Session token of a temporary access key."
    )
    obs_plain_http: str = Field(
        "",
        description="Endpoints of obs:// URIs that use plain HTTP, separated by commas; those on "
        "loopback always do.",
    )
    transfer_threads: int = Field(
        8, ge=1, le=64, description="Number of parts and files that are transferred concurrently."
    )
    transfer_part_mib: int = Field(
        16, ge=5, le=512, description="Part size of multipart transfers."
    )
    transfer_attempts: int = Field(
        5, ge=1, le=20, description="Attempts per part before a transfer fails."
    )
    transfer_timeout_seconds: float = Field(30.0, gt=0, description="Read timeout of a transfer.")

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
