"""Client of a Kubernetes API server, with plain dicts as objects.

The generated models of the client package lag behind the API and drop what they do not know, so
that only its reading of kubeconfigs is used (``infra/kubernetes/access.py``). Calls are
synchronous; in an event loop they belong in a thread. One ``Api`` serves many threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from infra.kubernetes.api_errors import ApiOperation, ClusterError
from infra.kubernetes.cluster import ClusterConfig
from infra.kubernetes.transport import ApiRequest, Query, RetryPolicy, Transport

FIELD_MANAGER = "modelyard"

Objects = list[dict[str, Any]]  # in the class, list is a method

_PAGE = 500
_WATCH_SECONDS = 240


@dataclass(frozen=True)
class ResourceKind:
    """Group, version and plural of a kind of objects."""

    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; "" for the core one."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str, name: str = "") -> str:
        """Build the path of all objects of the kind, or of one."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        inside = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"{root}{inside}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


KINDS: Mapping[str, ResourceKind] = {
    "Job": ResourceKind("batch/v1", "jobs"),
    "Pod": ResourceKind("v1", "pods"),
    "Service": ResourceKind("v1", "services"),
    "Secret": ResourceKind("v1", "secrets"),
    "ConfigMap": ResourceKind("v1", "configmaps"),
    "PersistentVolumeClaim": ResourceKind("v1", "persistentvolumeclaims"),
    "Event": ResourceKind("v1", "events"),
    "ResourceQuota": ResourceKind("v1", "resourcequotas"),
    "LimitRange": ResourceKind("v1", "limitranges"),
    "ServiceAccount": ResourceKind("v1", "serviceaccounts"),
    "Node": ResourceKind("v1", "nodes", namespaced=False),
    "Namespace": ResourceKind("v1", "namespaces", namespaced=False),
    "StorageClass": ResourceKind("storage.k8s.io/v1", "storageclasses", namespaced=False),
}
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


_WRITTEN: Mapping[str, str] = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
# What a kubelet writes instead, with status 200, once it has removed the container.
_NO_LOG = "unable to retrieve container logs for "
_BRIEF = RetryPolicy(attempts=2, seconds=8.0)  # for a log, which may well not be to be had


