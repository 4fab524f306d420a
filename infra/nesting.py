"""How deep the parameters of a run may be nested.

Prefect keeps parameters of any depth, but cannot write a run whose parameters are hundreds of
levels deep. A single one breaks every listing that includes it, with the status 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 32  # levels of lists and mappings; more than people write, far fewer than Prefect writes
# Of a whole request, in which Prefect's own levels are around the parameters.
_DEEPEST_BODY = 2 * DEEPEST


def is_too_deep(value: Any, levels: int = DEEPEST) -> bool:
    """Whether a value has more than so many levels of lists and mappings."""
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping | list | tuple):
        return False
    return levels == 0 or any(is_too_deep(one, levels - 1) for one in inner)


def is_body_too_deep(body: bytes) -> bool:
    """Whether the JSON of a request is nested too deep; what is no JSON is not."""
    if body.count(b"[") + body.count(b"{") <= _DEEPEST_BODY:
        return False
    try:
        return is_too_deep(json.loads(body), _DEEPEST_BODY)
    except RecursionError:
        return True
    except ValueError:
        return False
