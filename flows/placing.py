"""Validation of a run for the site of its pool: this machine, or a cluster's capacity."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from flows import catalogue
from flows.lifecycle import LifecycleFlow
from infra import settings, site, work_pools
from infra.errors import BadInputError
from infra.kubernetes import capacity_published, cluster
from infra.kubernetes.attempt_spec import EVERY_MOUNT, Placement
from infra.prefect_client import prefect_client
from tasks import placement
from tasks.placement import PlacementRequest


def checked(flow: LifecycleFlow[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters for a run in the flow's pool; the complete parameters for Prefect.

    For the pool of a cluster, checks that need the run's machine are left to the run, and its
    pods are checked against the cluster's capacity. Needs a connection.

    Raises:
        ModelyardError: If the parameters are refused.
    """
    with where_it_runs(flow):
        complete = flow.checked(given)
        if site.is_validating_for_remote():
            check(flow.name, complete)
    return complete


def where_it_runs(flow: LifecycleFlow[..., Any]) -> AbstractContextManager[None]:
    """Validate for the site of the flow's pool: this machine, or a cluster."""
    return site.validating_for_remote() if work_pools.is_remote(flow.spec.pool) else nullcontext()


def check(flow: str, given: Mapping[str, Any]) -> None:
    """Refuse a run if the cluster can never place its pods, or those of runs that it creates.

    The capacity is the one that the cluster's worker has published; an unknown capacity refuses
    nothing.

    Args:
        flow: Name of the flow.
        given: Complete parameters of the run.

    Raises:
        ClusterError: With the requested and the available amounts.
        BadInputError: With the code ``NasUnknown`` for a network folder.
    """
    requests = placement.plan_requests(flow, given)
    _check_mounts({mount for one in requests for mount in one.placement.mounts})
    for one in requests:
        fit(one)


def fit(request: PlacementRequest) -> Placement:
    """Fit pods to the capacity that the cluster's worker has published, if that is known.

    Raises:
        ClusterError: If the cluster can never place them.
    """
    with prefect_client() as client:
        pool = catalogue.find(request.flow).spec.pool
        known = capacity_published.read(client, pool)
    return placement.fit_to_capacity(request, known) if known else request.placement


def _check_mounts(mounts: Iterable[str]) -> None:
    """Refuse network folders that the cluster's configuration, if known, does not have."""
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
