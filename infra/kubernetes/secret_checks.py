"""Checks of the Secrets and variables that the cluster's file names.

Of Secrets and ConfigMaps only the names of keys are read. The workers' account reads no Secret;
the Job that deploys does, and publishes the facts that these checks need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from infra.connection import VARIABLES
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.kubernetes.checks import Check, not_visible
from infra.kubernetes.cluster import ClusterConfig

_PULL_SECRET = "kubernetes.io/dockerconfigjson"  # noqa: S105 (a type)


class SecretFacts(BaseModel):
    """Facts about a Secret that may be published: its type and the names of its keys."""

    model_config = ConfigDict(frozen=True)

    type: str = ""
    keys: frozenset[str] = frozenset()


# By name; None for one that does not exist. Those that could not be read are missing.
Secrets = Mapping[str, SecretFacts | None]


def named(cluster: ClusterConfig) -> list[str]:
    """List the Secrets that the cluster's file names."""
    whole = [cluster.secret] if cluster.secret else []
    keys = [one.name for one in cluster.secret_env.values()]
    return sorted({*cluster.image_pull_secrets, *whole, *keys})


def inspect(api: Api, cluster: ClusterConfig) -> dict[str, SecretFacts | None]:
    """Read facts about the Secrets that the cluster's file names, as far as permitted.

    Raises:
        ClusterError: If the cluster cannot be asked.
    """
    found: dict[str, SecretFacts | None] = {}
    for name in named(cluster):
        try:
            there = api.read("Secret", name)
        except ClusterError as error:
            if error.code != "Forbidden":
                raise
            continue
        found[name] = None if there is None else SecretFacts(
            type=str(there.get("type") or ""), keys=frozenset(there.get("data") or ())
        )  # fmt: skip
    return found


def check(
    cluster: ClusterConfig, secrets: Secrets, config_map: frozenset[str] | None
) -> Iterator[Check]:
    """Check the Secrets and the config map.

    Args:
        cluster: The cluster's configuration.
        secrets: Facts about the Secrets.
        config_map: The keys of the config map that it names; None if it was not read.
    """
    for name in cluster.image_pull_secrets:
        if name in secrets:
            yield pull_secret(name, secrets[name])
    yield from variables(cluster, secrets, config_map)
    if hidden := [name for name in named(cluster) if name not in secrets]:
        yield not_visible("secrets", f"the Secrets {', '.join(hidden)}")


def pull_secret(name: str, found: SecretFacts | None) -> Check:
    """Check that an image pull secret exists and has the right type."""
    about = f"pull secret {name}"
    if found is None:
        remedy = f"Make it: kubectl create secret docker-registry {name}."
        return Check(about, "failed", "There is none.", remedy)
    if found.type != _PULL_SECRET:
        remedy = "Make it anew with kubectl create secret docker-registry."
        return Check(about, "failed", f"It is of type {found.type}.", remedy)
    return Check(about, "ok", "It is there.")


def variables(
    cluster: ClusterConfig, secrets: Secrets, config_map: frozenset[str] | None
) -> Iterator[Check]:
    """Check that pods get the variables that a run requires."""
    wanted = {*([cluster.secret] if cluster.secret else []),
              *(one.name for one in cluster.secret_env.values())}  # fmt: skip
    for name in sorted(wanted):
        if name in secrets and secrets[name] is None:
            remedy = "Make it, or correct the cluster file."
            yield Check("variables", "failed", f"There is no Secret {name}.", remedy)
    for variable, of in cluster.secret_env.items():
        found = secrets.get(of.name)
        if found is not None and of.key not in found.keys:
            remedy = "Add the key, or correct secret_env in the cluster file."
            message = f"{variable}: the Secret {of.name} has no key {of.key}."
            yield Check("variables", "failed", message, remedy)
    whole = secrets.get(cluster.secret) if cluster.secret else None
    given = {
        *cluster.env,
        *cluster.secret_env,
        *(config_map or ()),
        *(whole.keys if whole else ()),
    }
    missing = [variable for variable in VARIABLES if variable not in given]
    hidden = (cluster.config_map and config_map is None) or (
        cluster.secret and cluster.secret not in secrets
    )
    if not missing:
        yield Check("variables", "ok", f"Pods of runs have {', '.join(VARIABLES)}.")
    elif hidden:
        yield not_visible("variables", f"where {', '.join(missing)} would come from")
    else:
        yield Check(
            "variables",
            "failed",
            f"Pods of runs would have no {', '.join(missing)}.",
            "Add it to what config_map or secret of the cluster file names.",
        )
