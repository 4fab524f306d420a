"""Start a flow in its pool, refusing bad input before a run exists."""

from __future__ import annotations

from typing import Any

from flows import catalogue
from infra import identity
from registry import runs


def start(flow: str, parameters: dict[str, Any]) -> str:
    """Check ``parameters`` and create a run of ``flow``, to be started by its pool.

    Args:
        flow: The flow's name.
        parameters: As its form has them; relative paths count from this process's folder.

    Returns:
        The run's id.

    Raises:
        ModelyardError: If the flow or a parameter is refused; no run exists then.
    """
    declared = catalogue.entry(flow)
    checked = declared.flow.checked(parameters)
    return runs.submit(declared.name, checked, checked.get("name") or None, identity.caller())


def copy(run: str, overrides: dict[str, Any]) -> str:
    """Start a new run with the parameters of ``run``, changed by ``overrides``; its id.

    A copy without a name of its own gets one from Prefect: two runs cannot share a name.
    """
    found = runs.show(run)
    parameters = {**found["parameters"], "name": ""}
    return start(found["flow"], _merged(parameters, overrides))


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``; groups are merged, lists and values replaced."""
    merged = {**under, **over}
    for name in under.keys() & over.keys():
        if isinstance(under[name], dict) and isinstance(over[name], dict):
            merged[name] = _merged(under[name], over[name])
    return merged
