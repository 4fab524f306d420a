from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from infra.kubernetes import access
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.cluster import ClusterConfig
from tests.infra.kubernetes.scripted import kubeconfig

_SERVER = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _nothing_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


def _refused(cluster: ClusterConfig | None = None) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        access.connect(cluster or ClusterConfig())
    assert caught.value.code == "KubeconfigMissing"
    assert caught.value.hint
    assert not caught.value.transient
    assert "canary" not in str(caught.value).replace(os.environ.get("KUBECONFIG", "none"), "")
    return caught.value


def _changed(path: Path, change: Any) -> None:
    found = yaml.safe_load(path.read_text())
    change(found)
    path.write_text(yaml.safe_dump(found))


def test_the_kubeconfig_of_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube/config", _SERVER)

    found = access.connect(ClusterConfig())

    assert (found.server, found.namespace) == (_SERVER, "runs")
    assert found.headers() == {"authorization": "Bearer canary-token"}
    assert "context test" in found.origin


def test_several_files_are_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "first", _SERVER)
    second = kubeconfig(tmp_path / "second", "http://127.0.0.1:2")

    def rename(found: Any) -> None:
        found["current-context"] = "other"
        found["contexts"][0]["name"] = "other"
        found["contexts"][0]["context"] = {"cluster": "other", "user": "test"}
        found["clusters"][0]["name"] = "other"

    _changed(second, rename)
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'none'}:{second}")

    assert access.connect(ClusterConfig()).server == _SERVER
    other = access.connect(ClusterConfig(context="other"))
    assert (other.server, other.namespace) == ("http://127.0.0.1:2", "default")


def test_none_is_there(tmp_path: Path) -> None:
    assert str(tmp_path / ".kube/config") in _refused().message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not a mapping"),
        ("- canary", "is not a mapping"),
        ("users: [\ntoken: canary", "not valid YAML in line"),
        ("current-context: 2026-99-99", "not valid YAML"),
        ("contexts: 5", "not all of contexts have a name"),
        ("clusters: {a: b}", "not all of clusters have a name"),
        ("{}", "no current context"),
        ("contexts: [canary]", "not all of contexts"),
        ("contexts: [{name: a}]", "not all of contexts"),
        ("users: [{name: a, user: canary}]", "not all of users"),
    ],
)
def test_a_broken_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(file))

    refused = _refused()

    assert told in refused.message
    assert str(file) in refused.message


def _no_server(found: Any) -> None:
    del found["clusters"][0]["cluster"]["server"]


def _no_scheme(found: Any) -> None:
    found["clusters"][0]["cluster"]["server"] = "somewhere:6443"


def _no_cluster(found: Any) -> None:
    found["clusters"] = []


def _no_user(found: Any) -> None:
    found["users"] = None


def _no_authority(found: Any) -> None:
    found["clusters"][0]["cluster"] = {
        "server": "https://127.0.0.1:1",
        "certificate-authority": "missing.crt",
    }


def _no_token_file(found: Any) -> None:
    found["users"][0]["user"] = {"tokenFile": "missing.token"}


def _no_base64(found: Any) -> None:
    found["clusters"][0]["cluster"] = {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": "canary!",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_no_server, "has no server"),
        (_no_scheme, "has no server"),
        (_no_cluster, "the cluster 'test', which is missing"),
        (_no_user, "the user 'test', which is missing"),
        (_no_authority, "missing.crt"),
        (_no_token_file, "missing.token"),
        (_no_base64, "cannot be used"),
    ],
)
def test_a_part_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: Any, told: str
) -> None:
    file = kubeconfig(tmp_path / "config", _SERVER)
    _changed(file, change)
    monkeypatch.setenv("KUBECONFIG", str(file))

    assert told in _refused().message


def test_a_token_s_file_may_end_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("word\n")
    file = kubeconfig(tmp_path / "config", _SERVER, user={"tokenFile": "token"})
    monkeypatch.setenv("KUBECONFIG", str(file))

    assert access.connect(ClusterConfig()).headers() == {"authorization": "Bearer word"}


def test_no_such_context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", _SERVER)))

    refused = _refused(ClusterConfig(context="lab"))

    assert "no context lab" in refused.message
    assert "test" in refused.hint


def _plugin(tmp_path: Path, script: str) -> dict[str, Any]:
    program = tmp_path / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(program),
            "interactiveMode": "Never",
        }
    }


def test_a_program_gives_tokens_anew_as_they_age(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    user = _plugin(
        tmp_path,
        f"""echo x >> {count}
n=$(wc -l < {count} | tr -d ' ')
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",'
echo '"status": {{"token": "t'$n'", "expirationTimestamp": "2020-01-01T00:00:00Z"}}}}'""",
    )
    file = kubeconfig(tmp_path / "config", _SERVER, user=user)
    monkeypatch.setenv("KUBECONFIG", str(file))

    found = access.connect(ClusterConfig())
    first, second = found.headers()["authorization"], found.headers()["authorization"]

    assert first.startswith("Bearer t")
    assert first != second


@pytest.mark.parametrize("script", ["exit 1", "echo canary", "echo '{\"status\": {}}'"])
def test_a_program_that_gives_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    file = kubeconfig(tmp_path / "config", _SERVER, user=_plugin(tmp_path, script))
    monkeypatch.setenv("KUBECONFIG", str(file))

    assert "gave no credentials" in _refused().message


def test_a_pod_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")

    assert "service account" in _refused().message


def test_a_pod_with_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("token", "first"), ("ca.crt", "some"), ("namespace", "training\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(access, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    found = access.connect(ClusterConfig())

    assert (found.server, found.namespace) == ("https://10.0.0.1:443", "training")
    assert found.headers() == {"authorization": "bearer first"}
