"""A pipeline run that is disturbed by kills; ``tests.e2e.pipeline_soak`` disturbs many."""

import pytest

from tests.e2e.pipeline_soak import soak

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(600)
def test_whatever_is_killed_no_task_that_has_ended_runs_again():
    tally = soak(runs=1, seed=2, kills=(3, 3))
    assert tally.kept, tally
    assert 1 <= sum(tally.kills.values()) <= 3, tally  # the run may be over before the last
    assert tally.states == {"COMPLETE": 1}, tally
