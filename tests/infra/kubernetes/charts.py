"""The chart as Helm renders it.

``python -m tests.infra.kubernetes.charts`` writes the files in ``rendered`` anew.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

CHART = Path(__file__).parents[3] / "infra/kubernetes/chart"
VALUES = Path(__file__).with_name("values")
RENDERED = Path(__file__).with_name("rendered")
NAMES = tuple(sorted(file.stem for file in VALUES.glob("*.yaml")))
NAMESPACE = "modelyard"

Object = dict[str, Any]


def values(name: str, **changes: Any) -> dict[str, Any]:
    """The values of a file, with some of its keys at the top replaced."""
    return {**yaml.safe_load((VALUES / f"{name}.yaml").read_text()), **changes}


def sources(given: dict[str, Any], release: str = "modelyard") -> dict[str, str]:
    """What each template renders to."""
    return _rendered(json.dumps(given, sort_keys=True), release)


@functools.cache
def _rendered(given: str, release: str) -> dict[str, str]:
    with helm.Chart.load(CHART) as chart:
        told = json.loads(given)
        chart.validate_schema(told)
        return chart.render(told, name=release, namespace=NAMESPACE)


def objects(given: dict[str, Any], release: str = "modelyard") -> list[Object]:
    """The objects of a release, in the order of the templates' names."""
    found = []
    for name, text in sorted(sources(given, release).items()):
        if name.endswith(".yaml"):
            found += [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]
    return found


def one(found: list[Object], kind: str, name: str) -> Object:
    """The object of a kind whose name ends so."""
    matching = [
        each
        for each in found
        if each["kind"] == kind and each["metadata"]["name"].endswith(f"-{name}")
    ]
    assert len(matching) == 1, (kind, name, [each["metadata"]["name"] for each in matching])
    return matching[0]


def golden(name: str) -> str:
    """All objects of a values file, as text; what Helm draws at random is left out."""
    found = [
        {**each, "data": dict.fromkeys(each["data"], "RANDOM")}
        if each["kind"] == "Secret"
        else each
        for each in objects(values(name))
    ]
    return yaml.dump_all(found, Dumper=yaml.CSafeDumper, sort_keys=True, width=95)


if __name__ == "__main__":
    for each in NAMES:
        (RENDERED / f"{each}.yaml").write_text(golden(each))
