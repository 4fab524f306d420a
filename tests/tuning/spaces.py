"""Parameters of search spaces, as tests write them."""

from __future__ import annotations

from typing import Any

from tuning.space import Parameter


def double(low: float, high: float, step: float | None = None, **others: Any) -> Parameter:
    return Parameter(
        **{"name": "x", "type": "double", "min": low, "max": high, "step": step, **others}
    )


def integer(low: float, high: float, step: float | None = None, **others: Any) -> Parameter:
    return Parameter(
        **{"name": "n", "type": "int", "min": low, "max": high, "step": step, **others}
    )


def choice(*values: Any, **others: Any) -> Parameter:
    return Parameter(**{"name": "c", "type": "categorical", "values": list(values), **others})
