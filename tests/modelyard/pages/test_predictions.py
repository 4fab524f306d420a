"""The page of a batch inference: why records failed, and the plot of its statistics."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.batch_inference_results import MANIFEST_TAG, REASONS_TAG
from tests.modelyard.pages.conftest import RUN, World, tracked

PNG = b"\x89PNG\r\n\x1a\nimage"
HOSTILE = "<script>alert(1)</script>"
REASONS = [
    {"reason": f"could not convert {HOSTILE}", "count": 1200, "file": "july/a.jsonl", "row": 7},
    {"reason": "late", "count": 3, "file": HOSTILE, "row": 0},
]


@pytest.fixture
def page(world: World, client: TestClient) -> Any:
    world.exist(flow="batch-inference", mlflow_run_id="m")
    return lambda: client.get(f"/runs/{RUN}").text


def test_reasons_are_shown_while_it_runs(world: World, page: Any) -> None:
    world.tracked_as["m"] = tracked(tags={REASONS_TAG: json.dumps(REASONS)})
    shown = page()

    assert "By reason, the most frequent first" in shown
    assert 'data-label="Records" class="value">1,200</td>' in shown
    assert "could not convert &lt;script&gt;" in shown
    assert "july/a.jsonl, row 7" in shown
    assert "<script>alert" not in shown
    assert "statistics.png" not in shown


def test_its_plot_and_manifest_are_shown_at_its_end(
    world: World, page: Any, client: TestClient
) -> None:
    world.tracked_as["m"] = tracked(tags={MANIFEST_TAG: "s3://bucket/out/manifest.json"})
    world.artifacts["m", "results/statistics.png"] = PNG
    shown = page()

    assert "s3://bucket/out/manifest.json" in shown
    assert f'src="/runs/{RUN}/statistics.png"' in shown
    assert "Failed records" not in shown
    answer = client.get(f"/runs/{RUN}/statistics.png")
    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize("there", [None, b"<script>alert(1)</script>"])
def test_nothing_but_an_image_is_a_plot(
    world: World, page: Any, client: TestClient, there: bytes | None
) -> None:
    if there is not None:
        world.artifacts["m", "results/statistics.png"] = there
    answer = client.get(f"/runs/{RUN}/statistics.png")

    assert answer.status_code == 404
    assert "has no plot of statistics" in answer.text
    assert client.get("/runs/not-a-run/statistics.png").status_code == 404


def test_without_mlflow_the_page_is_there(page: Any) -> None:
    assert "batch-inference" in page()
