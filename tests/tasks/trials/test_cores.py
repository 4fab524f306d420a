"""How trials that run at once share the machine's cores."""

import os

import pytest

from tasks.trials.inline import share_of_cores


@pytest.mark.parametrize(
    ("cores", "parallel", "processes", "threads"),
    [(8, 2, 1, "4"), (8, 3, 1, "2"), (8, 2, 2, "2"), (2, 2, 1, "1"), (2, 16, 4, "1")],
)
def test_each_process_of_each_trial_has_its_share(
    monkeypatch, cores, parallel, processes, threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)

    assert share_of_cores(parallel, processes) == {"OMP_NUM_THREADS": threads}


def test_one_trial_at_a_time_has_what_a_training_has(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    assert share_of_cores(1, 4) == {}


def test_what_somebody_has_set_is_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    assert share_of_cores(2, 1) == {}
