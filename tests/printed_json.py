"""What commands print with ``--json``, reduced to keys and types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard import output


def shape(value: Any) -> Any:
    """Keys with the types of their values; of a list, its distinct shapes in order."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape(inner) for inner in value]
        return [one for number, one in enumerate(shapes) if one not in shapes[:number]]
    return type(value).__name__


def printed(capsys: pytest.CaptureFixture[str], value: Any) -> Any:
    """``value`` as ``--json`` prints it."""
    capsys.readouterr()
    output.as_json(value)
    return json.loads(capsys.readouterr().out)
