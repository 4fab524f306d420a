"""The connection of a command to a stack, refused at once where none is up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flows import connection as flows_connection
from infra import connection
from infra import home as homes
from infra.connection import Endpoints
from infra.stack import client as stack
from modelyard import lazy_imports, output


def announce_temporary_stack() -> None:
    """Say that a temporary stack is started for the command, where none is up."""
    if connection.from_environment() is None and stack.status(homes.current()) is None:
        output.notice(
            "No stack is up: starting a temporary one for this call. To keep one: "
            "modelyard up --detach."
        )


@contextlib.contextmanager
def connected(*, to_workers: bool = False) -> Iterator[Endpoints]:
    """Connect a command to the servers of its environment, or to the stack that is up.

    Args:
        to_workers: Whether workers are needed, which a stack of another command does not have.

    Raises:
        StackError: If no stack is up, or a part of it does not answer.
    """
    if connection.from_environment() is None:
        stack.check_up(homes.current(), to_workers=to_workers)
    lazy_imports.complete()
    with flows_connection.connected(to_workers=to_workers) as endpoints:
        yield endpoints
