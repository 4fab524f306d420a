"""Settings: every ``MODELYARD_*`` environment variable, with its default."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a person may set through ``MODELYARD_*`` environment variables."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_", env_ignore_empty=True, extra="ignore"
    )

    home: Path = Field(
        default_factory=lambda: Path.home() / ".modelyard",
        description="Where the local stack keeps its database, artifacts, runs and logs.",
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
    start_timeout_seconds: float = Field(
        180.0, gt=0, description="How long the stack may take until every part is healthy."
    )

    def resolved_home(self) -> Path:
        """The home as an absolute path; it may not exist yet."""
        return self.home.expanduser().absolute()


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        pydantic.ValidationError: If a variable does not parse.
    """
    return Settings()
