"""What a batch inference does before and after it predicts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows import batch_inference as flow
from infra.errors import RunFailedError
from infra.settings import Settings
from tasks.batch_inference.inference_request import BatchInference
from tasks.batch_inference.part_results import PartFiles, PartWriter
from tasks.batch_inference.planning import Plan, PlannedFile
from tasks.batch_inference.predicting import Folders
from tasks.batch_inference.splitting import FilePart


class _BegunError(Exception):
    pass


@pytest.mark.parametrize(("most", "begins"), [(1, False), (2, True)])
def test_a_retry_that_can_only_fail_again_begins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, begins: bool
) -> None:
    def begin(*_: Any) -> None:
        raise _BegunError

    monkeypatch.setattr(flow, "_environment", begin)
    plan = Plan([PlannedFile("a", 9, 0, 0, [FilePart(0, 1, 0, 3)] * 2)])
    folders = Folders(tmp_path)
    folders.parts.mkdir()
    with PartWriter(PartFiles(folders.parts, 0)) as writer:
        writer.write([0], None, {"y": np.array([1])})
        for row in (1, 2):
            writer.fail(row, None, "wrong")
        writer.commit({})
    context = SimpleNamespace(
        attempt=2, settings=Settings(), home=SimpleNamespace(overlays=tmp_path / "overlays")
    )
    given: Any = (context, BatchInference(model="m/1", max_failed=most), None, tmp_path, plan)

    with pytest.raises(_BegunError if begins else RunFailedError) as caught:
        flow._predict.fn(*given, folders, None, None)

    assert begins or caught.value.code == "TooManyRecordsFailed"
