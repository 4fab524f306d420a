"""Where a tuning's trials run: beside it, or each as a run of its own in a pool."""

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
    """Where the trials run. By itself a tuning uses the pool only where that is other machines.

    On this machine's own pools a run of its own for each trial would only cost time.
    """
    if tuning.dispatch != "auto":
        return tuning.dispatch
    return "inline" if trial_flows.pool_type() in {None, PROCESS_TYPE} else "pool"


@contextmanager
def where_trials_run(tuning: Tuning) -> Iterator[None]:
    """Check, for the while, what the trials need where they run, which may be elsewhere."""
    if resolved(tuning) == "pool" and work_pools.is_remote_type(trial_flows.pool_type()):
        with site.validating_for_remote():
            yield
    else:
        yield


def check(tuning: Tuning) -> None:
    """Refuse trials that nobody would run, or too many at once.

    How many processes the machine takes is asked only where it is the tuning's own.

    Raises:
        StackError: If the trials are to run in a pool, and there is none.
        BadInputError: With the code ``ParallelTrialsTooMany``.
    """
    if resolved(tuning) == "inline":
        if site.is_validating_for_remote():
            return
        most = resources.most_processes()
        tuning_request.check_parallel(tuning.resources, tuning.parallel_trials, most)
    elif trial_flows.pool_type() is None:
        raise StackError(
            "The trials are to run in a pool, and there is none.",
            "Start the stack (modelyard up --detach), or leave dispatch to auto.",
            code="PoolMissing",
        )
