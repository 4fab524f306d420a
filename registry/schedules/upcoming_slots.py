"""The slots to come, on a page of Prefect's: one artifact, rewritten in place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from infra.prefect_client import prefect_client

KEY = "upcoming-slots"
_ABOUT = "The schedules that are due next. `modelyard schedule list` shows all that there are."


def publish(table: Sequence[Mapping[str, str]]) -> None:
    """Show these rows among Prefect's artifacts, instead of those that were shown before."""
    with prefect_client() as client:
        # The client's own methods emit an event each time, which a page that changes twice a
        # minute is not worth.
        data = {"data": json.dumps(list(table)), "description": _ABOUT}
        # For a key alone Prefect tells the id of the collection, not that of the artifact.
        asked = {"artifacts": {"key": {"any_": [KEY]}}, "limit": 1}
        found = client.request("POST", "/artifacts/latest/filter", json=asked).json()
        if found:
            latest = {"id": found[0]["latest_id"]}
            client.request("PATCH", "/artifacts/{id}", path_params=latest, json=data)
        else:
            client.request("POST", "/artifacts/", json={"key": KEY, "type": "table", **data})
