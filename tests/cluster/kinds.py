"""What the API serves: one row per kind."""

from __future__ import annotations

from dataclasses import dataclass

_EVERY = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True
    #: "subdomain" (253), "label" (63, DNS-1123), "service" (63, DNS-1035): what a name must be.
    name: str = "subdomain"
    #: Whether metadata.generation counts changes of what is not status.
    generation: bool = False
    #: Whether `/status` is a subresource, so that the main path leaves status alone.
    status: bool = False
    #: Whether a created object keeps the status that came with it.
    born_with_status: bool = False
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _EVERY
    #: The schema's package, where it is not that of the group.
    package: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As errors and quotas name it: jobs.batch, pods."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def definition(self) -> str:
        group = self.package or (self.group.split(".")[0] if self.group else "core")
        return f"io.k8s.api.{group}.{self.version}.{self.kind}"


_ROWS = (
    Kind("Namespace", "", "v1", "namespaces", False, name="label", status=True, short=("ns",)),
    Kind("Node", "", "v1", "nodes", False, status=True, born_with_status=True, short=("no",)),
    Kind("PersistentVolume", "", "v1", "persistentvolumes", False, status=True, short=("pv",)),
    Kind("Pod", "", "v1", "pods", generation=True, status=True, short=("po",)),
    Kind("Service", "", "v1", "services", name="service", status=True, short=("svc",)),
    Kind("Secret", "", "v1", "secrets"),
    Kind("ConfigMap", "", "v1", "configmaps", short=("cm",)),
    Kind("Event", "", "v1", "events", short=("ev",)),
    Kind("ServiceAccount", "", "v1", "serviceaccounts", short=("sa",)),
    Kind("ResourceQuota", "", "v1", "resourcequotas", status=True, short=("quota",)),
    Kind("LimitRange", "", "v1", "limitranges", short=("limits",)),
    Kind("Endpoints", "", "v1", "endpoints", short=("ep",)),
    Kind("PodTemplate", "", "v1", "podtemplates", generation=True),
    Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", status=True, short=("pvc",)),
    Kind("Job", "batch", "v1", "jobs", generation=True, status=True),
    Kind("CronJob", "batch", "v1", "cronjobs", generation=True, status=True, short=("cj",)),
    Kind("Deployment", "apps", "v1", "deployments", generation=True, status=True),
    Kind("StatefulSet", "apps", "v1", "statefulsets", generation=True, status=True),
    Kind("DaemonSet", "apps", "v1", "daemonsets", generation=True, status=True),
    Kind("ReplicaSet", "apps", "v1", "replicasets", generation=True, status=True),
    Kind("StorageClass", "storage.k8s.io", "v1", "storageclasses", False, short=("sc",)),
    Kind(
        "PodDisruptionBudget",
        "policy",
        "v1",
        "poddisruptionbudgets",
        generation=True,
        status=True,
        short=("pdb",),
    ),
    Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies", generation=True),
    Kind("Ingress", "networking.k8s.io", "v1", "ingresses", generation=True, status=True),
    Kind("Lease", "coordination.k8s.io", "v1", "leases"),
    Kind("PriorityClass", "scheduling.k8s.io", "v1", "priorityclasses", False),
    Kind("RuntimeClass", "node.k8s.io", "v1", "runtimeclasses", False),
    Kind("Role", "rbac.authorization.k8s.io", "v1", "roles", name="path"),
    Kind("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings", name="path"),
    Kind("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", False, name="path"),
    Kind(
        "ClusterRoleBinding",
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        False,
        name="path",
    ),
)

KINDS = {row.kind: row for row in _ROWS}
#: (group, version, plural) -> kind.
SERVED = {(row.group, row.version, row.plural): row for row in _ROWS}
