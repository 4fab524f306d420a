from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes import secret_checks
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.checks import Check
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.secret_checks import SecretFacts, Secrets

WHOLE = ClusterConfig.model_validate({
    "image_pull_secrets": ["registry"],
    "secret": "keys",
    "secret_env": {"TOKEN": {"name": "hub", "key": "token"}},
})  # fmt: skip


def facts(*keys: str, type: str = "Opaque") -> SecretFacts:
    return SecretFacts(type=type, keys=frozenset(keys))


@pytest.mark.parametrize(
    ("found", "result"),
    [
        (facts(type="kubernetes.io/dockerconfigjson"), "ok"),
        (facts(), "failed"),
        (None, "failed"),
    ],
)
def test_a_pull_secret(found: SecretFacts | None, result: str) -> None:
    assert secret_checks.pull_secret("r", found).result == result


class TestVariables:
    def _checks(
        self, secrets: Secrets, seen: frozenset[str] | None = None, **cluster: Any
    ) -> list[Check]:
        described = ClusterConfig.model_validate(cluster)
        return list(secret_checks.variables(described, secrets, seen))

    def test_from_all_places(self) -> None:
        found = self._checks(
            {"s": facts("MODELYARD_DATABASE_URL")},
            frozenset({"PREFECT_API_URL"}),
            config_map="c",
            secret="s",
            env={"MLFLOW_TRACKING_URI": "http://mlflow"},
        )

        assert [one.result for one in found] == ["ok"]

    def test_some_are_missing(self) -> None:
        found = self._checks({}, frozenset({"PREFECT_API_URL"}), config_map="c")

        assert [one.result for one in found] == ["failed"]
        assert "MLFLOW_TRACKING_URI, MODELYARD_DATABASE_URL" in found[0].message

    def test_something_is_not_there(self) -> None:
        found = self._checks({"s": None}, secret="s")

        assert found[0].result == "failed"
        assert "no Secret s" in found[0].message

    def test_a_key_is_not_there(self) -> None:
        found = self._checks(
            {"s": facts("other")},
            secret_env={"MODELYARD_DATABASE_URL": {"name": "s", "key": "url"}},
        )

        assert "no key url" in found[0].message

    @pytest.mark.parametrize("named", [{"secret": "s"}, {"config_map": "c"}])
    def test_what_may_not_be_seen_is_said_to_be_so(self, named: dict[str, str]) -> None:
        assert [one.result for one in self._checks({}, **named)] == ["unseen"]


class Api:
    """Has one Secret, may not see another, and has no third."""

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        assert kind == "Secret"
        if name == "hub":
            raise ClusterError("It may not.", code="Forbidden", status=403)
        kept = {"type": "Opaque", "data": {"MODELYARD_DATABASE_URL": "canary"}}
        return kept if name == "keys" else None


def test_only_names_and_keys_are_looked_at() -> None:
    seen = secret_checks.inspect(Api(), WHOLE)  # type: ignore[arg-type]

    assert seen == {"keys": facts("MODELYARD_DATABASE_URL"), "registry": None}
    assert "canary" not in str(seen)


def test_all_that_was_not_looked_at_is_one_check() -> None:
    found = list(secret_checks.check(WHOLE, {"keys": facts()}, None))

    (hidden,) = [one for one in found if one.result == "unseen"]
    assert hidden.name == "secrets"
    assert "hub, registry" in hidden.message
