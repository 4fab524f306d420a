"""Claims of volumes that a pipeline creates and deletes, as a cluster's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.errors import NotFoundError
from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError
from infra.workloads.claims import OWNER, check_name, taken

_KIND = "PersistentVolumeClaim"


class ClusterClaims:
    """Claims in the cluster's namespace. One that a pipeline makes lives until one deletes it."""

    def __init__(self, api: Api, labels: Mapping[str, str]) -> None:
        """Make claims through ``api``, with ``labels`` on each."""
        self._api = api
        self._labels = labels

    def create(self, manifest: Mapping[str, Any], owner: str) -> str:
        """Make the claim of a manifest; its name. The same task may do so again.

        Raises:
            BadInputError: ``ClaimInvalid``.
            ConflictError: ``ClaimExists``, if another owner has made a claim of this name.
            ClusterError: If the cluster refuses it.
        """
        metadata = manifest["metadata"]
        name = str(metadata["name"])
        check_name(name)
        annotations = {**metadata.get("annotations", {}), OWNER: owner}
        labelled = {**metadata, "labels": dict(self._labels), "annotations": annotations}
        try:
            self._api.create({**manifest, "metadata": labelled})
        except ClusterError as error:
            if error.code != "Conflict":
                raise
            there = self._api.read(_KIND, name) or {}
            found = there.get("metadata", {})
            if found.get("deletionTimestamp") or found.get("annotations", {}).get(OWNER) != owner:
                raise taken(name) from None
        return name

    def delete(self, name: str) -> None:
        """Ask for a claim's end. The cluster waits with it until no pod uses it.

        Raises:
            NotFoundError: ``ClaimMissing``.
            BadInputError: ``ClaimInvalid``.
            ClusterError: If the cluster refuses it.
        """
        check_name(name)
        if not self._api.delete(_KIND, name):
            raise NotFoundError(
                f"There is no claim {name} in the namespace {self._api.namespace}.",
                "List the claims: kubectl get pvc.",
                code="ClaimMissing",
            )
