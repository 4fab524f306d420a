"""Where a run goes: its pool's machines, and the refusal of what a cluster can never give."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect.client.orchestration import get_client

from flows import catalogue
from flows.lifecycle import LifecycleFlow
from infra import settings, site, work_pools
from infra.errors import BadInputError
from infra.kubernetes import capacity_published, cluster
from infra.kubernetes.attempt_spec import EVERY_MOUNT
from tasks import placement


def checked(flow: LifecycleFlow[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters for a run in the flow's pool, as Prefect gets them.

    Where the pool is a cluster's, they are checked as far as this machine can tell, and against
    what the cluster can give.

    Raises:
        ModelyardError: If they are refused. Needs a connection.
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
    """Refuse a run that its pool's cluster has no place for, itself or the runs that it makes.

    The cluster's capacity is what its worker has published; an unknown capacity refuses nothing.

    Args:
        flow: The flow's name.
        given: The run's parameters, complete.

    Raises:
        ClusterError: With the numbers of what is asked for and of what there is.
        BadInputError: With the code ``NasUnknown``, of a network folder.
    """
    wanted = placement.asked(flow, given)
    _check_mounts({mount for one in wanted for mount in one.placement.mounts})
    with get_client(sync_client=True) as client:
        for one in wanted:
            known = capacity_published.read(client, catalogue.find(one.flow).spec.pool)
            if known:
                placement.settled(one, known)


def _check_mounts(mounts: Iterable[str]) -> None:
    """Refuse network folders that the cluster lacks, where its configuration is known."""
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
