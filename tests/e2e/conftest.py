"""The stacks that tests share: one of each kind, for the whole session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import group_of
from tests.e2e.stack import Stack

SECRET = "canary-of-the-object-storage"

_up: dict[str, Stack] = {}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End a stack after the last test that wants it, which is not the end of the session."""
    group = group_of(item)
    if nextitem is not None and group_of(nextitem) != group and group in _up:
        _up.pop(group).close()


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack with a NAS, and with the keys of an object storage in a block of Prefect's."""
    made = Stack()
    nas = made.home.with_name("nas")  # the home is no place for outputs
    nas.mkdir()
    made.extra = {
        "MODELYARD_NAS": json.dumps({"n1": str(nas)}),
        "MODELYARD_OBS_ACCESS_KEY_ID": "key",
        "MODELYARD_OBS_SECRET_ACCESS_KEY": "secret:storage",
        "MODELYARD_CHECKPOINT_SECONDS": "0.3",
    }
    try:
        made.do("up", "--detach")
        made.execute(
            "from prefect.blocks.system import Secret\n"
            "from flows.connection import connected\n"
            f"with connected():\n    Secret(value={SECRET!r}).save('storage')\n"
        )
        _up["stack"] = made
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def spare() -> Iterator[Stack]:
    """A second stack, with two GPUs, for tests that break or crowd theirs."""
    made = Stack()
    made.extra["MODELYARD_GPUS"] = ",".join(gpus_of(made))  # as no other stack has
    try:
        made.do("up", "--detach")
        del made.extra["MODELYARD_GPUS"]  # a setting of the stack, whatever a shell has
        _up["spare"] = made
        yield made
    finally:
        made.close()


def gpus_of(stack: Stack) -> set[str]:
    """The names of the spare stack's GPUs."""
    return {f"{stack.home.parent.name}-a", f"{stack.home.parent.name}-b"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A stack whose runs are pods of the small cluster."""
    from tests.e2e import cluster_stack

    with cluster_stack.running() as made:
        _up["cluster"] = made
        yield made


@pytest.fixture(scope="session")
def bare_home() -> Iterator[Stack]:
    """A home in which nothing runs before and after a test."""
    made = Stack()
    try:
        yield made
    finally:
        made.close()
