"""Endpoints of Prefect, MLflow and the catalogue for this process.

The environment says so where it does (``PREFECT_API_URL``, ``MLFLOW_TRACKING_URI``,
``MODELYARD_DATABASE_URL``: a cluster, a worker's child); else the local stack that is running.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from infra.door import credential
from infra.home import Home


@dataclass(frozen=True)
class Endpoints:
    """Addresses of the three services, and of Modelyard's own pages.

    The pages, which may be absent, are only linked to.
    """

    prefect_api_url: str
    mlflow_tracking_uri: str
    database_url: str
    web_url: str = ""

    @property
    def prefect_ui_url(self) -> str:
        """Address of the Prefect UI."""
        return _ui_beside(self.prefect_api_url)

    def as_dict(self) -> dict[str, str]:
        """Return the addresses by name."""
        return asdict(self)


_VARIABLES = {
    "prefect_api_url": "PREFECT_API_URL",
    "mlflow_tracking_uri": "MLFLOW_TRACKING_URI",
    "database_url": "MODELYARD_DATABASE_URL",
}
VARIABLES = tuple(_VARIABLES.values())
_NO_AUTHORITY = Path(__file__).with_name("no_authority.pem")
# Addresses for browsers, which differ from those for a cluster's own processes.
_PREFECT_UI = "PREFECT_UI_URL"
_MLFLOW_UI = "MODELYARD_MLFLOW_URL"
_WEB = "MODELYARD_WEB_URL"


def _ui_beside(prefect_api_url: str) -> str:
    return prefect_api_url.removesuffix("/api")


def from_environment() -> Endpoints | None:
    """Read the endpoints from the environment; None unless it names all of them."""
    values = {field: os.environ.get(name) for field, name in _VARIABLES.items()}
    if all(values.values()):
        web = os.environ.get(_WEB, "")
        return Endpoints(**{field: value or "" for field, value in values.items()}, web_url=web)
    return None


def prefect_page(path: str) -> str:
    """Build the address of a page of Prefect's UI, for a browser."""
    ui = os.environ.get(_PREFECT_UI) or _ui_beside(os.environ["PREFECT_API_URL"])
    return f"{ui}{path}"


def run_page(flow_run_id: str) -> str:
    """Build the address of a run's page in Prefect's UI, for a browser."""
    return prefect_page(f"/runs/flow-run/{flow_run_id}")


def mlflow_page(path: str) -> str:
    """Build the address of a page of MLflow's UI, such as ``experiments/0``, for a browser."""
    return f"{os.environ.get(_MLFLOW_UI) or os.environ['MLFLOW_TRACKING_URI']}/#/{path}"


# Without it a first visit sees MLflow's pages for prompts.
_TRAINING = "workflowType=machine_learning"


def mlflow_experiment_page(experiment_id: str) -> str:
    """Build the address of an experiment's runs in MLflow's UI, for a browser."""
    return mlflow_page(f"experiments/{experiment_id}/runs?{_TRAINING}")


def mlflow_run_page(experiment_id: str, run_id: str) -> str:
    """Build the address of a run's page in MLflow's UI, for a browser."""
    return mlflow_page(f"experiments/{experiment_id}/runs/{run_id}?{_TRAINING}")


def mlflow_artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """Build the address of a run's artifact in MLflow's UI, for a browser."""
    run = f"experiments/{experiment_id}/runs/{run_id}"
    return mlflow_page(f"{run}/artifacts/{quote(path)}?{_TRAINING}")


def mlflow_model_page(name: str, version: str = "") -> str:
    """Build the address of a registered model, or of a version, in MLflow's UI, for a browser."""
    model = f"models/{quote(name, safe='')}"
    return mlflow_page(f"{model}/versions/{quote(version, safe='')}" if version else model)


def page(path: str) -> str:
    """Build the address of one of Modelyard's own pages; "" where they are not served."""
    web = os.environ.get(_WEB, "")
    return f"{web}{path}" if web else ""


def environment(endpoints: Endpoints, home: Home) -> dict[str, str]:
    """Build the variables that connect a process to ``endpoints``, with the credential."""
    held = credential.read(home)
    return {
        **{name: getattr(endpoints, field) for field, name in _VARIABLES.items()},
        # Set explicitly, or the values of another server in the caller's environment would apply.
        _PREFECT_UI: endpoints.prefect_ui_url,
        _MLFLOW_UI: endpoints.mlflow_tracking_uri,
        _WEB: endpoints.web_url,
        **(held.environment() if held else {}),
        "MODELYARD_HOME": str(home.root),
        "MLFLOW_REGISTRY_URI": endpoints.mlflow_tracking_uri,
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_PROFILES_PATH": str(home.prefect / "profiles.toml"),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # While a server or the database restarts, requests fail for some seconds: retry them.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        "PREFECT_CLIENT_MAX_RETRIES": "6",
        "PREFECT_CLIENT_RETRY_JITTER_FACTOR": "0.2",
        # Each client would ask for the server's version, and for a token against the forged
        # requests that the door refuses. And it would load all authorities' certificates (17 ms)
        # for an address without TLS: this file has only a dummy one.
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_API_SSL_CERT_FILE": str(_NO_AUTHORITY),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "DO_NOT_TRACK": "true",
    }


def browser_urls(endpoints: Endpoints) -> dict[str, str]:
    """Return the address of each server for a browser, by the server's name.

    On a cluster these are set in the environment: processes use internal names.
    """
    inherited = os.environ if from_environment() else {}
    return {
        "prefect": inherited.get(_PREFECT_UI) or endpoints.prefect_ui_url,
        "mlflow": inherited.get(_MLFLOW_UI) or endpoints.mlflow_tracking_uri,
        "web": inherited.get(_WEB) or endpoints.web_url,
    }


def user_environment() -> dict[str, str]:
    """Build the environment of user code: without the platform's settings and credentials."""
    return {
        name: value
        for name, value in clean_environment().items()
        if not name.startswith("MODELYARD_")
    }


def client_environment(endpoints: Endpoints, home: Home) -> dict[str, str]:
    """Build the variables with which Prefect's and MLflow's clients reach ``endpoints``.

    Where the environment names the endpoints it has the credential as well; else it is the home's.
    """
    inherited = {name: os.environ[name] for name in credential.VARIABLES if name in os.environ}
    held = None if from_environment() else credential.read(home)
    return {
        "PREFECT_API_URL": endpoints.prefect_api_url,
        "MLFLOW_TRACKING_URI": endpoints.mlflow_tracking_uri,
        "MLFLOW_REGISTRY_URI": endpoints.mlflow_tracking_uri,
        **(held.environment() if held else inherited),
    }


def clean_environment() -> dict[str, str]:
    """Build this process's environment without the caller's own Prefect and MLflow settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "_MLFLOW_"))
    }
