"""Verbs of the client: functions of lower layers, which connect for each call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from flows.connection import connected

P = ParamSpec("P")
R = TypeVar("R")


def verb(function: Callable[P, R], *, to_workers: bool = False) -> Callable[P, R]:
    """Make a verb of a function that needs a connection.

    Args:
        function: The function, whose signature and documentation are the verb's.
        to_workers: Whether it needs a stack with workers.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with connected(to_workers=to_workers):
            return function(*args, **kwargs)

    return call
