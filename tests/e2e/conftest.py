import subprocess
import sys

import pytest

from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack():
    made = Stack()
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
    """Run Python code in a process of its own against the stack; its standard output."""

    def run(code: str, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**stack.env, **env}, capture_output=True, text=True, timeout=180, cwd=stack.home,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
