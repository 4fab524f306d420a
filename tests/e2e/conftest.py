import json

import pytest

from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack():
    made = Stack()
    nas = made.home / "nas"
    nas.mkdir()
    made.extra["MODELYARD_NAS"] = json.dumps({"n1": str(nas)})
    try:
        made.do("up", "--detach")
        yield made
    finally:
        made.close()


@pytest.fixture
def fresh():
    """A home of its own with nothing running, for tests that end or break the stack."""
    made = Stack()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def python(stack):
    return stack.python
