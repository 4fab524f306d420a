from __future__ import annotations

from typing import Any

import pytest

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.workloads.claims import OWNER
from infra.workloads.kubernetes.claims import ClusterClaims
from pipelines import claims
from tests.infra.workloads.kubernetes.asked import Asked

_KIND = "PersistentVolumeClaim"


@pytest.fixture
def api() -> Asked:
    return Asked()


@pytest.fixture
def here(api: Asked) -> ClusterClaims:
    return ClusterClaims(api, {"modelyard/flow-run": "1"})  # type: ignore[arg-type]


def _manifest(name: str = "mine") -> dict[str, Any]:
    asked = {
        "access_modes": ["ReadWriteMany"], "size": "5Gi", "pvc_name": name,
        "storage_class_name": "fast", "annotations": {"a": "b"},
    }  # fmt: skip
    return claims.build_claim(asked, "unused")


def test_a_claim_is_the_cluster_s_own(api: Asked, here: ClusterClaims) -> None:
    assert here.create(_manifest(), "run/make") == "mine"

    found = api.objects[_KIND]["mine"]
    assert found["metadata"]["labels"] == {"modelyard/flow-run": "1"}
    assert found["metadata"]["annotations"] == {"a": "b", OWNER: "run/make"}
    assert found["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "fast",
    }


def test_the_same_task_may_make_it_again_and_no_other(api: Asked, here: ClusterClaims) -> None:
    here.create(_manifest(), "run/make")

    assert here.create(_manifest(), "run/make") == "mine"
    with pytest.raises(ConflictError, match="There is a claim mine already") as caught:
        here.create(_manifest(), "run/other")
    assert caught.value.code == "ClaimExists"
    api.objects[_KIND]["mine"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(ConflictError):
        here.create(_manifest(), "run/make")


def test_a_deleted_claim_is_gone(api: Asked, here: ClusterClaims) -> None:
    here.create(_manifest(), "run/make")
    here.delete("mine")

    assert not api.objects[_KIND]
    with pytest.raises(NotFoundError, match="in the namespace training") as caught:
        here.delete("mine")
    assert caught.value.code == "ClaimMissing"


def test_a_name_that_no_claim_can_have(here: ClusterClaims) -> None:
    for change in (lambda: here.delete("../x"), lambda: here.create(_manifest("A_b"), "o")):
        with pytest.raises(BadInputError) as caught:
            change()
        assert caught.value.code == "ClaimInvalid"
