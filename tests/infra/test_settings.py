from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from infra import settings


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("MODELYARD_HOME", "/somewhere", "home", Path("/somewhere")),
        ("MODELYARD_DATABASE_URL", "postgresql://db/x", "database_url", "postgresql://db/x"),
        ("MODELYARD_POSTGRES_BIN", "/pg/bin", "postgres_bin", Path("/pg/bin")),
        ("MODELYARD_PREFECT_PORT", "0", "prefect_port", 0),
        ("MODELYARD_MLFLOW_PORT", "65535", "mlflow_port", 65535),
        ("MODELYARD_WEB_PORT", "0", "web_port", 0),
        ("MODELYARD_REGION", "KR1", "region", "KR1"),
        ("MODELYARD_APPKEY", "key", "appkey", "key"),
        ("MODELYARD_STOP_GRACE_SECONDS", "0.5", "stop_grace_seconds", 0.5),
        ("MODELYARD_MIN_FREE_MIB", "0", "min_free_mib", 0),
        ("MODELYARD_LOG_LINES_PER_SECOND", "10", "log_lines_per_second", 10),
        ("MODELYARD_CLUSTER", "/cluster.yaml", "cluster", Path("/cluster.yaml")),
        ("MODELYARD_HOME_LASTS", "false", "home_lasts", False),
        ("MODELYARD_START_TIMEOUT_SECONDS", "5", "start_timeout_seconds", 5.0),
        ("MODELYARD_NAS", '{"id": "/mnt"}', "nas", {"id": Path("/mnt")}),
        ("MODELYARD_S3_ENDPOINT_URL", "https://s3", "s3_endpoint_url", "https://s3"),
        ("MODELYARD_S3_REGION", "kr1", "s3_region", "kr1"),
        ("MODELYARD_S3_ACCESS_KEY_ID", "id", "s3_access_key_id", SecretStr("id")),
        ("MODELYARD_S3_SECRET_ACCESS_KEY", "x", "s3_secret_access_key", SecretStr("x")),
        ("MODELYARD_S3_SESSION_TOKEN", "t", "s3_session_token", SecretStr("t")),
        ("MODELYARD_OBS_REGION", "kr1", "obs_region", "kr1"),
        ("MODELYARD_OBS_ACCESS_KEY_ID", "id", "obs_access_key_id", SecretStr("id")),
        ("MODELYARD_OBS_SECRET_ACCESS_KEY", "x", "obs_secret_access_key", SecretStr("x")),
        ("MODELYARD_OBS_SESSION_TOKEN", "t", "obs_session_token", SecretStr("t")),
        ("MODELYARD_OBS_PLAIN_HTTP", "a,b:1", "obs_plain_http", "a,b:1"),
        ("MODELYARD_TRANSFER_THREADS", "3", "transfer_threads", 3),
        ("MODELYARD_TRANSFER_PART_MIB", "5", "transfer_part_mib", 5),
        ("MODELYARD_TRANSFER_ATTEMPTS", "1", "transfer_attempts", 1),
        ("MODELYARD_TRANSFER_TIMEOUT_SECONDS", "9", "transfer_timeout_seconds", 9.0),
    ],
)
def test_every_setting_comes_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)

    assert getattr(settings.load(), field) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MODELYARD_PREFECT_PORT", "65536"),
        ("MODELYARD_MLFLOW_PORT", "many"),
        ("MODELYARD_WEB_PORT", "-1"),
        ("MODELYARD_STOP_GRACE_SECONDS", "0"),
        ("MODELYARD_MIN_FREE_MIB", "-1"),
        ("MODELYARD_LOG_LINES_PER_SECOND", "0"),
        ("MODELYARD_START_TIMEOUT_SECONDS", "-5"),
        ("MODELYARD_TRANSFER_PART_MIB", "4"),  # less than object storage takes
        ("MODELYARD_TRANSFER_THREADS", "0"),
    ],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(ValidationError):
        settings.load()


@pytest.mark.parametrize(
    ("text", "resolved"),
    [("relative", "folder/relative"), ("~/x", "folder/x"), ("/absolute", "/absolute")],
)
def test_the_home_is_resolved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, resolved: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("MODELYARD_HOME", text)

    assert settings.load().resolved_home() == tmp_path / resolved


def test_every_field_is_described() -> None:
    assert all(field.description for field in settings.Settings.model_fields.values())
