"""Whether the Secrets and variables that the cluster's file names are there.

Of Secrets and ConfigMaps only the names of keys are looked at. The account of the workers reads no
Secret; the Job that deploys does, and what it saw may be given instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from infra.connection import VARIABLES
from infra.kubernetes.api import Api
from infra.kubernetes.checks import Check, unseen
from infra.kubernetes.cluster import Cluster
from infra.kubernetes.refusals import ClusterError

_PULL_SECRET = "kubernetes.io/dockerconfigjson"  # noqa: S105 (a type)


class SecretFacts(BaseModel):
    """What may be said of a Secret: its type, and the names of its keys."""

    model_config = ConfigDict(frozen=True)

    type: str = ""
    keys: frozenset[str] = frozenset()


# By name; None for one that is not there. Those that could not be looked at are missing.
Secrets = Mapping[str, SecretFacts | None]


def named(cluster: Cluster) -> list[str]:
    """The names of all Secrets that the cluster's file names."""
    whole = [cluster.secret] if cluster.secret else []
    keys = [one.name for one in cluster.secret_env.values()]
    return sorted({*cluster.image_pull_secrets, *whole, *keys})


def inspect(api: Api, cluster: Cluster) -> dict[str, SecretFacts | None]:
    """Look at the Secrets that the cluster's file names, as far as the account may.

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
    cluster: Cluster, secrets: Secrets, config_map: frozenset[str] | None
) -> Iterator[Check]:
    """Judge what was seen of the Secrets and of the config map.

    Args:
        cluster: The cluster's configuration.
        secrets: What was seen.
        config_map: The keys of the config map that it names; None if it was not looked at.
    """
    for name in cluster.image_pull_secrets:
        if name in secrets:
            yield pull_secret(name, secrets[name])
    yield from variables(cluster, secrets, config_map)
    if hidden := [name for name in named(cluster) if name not in secrets]:
        yield unseen("secrets", f"the Secrets {', '.join(hidden)}")


def pull_secret(name: str, found: SecretFacts | None) -> Check:
    """Whether a secret of a registry is there, and is one."""
    about = f"pull secret {name}"
    if found is None:
        remedy = f"Make it: kubectl create secret docker-registry {name}."
        return Check(about, "failed", "There is none.", remedy)
    if found.type != _PULL_SECRET:
        remedy = "Make it anew with kubectl create secret docker-registry."
        return Check(about, "failed", f"It is of type {found.type}.", remedy)
    return Check(about, "ok", "It is there.")


def variables(
    cluster: Cluster, secrets: Secrets, config_map: frozenset[str] | None
) -> Iterator[Check]:
    """Whether pods get the variables that a run cannot do without."""
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
        yield unseen("variables", f"where {', '.join(missing)} would come from")
    else:
        yield Check(
            "variables",
            "failed",
            f"Pods of runs would have no {', '.join(missing)}.",
            "Add it to what config_map or secret of the cluster file names.",
        )
