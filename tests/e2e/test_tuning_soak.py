"""A tuning that is disturbed by kills; `make soak` disturbs many."""

import pytest

from tests.e2e.tuning_soak import soak

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(600)
def test_whatever_is_killed_a_tuning_loses_and_repeats_nothing():
    tally = soak(tunings=1, seed=1)
    assert tally.kept, tally
    assert sum(tally.kills.values()) > 0
    assert tally.states == {"COMPLETE MaxTrialsReached": 1}, tally
