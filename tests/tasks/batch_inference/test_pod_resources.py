"""Resources of pods: an instance's, less the basic use, divided."""

import pytest

from infra.errors import BadInputError
from infra.instance_types import InstanceType
from tasks.batch_inference import pod_resources
from tasks.batch_inference.pod_resources import PodResources, divide_instance

GIB = 2**30


@pytest.mark.parametrize(
    ("gpus", "nodes", "pods", "expected"),
    [
        (0, 1, 1, PodResources(7.5, 30 * GIB)),
        (0, 1, 4, PodResources(1.875, 30 * GIB // 4)),
        (0, 2, 4, PodResources(3.75, 15 * GIB)),
        (0, 2, 3, PodResources(3.75, 15 * GIB)),  # an instance has two of them, or one
        (8, 1, 2, PodResources(3.75, 15 * GIB, 4)),
        (8, 1, 3, PodResources(2.5, 10 * GIB, 2, 2)),
        (4, 4, 16, PodResources(1.875, 30 * GIB // 4, 1)),
    ],
)
def test_an_instance_is_divided(gpus: int, nodes: int, pods: int, expected: PodResources) -> None:
    shape = InstanceType(cpu=8, memory_gib=32, gpus=gpus)

    assert divide_instance(shape, nodes, pods) == expected


@pytest.mark.parametrize(
    ("gpus", "nodes", "pods", "code"), [(0, 3, 2, "PodsTooFew"), (2, 2, 5, "PodsExceedGpus")]
)
def test_what_does_not_divide_is_refused(gpus: int, nodes: int, pods: int, code: str) -> None:
    with pytest.raises(BadInputError) as raised:
        divide_instance(InstanceType(cpu=8, memory_gib=32, gpus=gpus), nodes, pods)

    assert raised.value.code == code


@pytest.mark.parametrize(
    ("pod", "model_bytes", "is_refused"),
    [
        (PodResources(0.1, GIB), 0, False),
        (PodResources(0.09, GIB), 0, True),
        (PodResources(1, 4 * GIB), 3 * GIB, False),
        (PodResources(1, 4 * GIB), 3 * GIB + 1, True),
        (PodResources(0, 0), 0, True),
    ],
)
def test_pods_below_what_a_model_needs_are_refused(
    pod: PodResources, model_bytes: int, is_refused: bool
) -> None:
    if not is_refused:
        pod_resources.check(pod, 2, model_bytes)
        return
    with pytest.raises(BadInputError) as raised:
        pod_resources.check(pod, 2, model_bytes)
    assert raised.value.code == "PodsTooSmall"


@pytest.mark.parametrize(
    ("pod", "shard", "server"),
    [
        (PodResources(1.5, 6 * GIB), PodResources(0.375, GIB), PodResources(1.125, 5 * GIB)),
        (PodResources(3, 12 * GIB, 1), PodResources(0.75, 3 * GIB // 2),
         PodResources(2.25, 21 * GIB // 2, 1)),
        (PodResources(31.5, 254 * GIB, 8), PodResources(1, 2 * GIB),
         PodResources(30.5, 252 * GIB, 8)),
        (PodResources(0.2, 2 * GIB), PodResources(0.1, GIB), PodResources(0.1, GIB)),
    ],
)  # fmt: skip
def test_a_pod_is_divided_between_its_shard_and_its_server(
    pod: PodResources, shard: PodResources, server: PodResources
) -> None:
    divided = pod_resources.divide_pod(pod)

    assert (divided.shard, divided.server) == (shard, server)


@pytest.mark.parametrize(
    ("pod", "model_bytes", "is_refused"),
    [
        (PodResources(0.2, 2 * GIB), 0, False),
        (PodResources(0.19, 2 * GIB), 0, True),
        (PodResources(1, 5 * GIB), 3 * GIB, False),
        (PodResources(1, 5 * GIB), 3 * GIB + 1, True),
    ],
)
def test_pods_have_room_for_their_server(
    pod: PodResources, model_bytes: int, is_refused: bool
) -> None:
    if not is_refused:
        pod_resources.check(pod, 2, model_bytes, has_server=True)
        return
    with pytest.raises(BadInputError, match=r"the model needs 0.2 cores") as raised:
        pod_resources.check(pod, 2, model_bytes, has_server=True)
    assert raised.value.code == "PodsTooSmall"
