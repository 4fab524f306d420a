from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import BadInputError
from tuning import katib

_FOLDER = Path(__file__).with_name("experiments")

NAMES = sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    return (_FOLDER / f"{name}.yaml").read_text()


def read(name: str) -> tuple[dict[str, Any], str]:
    reading = katib.read(text(name))
    return reading.parameters, "\n".join(reading.left_out)


def changed(**changes: Any) -> str:
    """The plain Experiment with fields of its spec replaced; None takes one out."""
    experiment = yaml.safe_load(text("random"))
    for name, value in changes.items():
        experiment["spec"][name] = value
        if value is None:
            del experiment["spec"][name]
    return yaml.safe_dump(experiment)


def one_parameter(**fields: Any) -> str:
    """The plain Experiment with one parameter of these fields."""
    kind = fields.pop("kind", "double")
    parameter = {"name": "learning_rate", "parameterType": kind, "feasibleSpace": fields}
    return changed(parameters=[parameter])


def trial(words: list[str], **container: Any) -> str:
    """The plain Experiment with another command."""
    experiment = yaml.safe_load(text("random"))
    template = experiment["spec"]["trialTemplate"]
    template["trialSpec"]["spec"]["template"]["spec"] = {
        "containers": [
            {"name": "training-container", "image": "i:1", "command": words, **container}
        ]
    }
    return yaml.safe_dump(experiment)


def refused(text: str) -> BadInputError:
    with pytest.raises(BadInputError) as raised:
        katib.read(text)
    assert raised.value.hint
    return raised.value
