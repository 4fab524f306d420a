"""The template of a cluster's pools, as Prefect reads it."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import pytest
from prefect.utilities.templating import find_placeholders
from prefect.workers.base import BaseJobConfiguration

from infra.kubernetes import pool_template


class Configuration(BaseJobConfiguration):
    """What a worker reads."""

    image: str = "unset"
    priority_class: str = "unset"


class NoBlocks:
    """A Prefect in which nothing is kept."""


def _resolved(values: dict[str, Any]) -> Configuration:
    template = pool_template.template()
    found = Configuration.from_template_and_values(template, values, client=NoBlocks())
    return asyncio.run(found)


def test_what_a_run_leaves_out_is_the_clusters() -> None:
    found = _resolved({})

    assert (found.image, found.priority_class, found.env) == ("", "", {})
    assert (found.name, found.command, found.labels) == (None, None, {})


def test_what_a_deployment_sets() -> None:
    found = _resolved({"image": "mine:1", "env": {"A": "b"}, "priority_class": "high"})

    assert (found.image, found.priority_class, found.env) == ("mine:1", "high", {"A": "b"})


def test_every_placeholder_is_a_variable() -> None:
    template = pool_template.template()
    named = {one.name for one in find_placeholders(template["job_configuration"])}

    assert named == set(template["variables"]["properties"])


@pytest.mark.parametrize("wrong", [{"env": {"A": 1}}, {"image": 7}, {"env": ["A"]}], ids=str)
def test_values_of_another_kind_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, pool_template.template()["variables"])
