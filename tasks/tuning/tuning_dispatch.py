"""Dispatch of a tuning's trials: inline in its process, or as runs in a work pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from infra import site, work_pools
from infra.errors import StackError
from infra.work_pools import PROCESS_TYPE
from registry.tunings import trial_flows
from tasks import resources
from tasks.tuning import tuning_request
from tasks.tuning.tuning_request import Tuning


def resolved(tuning: Tuning) -> Literal["inline", "pool"]:
    """Resolve ``auto``: a pool on other machines, otherwise inline.

    In a local pool, a separate run for each trial only costs time.
    """
    if tuning.dispatch != "auto":
        return tuning.dispatch
    return "inline" if trial_flows.pool_type() in {None, PROCESS_TYPE} else "pool"


@contextmanager
def where_trials_run(tuning: Tuning) -> Iterator[None]:
    """Validate for the site of the trials while the context is open."""
    if resolved(tuning) == "pool" and work_pools.is_remote_type(trial_flows.pool_type()):
        with site.validating_for_remote():
            yield
    else:
        yield


def check(tuning: Tuning) -> None:
    """Refuse trials without a pool that runs them, or too many inline ones at once.

    The limit of processes is checked only if the tuning runs on this machine.

    Raises:
        StackError: If the trials are to run in a pool that does not exist.
        BadInputError: With the code ``ParallelTrialsTooMany``.
    """
    if resolved(tuning) == "inline":
        if site.is_validating_for_remote():
            return
        most = resources.max_local_processes()
        tuning_request.check_parallel(tuning.resources, tuning.parallel_trials, most)
    elif trial_flows.pool_type() is None:
        raise StackError(
            "dispatch is pool, but the work pool of the trials does not exist.",
            "Start the stack (modelyard up --detach), or set dispatch to auto.",
            code="PoolMissing",
        )
