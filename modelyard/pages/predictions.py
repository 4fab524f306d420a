"""The results of a batch inference on its page: why records failed, and the statistics' plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import Response

from infra.errors import NotFoundError
from modelyard.pages import listing
from modelyard.pages.servers import TrackedRun
from pipelines.drawing import text
from registry import batch_inference_results
from registry.runs.run_views import RunView

_MOST_BYTES = 4 * 2**20
_PNG = b"\x89PNG\r\n\x1a\n"


class PlotSource(Protocol):
    """Prefect and MLflow: see ``servers.Servers``."""

    def run(self, run_id: str) -> RunView | None:
        """A run."""

    def artifact(self, mlflow_run_id: str, path: str, most: int) -> bytes | None:
        """An artifact of a run."""


@dataclass(frozen=True)
class ShownReason:
    """A reason for which records failed.

    Attributes:
        count: How many failed for it.
        reason: The first one's.
        place: The first one's file and row.
    """

    count: str
    reason: str
    place: str


@dataclass(frozen=True)
class PredictionsView:
    """The results of a batch inference.

    Attributes:
        reasons: Why records failed, the most frequent reason first.
        plot: Path of the plot of the statistics; empty before there is one.
        output: URI of the manifest; empty before it is published.
    """

    reasons: Sequence[ShownReason] = ()
    plot: str = ""
    output: str = ""


def of(run: RunView, tracked: TrackedRun | None) -> PredictionsView:
    """Return the results of a batch inference.

    Args:
        run: Its run.
        tracked: The same as MLflow has it; None before that, or where MLflow does not answer.
    """
    if tracked is None:
        return PredictionsView()
    output = tracked.tags.get(batch_inference_results.MANIFEST_TAG, "")
    return PredictionsView(
        reasons=[
            ShownReason(
                count=f"{one.count:,}",
                reason=listing.shortened(text.plain(one.reason)),
                place=f"{text.plain(one.file)}, row {one.row}",
            )
            for one in batch_inference_results.failure_reasons(tracked.tags)
        ],
        plot=f"/runs/{run.id}/statistics.png" if output else "",
        output=text.plain(output),
    )


def plot(servers: PlotSource, run_id: str) -> Response:
    """Return the plot of a batch inference's statistics.

    Raises:
        NotFoundError: If there is none.
        StackError: If Prefect or MLflow does not answer.
    """
    run = servers.run(run_id)
    tracked_run = run.mlflow_run_id if run else None
    found = (
        servers.artifact(tracked_run, batch_inference_results.PLOT, _MOST_BYTES)
        if tracked_run
        else None
    )
    # What MLflow has there could be another's: nothing but an image is shown.
    if found is None or not found.startswith(_PNG):
        raise NotFoundError(
            f"The run {run_id} has no plot of statistics.",
            "A batch inference has one once it is complete.",
        )
    return Response(found, media_type="image/png")