class Api:
    """Client of one namespace of a cluster.

    All methods raise ``ClusterError``, with the codes of ``infra/kubernetes/api_errors.py``.
    Transient errors are retried first.

    Attributes:
        namespace: Where objects are looked for and made unless something else is said.
    """

    def __init__(self, cluster: ClusterConfig, patience: RetryPolicy | None = None) -> None:
        self._transport = Transport(cluster, patience or RetryPolicy())
        self.namespace = cluster.namespace or self._transport.access.namespace

    @classmethod
    def connect(cls, cluster: ClusterConfig, *, patience: RetryPolicy | None = None) -> Api:
        """Determine how to reach the cluster, without a request.

        Raises:
            ClusterError: With the code ``KubeconfigMissing``.
        """
        return cls(cluster, patience)

    @property
    def server(self) -> str:
        """Address of the API server."""
        return self._transport.access.server

    @property
    def origin(self) -> str:
        """Source of address and credentials, for people."""
        return self._transport.access.origin

    def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; fields that the server does not know are refused.

        A request whose answer was lost is repeated, so that ``Conflict`` may also mean that the
        object is the caller's own: its labels say so.
        """
        kind, namespace, name = self._of(manifest)
        operation = ApiOperation("create", kind.plural, name, namespace if kind.namespaced else "")
        return self._transport.json(
            ApiRequest(operation, "POST", kind.path(namespace), _WRITTEN, manifest)
        )

    def read(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object; None if there is none."""
        operation, path = self._one("get", kind, name, namespace)
        return self._found(ApiRequest(operation, "GET", path))

    def list(
        self,
        kind: str,
        labels: Mapping[str, str] | str = "",
        fields: str = "",
        *,
        namespace: str | None = None,
    ) -> Objects:
        """List all objects of a kind with the labels and fields, of all pages."""
        operation, path = self._one("list", kind, "", namespace)
        if not isinstance(labels, str):
            labels = ",".join(f"{key}={value}" for key, value in labels.items())
        query: Query = {"labelSelector": labels, "fieldSelector": fields, "limit": _PAGE}
        try:
            items = self._pages(operation, path, query)
        except ClusterError as error:
            if error.code != "Gone":
                raise
            # The pages had grown too old while they were read. Those of the cache do not.
            items = self._pages(operation, path, {**query, "limit": 0, "resourceVersion": "0"})
        return [{"apiVersion": KINDS[kind].api_version, "kind": kind, **item} for item in items]

    @contextmanager
    def watch(self, kind: str, labels: Mapping[str, str]) -> Iterator[Iterator[dict[str, Any]]]:
        """Events of all objects of a kind that have the labels: first those that there are.

        The context is entered once the server has answered. The events end after some minutes,
        when the server closes the watch.

        Raises:
            ClusterError: Also if the connection breaks.
        """
        operation, path = self._one("watch", kind, "", None)
        query: Query = {
            "watch": "true",
            "labelSelector": ",".join(f"{key}={value}" for key, value in labels.items()),
            "timeoutSeconds": _WATCH_SECONDS,
        }
        with self._transport.stream(
            ApiRequest(operation, "GET", path, query), 2 * _WATCH_SECONDS
        ) as parts:
            yield map(json.loads, _lines(parts))

    def delete(
        self,
        kind: str,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
        uid: str = "",
    ) -> bool:
        """Delete an object, which may end later; return False if there was none.

        Args:
            kind: The object's kind.
            name: The object's name.
            grace_seconds: How long its processes may tidy up; 0 takes it away at once.
            propagation: The deletion policy of the objects that it owns.
            uid: Only the object that has it: another of the same name counts as none.
        """
        operation, path = self._one("delete", kind, name, None)
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            return self._found(ApiRequest(operation, "DELETE", path, None, options)) is not None
        except ClusterError as error:
            if uid and error.code == "Conflict":
                return False
            raise

    def log(
        self,
        pod: str,
        container: str = "",
        *,
        lines: int | None = None,
        since_seconds: int | None = None,
        previous: bool = False,
    ) -> str | None:
        """Read a container's log, or its last ``lines``; None if it is not available.

        That is so before the container has started, and when its node does not answer.
        """
        request = self._log_request(
            pod,
            {
                "container": container,
                "tailLines": lines,
                "sinceSeconds": since_seconds,
                "previous": "true" if previous else None,
            },
        )
        try:
            text = self._transport.text(request, _BRIEF)
            return None if text.startswith(_NO_LOG) else text
        except ClusterError as error:
            # 5xx means that the node, or the server, does not answer; other calls show which.
            if error.status in (400, 404) or error.status >= 500:
                return None
            raise

    def follow_log(
        self,
        pod: str,
        container: str = "",
        *,
        since_time: str = "",
        timestamps: bool = False,
        silent_seconds: float = 300.0,
    ) -> Iterator[str]:
        """Stream the lines of a container's log as they are written, without line ends.

        It ends when the server ends it: with the container, or when the node's part of it or the
        server starts anew.

        Args:
            pod: The pod's name.
            container: The container's name; needed if the pod has several.
            since_time: Only lines from then on (RFC 3339); the server counts whole seconds.
            timestamps: Whether each line begins with its time and a space.
            silent_seconds: After how long without a line the connection is given up.

        Raises:
            ClusterError: With the code ``ApiUnreachable`` also if the connection breaks.
        """
        request = self._log_request(
            pod,
            {
                "container": container,
                "follow": "true",
                "sinceTime": since_time,
                "timestamps": "true" if timestamps else None,
            },
        )
        try:
            with self._transport.stream(request, silent_seconds) as parts:
                yield from _lines(parts)
        except ClusterError as error:
            if error.status not in (400, 404):
                raise

    def may(self, verb: str, resource: str, group: str = "", subresource: str = "") -> bool:
        """Whether the account has the permission in the namespace, or cluster-wide."""
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "resource": resource,
            "group": group,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        operation = ApiOperation("create", "selfsubjectaccessreviews")
        found = self._transport.json(ApiRequest(operation, "POST", _REVIEW, None, review))
        return bool(found.get("status", {}).get("allowed"))

    def version(self) -> str:
        """Read the server's version, such as v1.36.0."""
        operation = ApiOperation("get", "the version")
        return str(
            self._transport.json(ApiRequest(operation, "GET", "/version")).get("gitVersion", "")
        )

    def _of(self, manifest: Mapping[str, Any]) -> tuple[ResourceKind, str, str]:
        name = str(manifest.get("metadata", {}).get("name") or "")
        named = f"{manifest.get('kind')} of {manifest.get('apiVersion')}"
        kind = KINDS.get(str(manifest.get("kind")))
        if kind is None or kind.api_version != manifest.get("apiVersion") or not name:
            raise ClusterError(
                f"Modelyard makes no {named}{'' if name else ' without a name'} in a cluster.",
                f"It makes, each with a name: {', '.join(sorted(KINDS))}.",
                code="ManifestRefused",
            )
        return kind, manifest["metadata"].get("namespace") or self.namespace, name

    def _one(
        self, verb: str, kind: str, name: str, namespace: str | None
    ) -> tuple[ApiOperation, str]:
        found = KINDS[kind]
        namespace = namespace or self.namespace
        operation = ApiOperation(verb, found.plural, name, namespace if found.namespaced else "")
        return operation, found.path(namespace, name)

    def _log_request(self, pod: str, query: Query) -> ApiRequest:
        path = f"{KINDS['Pod'].path(self.namespace, pod)}/log"
        return ApiRequest(ApiOperation("get", "pods/log", pod, self.namespace), "GET", path, query)

    def _pages(self, operation: ApiOperation, path: str, query: Query) -> Objects:
        items: list[dict[str, Any]] = []
        more = ""
        while True:
            page = self._transport.json(
                ApiRequest(operation, "GET", path, {**query, "continue": more})
            )
            items += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue") or ""
            if not more:
                return items

    def _found(self, request: ApiRequest) -> dict[str, Any] | None:
        try:
            return self._transport.json(request)
        except ClusterError as error:
            if error.status == 404 and error.code != "KindUnknown":
                return None
            raise


def _lines(parts: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
