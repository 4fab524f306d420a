"""The limits of a tuning, which can be changed while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.logging import get_run_logger

from infra.prefect_client import prefect_client
from tasks.tuning import tuning_request
from tasks.tuning.tuning_request import Tuning
from tuning.completion import TuningLimits

_POLL_SECONDS = 2.0


class LiveLimits:
    """The current limits, read from the parameters of the tuning's run."""

    def __init__(self, request: Tuning, flow_run_id: str) -> None:
        """Begin with the limits of the request."""
        self._now = request.limits
        self._id = UUID(flow_run_id)

    def __call__(self) -> TuningLimits:
        """The limits as they are now."""
        return self._now

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow changes of the limits."""
        done = threading.Event()
        logger = get_run_logger()

        def follow() -> None:
            while not done.wait(_POLL_SECONDS):
                try:
                    with prefect_client() as client:
                        found = tuning_request.limits(client.read_flow_run(self._id).parameters)
                except Exception as error:  # noqa: BLE001 (the edge of the loop; tried again)
                    logger.debug("The limits could not be read: %s", error)
                    continue
                if found != self._now:
                    logger.info("The limits are now %s.", tuning_request.describe_limits(found))
                    self._now = found

        thread = threading.Thread(target=follow, daemon=True, name="limits")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_POLL_SECONDS)
