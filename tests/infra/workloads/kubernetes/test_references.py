from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from infra.errors import BadInputError, ModelyardError, NotFoundError
from infra.workloads.base import Workload
from infra.workloads.kubernetes import references
from tests.infra.workloads.kubernetes.asked import Asked
from tests.infra.workloads.shell import shell


def _secret(**texts: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(one.encode()).decode() for key, one in texts.items()}}


@pytest.fixture
def api() -> Asked:
    return Asked(
        Secret={"keys": {"data": {**_secret(token="t0p-secret")["data"], "raw": "/w=="}},
                "files": _secret(password="pass-word")},
        ConfigMap={"words": {"data": {"a": "b"}, "binaryData": {"raw": "/w=="}}},
        PersistentVolumeClaim={"shared": {}},
    )  # fmt: skip


def _variable(kind: str, name: str, key: str, optional: bool = False) -> dict[str, Any]:
    return {"name": "A", "valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}


def _known(api: Asked, tmp_path: Path, **kubernetes: Any) -> references.References:
    job: Workload = dataclasses.replace(shell(tmp_path / "job", "true"), kubernetes=kubernetes)
    return references.check(job, api)  # type: ignore[arg-type]


def test_all_texts_of_secrets_that_are_named_are_known(api: Asked, tmp_path: Path) -> None:
    found = _known(
        api, tmp_path,
        env=[_variable("secretKeyRef", "keys", "token"),
             _variable("configMapKeyRef", "words", "a"),
             _variable("secretKeyRef", "keys", "raw")],
        volumes=[{"name": "s", "secret": {"secretName": "files"}},
                 {"name": "c", "configMap": {"name": "words"}},
                 {"name": "p", "persistentVolumeClaim": {"claimName": "shared"}},
                 {"name": "e", "emptyDir": {}}],
    )  # fmt: skip

    assert found == references.References(frozenset({"t0p-secret", "pass-word"}), ())
    assert len(api.reads) == len(set(api.reads)) == 4


def test_what_is_optional_may_be_missing(api: Asked, tmp_path: Path) -> None:
    found = _known(
        api, tmp_path,
        env=[_variable("secretKeyRef", "gone", "x", True),
             _variable("secretKeyRef", "keys", "gone", True),
             _variable("configMapKeyRef", "gone", "x", True)],
        volumes=[{"name": "s", "secret": {"secretName": "gone", "optional": True}}],
    )  # fmt: skip

    assert found.notices == ()


@pytest.mark.parametrize(
    ("kubernetes", "code", "said"),
    [
        ({"env": [_variable("secretKeyRef", "gone", "x")]}, "SecretMissing", "no secret gone"),
        ({"env": [_variable("secretKeyRef", "keys", "x")]}, "SecretMissing", "has no key x"),
        ({"env": [_variable("configMapKeyRef", "words", "x")]}, "ConfigMapMissing", "no key x"),
        ({"volumes": [{"name": "c", "configMap": {"name": "gone"}}]}, "ConfigMapMissing", "gone"),
        (
            {"volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "gone"}}]},
            "ClaimMissing",
            "There is no claim gone in the namespace training",
        ),
    ],
)
def test_what_is_missing_is_named(
    api: Asked, tmp_path: Path, kubernetes: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(NotFoundError, match=said) as caught:
        _known(api, tmp_path, **kubernetes)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("kubernetes", "code"),
    [
        ({"env": [_variable("configMapKeyRef", "words", "raw")]}, "ConfigMapNotText"),
        (
            {"volumes": [{"name": "c", "persistentVolumeClaim": {"claimName": "../x"}}]},
            "ClaimInvalid",
        ),
    ],
)
def test_what_can_never_be(
    api: Asked, tmp_path: Path, kubernetes: dict[str, Any], code: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        _known(api, tmp_path, **kubernetes)
    assert caught.value.code == code


def test_an_account_that_may_not_look_goes_on_and_says_so(api: Asked, tmp_path: Path) -> None:
    api.forbidden = {"Secret", "PersistentVolumeClaim"}
    volumes = [{"name": "p", "persistentVolumeClaim": {"claimName": "shared"}}]
    secret = _variable("secretKeyRef", "keys", "token")
    found = _known(api, tmp_path, env=[secret], volumes=volumes)

    assert found == references.References(
        frozenset(),
        (
            "This run may not read the secret keys, so it is not hidden in the log.",
            "This run may not read the claim shared, and assumes that it exists.",
        ),
    )


def test_an_api_that_is_away_is_an_error(api: Asked, tmp_path: Path) -> None:
    def away(*_: str) -> None:
        raise ModelyardError("no answer", code="ApiUnreachable")

    api.read = away  # type: ignore[assignment, method-assign]
    with pytest.raises(ModelyardError, match="no answer"):
        _known(api, tmp_path, env=[_variable("secretKeyRef", "keys", "token")])
