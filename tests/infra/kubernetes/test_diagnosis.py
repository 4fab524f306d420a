from __future__ import annotations

from infra.kubernetes import diagnosis


def test_every_category_has_a_remedy() -> None:
    assert all(hint.endswith(".") for hint in diagnosis.HINTS.values())
    assert {"ImagePull", "Unschedulable", "OOMKilled", "Evicted", "NodeLost", "ScriptFailed",
            "Timeout", "Cancelled", "ConfigInvalid", "StartFailed", "NodeNeverJoined",
            "Gone"} == set(diagnosis.HINTS)  # fmt: skip
