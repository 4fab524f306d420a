"""A few disturbances of a cluster; ``make soak`` does a hundred."""

import pytest

from tests.e2e.kubernetes_soak import soak

pytestmark = pytest.mark.e2e


def test_what_befalls_a_cluster_costs_no_run_its_end():
    tally = soak(10, seed=7)

    assert tally.kept, tally
    assert sum(tally.ends.values()) >= 4
