from __future__ import annotations

from infra.kubernetes.jobs import AttemptStatus
from infra.kubernetes.queue import rank_runs
from tests.infra.kubernetes.objects import job, pod


def waiting(
    run: str, age: float, *, gpus: int = 1, product: str = "A100", priority: int = 0
) -> AttemptStatus:
    made = job(run=run, age=age)
    requests = {"cpu": "1"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    made["spec"]["template"] = {"spec": {
        "nodeSelector": {"nvidia.com/gpu.product": product} if gpus else {},
        "containers": [{"name": "run", "resources": {"requests": requests}}],
    }}  # fmt: skip
    one = pod("Pending", run=run, node="")
    one["spec"]["priority"] = priority
    return AttemptStatus(run, 1, (made,), (one,) if priority else ())


def told(*queued: AttemptStatus) -> dict[str, str]:
    return {run: str(place) for run, place in rank_runs(queued).items()}


def test_the_oldest_is_first() -> None:
    assert told(waiting("young", 10), waiting("old", 99), waiting("middle", 50)) == {
        "old": "Place 1 of 3 in the queue.",
        "middle": "Place 2 of 3 in the queue.",
        "young": "Place 3 of 3 in the queue.",
    }


def test_a_higher_priority_comes_before() -> None:
    assert told(waiting("old", 99), waiting("urgent", 10, priority=5))["urgent"].startswith(
        "Place 1"
    )


def test_who_asks_for_something_else_is_in_another_queue() -> None:
    queues = told(waiting("a", 9), waiting("b", 8, product="T4"), waiting("c", 7, gpus=0))

    assert set(queues.values()) == {"Place 1 of 1 in the queue."}


def test_the_number_of_gpus_makes_no_other_queue() -> None:
    assert told(waiting("a", 9, gpus=8), waiting("b", 8))["b"] == "Place 2 of 2 in the queue."
