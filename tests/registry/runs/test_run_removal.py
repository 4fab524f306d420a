"""What goes with a run."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from prefect.client.orchestration import SyncPrefectClient

from infra.workloads.kubernetes.staging import StagingArea
from registry.runs import run_removal
from tests.registry.fake_runs import PrefectClient


@pytest.mark.usefixtures("mlflow")
def test_what_its_pods_have_staged_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect = PrefectClient.installed(monkeypatch)
    staging = tmp_path / "staging"
    run, other = prefect.add("batch-inference", "a"), prefect.add("batch-inference", "b")
    for one in (run, other):
        file = Path(StagingArea(str(staging), one).uri, "inference/parts/00000000/x/1.json")
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    monkeypatch.setenv("MODELYARD_PIPELINE_STAGING_URI", str(staging))

    run_removal.remove(cast("SyncPrefectClient", prefect), run, None)

    assert [path.name for path in (staging / "runs").iterdir()] == [other]
