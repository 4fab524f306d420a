"""A short soak; `make soak` is the long one."""

import random

import pytest

from tests.e2e.soak import soak

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(600)
def test_whatever_is_killed_no_run_is_lost_or_stuck_and_no_process_is_left():
    seed = random.SystemRandom().randrange(10**6)
    tally = soak(kills=5, seed=seed)
    assert tally.kept, f"seed {seed}: {tally}"
    assert sum(tally.kills.values()) == 5
    assert tally.states["COMPLETE"] > 0, tally
