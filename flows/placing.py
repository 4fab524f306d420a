"""Refuse at submission what a cluster can never give, before a run exists."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prefect.client.orchestration import get_client

from infra import settings
from infra.errors import BadInputError
from infra.kubernetes import capacity_published, cluster
from infra.kubernetes.wanted import EVERY_MOUNT
from tasks import placement


def check(flow: str, given: Mapping[str, Any], pool_of: Callable[[str], str]) -> None:
    """Refuse a run that its pool's cluster has no place for, itself or what it starts.

    What the cluster can give is what its worker has told; without that it is asked in vain later.

    Args:
        flow: The flow's name.
        given: The run's parameters, complete.
        pool_of: Tells the pool of a flow.

    Raises:
        ClusterError: With the numbers of what is asked for and of what there is.
        BadInputError: With the code ``NasUnknown``, of a network folder.
    """
    asked = placement.asked(flow, given)
    _check_mounts({mount for one in asked for mount in one.placement.mounts})
    with get_client(sync_client=True) as client:
        for one in asked:
            known = capacity_published.read(client, pool_of(one.flow))
            if known:
                placement.settled(one, known)


def _check_mounts(mounts: Iterable[str]) -> None:
    """Refuse network folders that the cluster has not, where its configuration is known here."""
    configured = settings.load()
    if not configured.cluster:
        return
    known = cluster.load(configured).nas
    for mount in sorted(mounts):
        if mount not in {*known, EVERY_MOUNT}:
            near = difflib.get_close_matches(mount, known, 3, 0) or ["none"]
            raise BadInputError(
                f"The cluster has no NAS {mount}. Known are: {', '.join(near)}.",
                "Name one of those, or add it to nas in the cluster's configuration.",
                code="NasUnknown",
            )
