"""Facts about Kubeflow Pipelines' recurring runs, as data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "schedules.json").read_text()
)
