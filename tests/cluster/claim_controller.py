"""Volumes on request: the claims of pods, and their binding."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

from tests.cluster.control_loop import ControlLoop
from tests.cluster.events import Teller
from tests.cluster.store import Missing, Refusal, Store

_CHOSEN = "volume.kubernetes.io/selected-node"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_CLAIM = "PersistentVolumeClaim"


class ClaimController(ControlLoop):
    """Makes the claims of generic ephemeral volumes, and binds those of known classes.

    The nodes make the folder of a bound claim, and remove it with the claim.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._ephemeral = Teller(store, "ephemeral_volume")
        self._binder = Teller(store, "persistentvolume-controller")

    async def _go_on(self) -> None:
        async for change, kind, obj in self._store.watch(("Pod", _CLAIM, "StorageClass")):
            if change == "DELETED":
                continue
            if kind == "Pod":
                self._claim_for(obj)
            elif kind == _CLAIM:
                self._bind(obj["metadata"]["namespace"], obj["metadata"]["name"])
            else:
                for claim in self._store.list(_CLAIM):
                    self._bind(claim["metadata"]["namespace"], claim["metadata"]["name"])

    def _claim_for(self, pod: Mapping[str, Any]) -> None:
        """Make the claims that a pod's own volumes are."""
        meta = pod["metadata"]
        if "deletionTimestamp" in meta or pod["spec"].get("nodeName"):
            return
        for volume in pod["spec"].get("volumes") or []:
            template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
            if template is None:
                continue
            name = f"{meta['name']}-{volume['name']}"
            if self._store.find(_CLAIM, meta["namespace"], name) is not None:
                continue
            owner = {
                "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"],
                "controller": True, "blockOwnerDeletion": True,
            }  # fmt: skip
            claim = {
                "metadata": {
                    **copy.deepcopy(template.get("metadata") or {}),
                    "name": name,
                    "namespace": meta["namespace"],
                    "ownerReferences": [owner],
                },
                "spec": copy.deepcopy(template["spec"]),
            }
            try:
                self._store.create(_CLAIM, claim)
            except Refusal as refusal:
                told = f"ephemeral volume controller failed: {refusal}"
                self._ephemeral.tell(pod, "FailedBinding", told, "Warning")

    def _bind(self, namespace: str, name: str) -> None:
        claim = self._store.find(_CLAIM, namespace, name)
        if claim is None or (claim.get("status") or {}).get("phase") == "Bound":
            return
        found = self._class_of(claim)
        if found is None:
            self._store.set_status(_CLAIM, namespace, name, {"phase": "Pending"})
            wanted = claim["spec"].get("storageClassName")
            if wanted:
                told = f'storageclass.storage.k8s.io "{wanted}" not found'
                self._binder.tell(claim, "ProvisioningFailed", told, "Warning")
            else:
                told = "no persistent volumes available for this claim and no storage class is set"
                self._binder.tell(claim, "FailedBinding", told)
            return
        chosen = (claim["metadata"].get("annotations") or {}).get(_CHOSEN)
        if found.get("volumeBindingMode") == "WaitForFirstConsumer" and not chosen:
            self._store.set_status(_CLAIM, namespace, name, {"phase": "Pending"})
            told = "waiting for first consumer to be created before binding"
            self._binder.tell(claim, "WaitForFirstConsumer", told)
            return
        with contextlib.suppress(Missing):
            self._give(claim, namespace, name)

    def _give(self, claim: dict[str, Any], namespace: str, name: str) -> None:
        key = (_CLAIM, namespace, name)
        had = self._store.objects[key]
        volume = f"pvc-{claim['metadata']['uid']}"
        asked = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
        new = {
            **claim,
            "metadata": dict(had["metadata"]),
            "spec": {**claim["spec"], "volumeName": volume},
            "status": {
                "phase": "Bound",
                "accessModes": claim["spec"].get("accessModes", []),
                "capacity": {"storage": asked},
            },
        }
        self._store.keep(key, had, new)  # the spec is closed to everybody else

    def _class_of(self, claim: Mapping[str, Any]) -> dict[str, Any] | None:
        name = claim["spec"].get("storageClassName")
        if name:
            return self._store.find("StorageClass", None, name)
        for one in self._store.list("StorageClass") if name is None else []:
            if (one["metadata"].get("annotations") or {}).get(_DEFAULT) == "true":
                return one
        return None
