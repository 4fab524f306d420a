"""How an API server is reached: a kubeconfig, or the service account of the pod that this is.

The files are looked over here before the client package reads them: its errors hold what the
files say, and that may be a token.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml

from infra.kubernetes.cluster import Cluster
from infra.kubernetes.refusals import no_kubeconfig

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_NAMESPACE = "default"
_FILES_OF_USERS = ("client-certificate", "client-key", "tokenFile")


class Access:
    """An API server's address, and what one needs to talk to it. Safe in threads.

    Attributes:
        server: The server's address.
        namespace: What the kubeconfig or the service account says of it.
        origin: Where this comes from, for people.
        pool: Its connections.
    """

    def __init__(self, configuration: Any, namespace: str, origin: str) -> None:
        from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415 (half a second)

        self.server = str(configuration.host).rstrip("/")
        self.namespace = namespace
        self.origin = origin
        self.pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self._configuration = configuration
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """The header with the credentials, if the server wants one; fetched anew as they age.

        Raises:
            ClusterError: With the code ``KubeconfigMissing``, if they are to be had no longer.
        """
        try:
            with self._lock:
                token = self._configuration.get_api_key_with_prefix("authorization")
        except (OSError, ValueError, _config_error()):
            raise _unusable(self.origin) from None
        return {"authorization": token} if token else {}


def _config_error() -> type[Exception]:
    from kubernetes.config import ConfigException  # noqa: PLC0415

    found: type[Exception] = ConfigException
    return found


def connect(cluster: Cluster) -> Access:
    """Read how the cluster is reached.

    A context that the cluster file names, or a ``KUBECONFIG``, is taken; else, in a pod, its
    service account; else the kubeconfig of the home folder.

    Raises:
        ClusterError: With the code ``KubeconfigMissing``: there is none, it is broken, or the
            context or something that it refers to is not there.
    """
    named = cluster.context or os.environ.get("KUBECONFIG")
    if not named and os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _of_the_pod()
    return _of_the_kubeconfig(cluster.context)


def _of_the_pod() -> Access:
    from kubernetes import client, config  # noqa: PLC0415

    configuration = client.Configuration()
    origin = "the pod's service account"
    try:
        config.load_incluster_config(configuration)
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except (OSError, ValueError, config.ConfigException):
        raise no_kubeconfig(
            f"This pod has no token of a service account in {_SERVICE_ACCOUNT}.",
            "Give its pod a serviceAccountName, and do not switch off "
            "automountServiceAccountToken.",
        ) from None
    return Access(configuration, namespace, origin)


def _of_the_kubeconfig(context: str) -> Access:
    from kubernetes import client, config  # noqa: PLC0415

    given = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config"))
    paths = [Path(part).expanduser() for part in given.split(os.pathsep) if part]
    found = _Kubeconfig([path for path in paths if path.exists()], paths)
    name, namespace, user = found.context(context)
    origin = f"the context {name} of {found.told}"
    configuration = client.Configuration()
    try:
        config.load_kube_config(
            os.pathsep.join(map(str, found.paths)), name, configuration, persist_config=False
        )
        access = Access(configuration, namespace or _DEFAULT_NAMESPACE, origin)
    except (OSError, ValueError, KeyError, TypeError, config.ConfigException):
        raise _unusable(origin) from None
    plugin = user.get("exec")
    if plugin and not (configuration.api_key or configuration.cert_file):
        program = plugin.get("command") if isinstance(plugin, dict) else None
        raise no_kubeconfig(
            f"The program {program}, which {origin} names, gave no credentials.",
            "Run it by hand: it may have to be installed, or want a login.",
        )
    return access


class _Kubeconfig:
    """One or several files as one; of what has one name, the first counts, as for kubectl."""

    def __init__(self, paths: list[Path], wanted: list[Path]) -> None:
        self.told = " and ".join(map(str, paths or wanted))
        self.paths = paths
        if not paths:
            raise no_kubeconfig(
                f"There is no kubeconfig: {self.told} does not exist.",
                "Get one from whoever keeps the cluster, and name it in KUBECONFIG.",
            )
        self._named: dict[str, dict[str, tuple[Path, Mapping[str, Any]]]] = {}
        self._current = ""
        for path in paths:
            self._read(path)

    def _read(self, path: Path) -> None:
        found = _mapping(path)
        self._current = self._current or str(found.get("current-context") or "")
        for kind in ("context", "cluster", "user"):
            named = self._named.setdefault(kind, {})
            listed = found.get(f"{kind}s") or []
            for one in listed if isinstance(listed, list) else [listed]:
                inner = one.get(kind) if isinstance(one, dict) else None
                name = one.get("name") if isinstance(one, dict) else None
                if not isinstance(inner, dict) or not isinstance(name, str):
                    raise no_kubeconfig(
                        f"The kubeconfig {path} is broken: not all of {kind}s have a name and "
                        f"a {kind}.",
                        "Mend it, or get it anew.",
                    )
                named.setdefault(name, (path, inner))

    def context(self, name: str) -> tuple[str, str, Mapping[str, Any]]:
        """A context's name, namespace and user; the current one for ""."""
        name = name or self._current
        known = ", ".join(sorted(self._named["context"])) or "none"
        if not name:
            raise no_kubeconfig(
                f"{self.told} has no current context.",
                f"Name one as context in the cluster file; there are: {known}.",
            )
        if name not in self._named["context"]:
            raise no_kubeconfig(f"{self.told} has no context {name}.", f"There are: {known}.")
        _, context = self._named["context"][name]
        cluster = self._part("cluster", context, name, ("certificate-authority",))
        if not str(cluster.get("server")).startswith(("https://", "http://")):
            raise no_kubeconfig(
                f"The cluster of the context {name} in {self.told} has no server, which would be "
                "an https:// address.",
                "Mend the kubeconfig, or get it anew.",
            )
        user = self._part("user", context, name, _FILES_OF_USERS)
        return name, str(context.get("namespace") or ""), user

    def _part(
        self, kind: str, context: Mapping[str, Any], name: str, files: tuple[str, ...]
    ) -> Mapping[str, Any]:
        wanted = str(context.get(kind) or "")
        if wanted not in self._named[kind]:
            raise no_kubeconfig(
                f"The context {name} in {self.told} names the {kind} {wanted!r}, which is not "
                "there.",
                "Mend the kubeconfig, or get it anew.",
            )
        path, part = self._named[kind][wanted]
        for field in files:
            # What stands in the file itself counts before a file that it names.
            if part.get(field) and not part.get(f"{field}-data"):
                target = path.parent / str(part[field])
                if not os.access(target, os.R_OK):
                    raise no_kubeconfig(
                        f"The {field} {target}, which the {kind} {wanted} of {path} names, "
                        "cannot be read.",
                        "Put it there, or mend the kubeconfig.",
                    )
        return part


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise no_kubeconfig(
            f"The kubeconfig {path} cannot be read: {reason}.", "Mend it, or name another."
        ) from None
    except (ValueError, yaml.YAMLError) as error:  # also of a day that no month has
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise no_kubeconfig(
            f"The kubeconfig {path} is no YAML{where}.", "Mend it, or get it anew."
        ) from None
    if not isinstance(found, dict):
        raise no_kubeconfig(f"The kubeconfig {path} holds no mapping.", "Mend it, or get it anew.")
    return found


def _unusable(origin: str) -> Exception:
    return no_kubeconfig(
        f"The credentials of {origin} cannot be used.",
        "Look whether kubectl can use them; get them anew if it cannot.",
    )
