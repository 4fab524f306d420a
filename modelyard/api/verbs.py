"""Verbs of the client: functions of lower layers, which connect for each call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from flows.connection import connected

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


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


def noun(name: str) -> Callable[[type[C]], type[C]]:
    """Make a noun of a class of verbs, whose errors of calls name the public verb.

    Args:
        name: The client's attribute.
    """

    def decorate(verbs: type[C]) -> type[C]:
        for own, found in list(vars(verbs).items()):
            if isinstance(found, staticmethod):
                public = _named(found.__func__, own, f"client.{name}.{own}")
                setattr(verbs, own, staticmethod(public))
        return verbs

    return decorate


def _named(function: Callable[..., Any], own: str, public: str) -> Callable[..., Any]:
    parameters = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            parameters.bind(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join(parameters.parameters)
            raise TypeError(f"{public}(): {error}. It takes: {takes}.") from None
        return function(*args, **kwargs)

    call.__name__, call.__qualname__ = own, public
    return call
