"""Access to an API server: by a kubeconfig, or by the service account of this pod.

The client package reads it. What is wrong with a broken file is found here before: the client's
errors hold what the file says, and that may be a token.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml

from infra.kubernetes.api_errors import no_kubeconfig
from infra.kubernetes.cluster import ClusterConfig

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_DEFAULT_NAMESPACE = "default"
_NO_FILE = "File does not exist"  # of the client's errors, others of which may hold a token
_FIX = "Fix it, or get a new one."


class ClusterAccess:
    """Address and credentials of an API server. Safe in threads.

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
        """Build the header with the credentials, if any; renewed as they expire.

        Raises:
            ClusterError: With the code ``KubeconfigMissing``, if they are to be had no longer.
        """
        try:
            with self._lock:
                token = self._configuration.get_api_key_with_prefix("authorization")
        except (OSError, ValueError, _config_error()):
            raise _unusable(self.origin) from None
        return {"authorization": token.strip()} if token else {}


def _config_error() -> type[Exception]:
    from kubernetes.config import ConfigException  # noqa: PLC0415

    found: type[Exception] = ConfigException
    return found


def connect(cluster: ClusterConfig) -> ClusterAccess:
    """Determine how to reach the cluster.

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


def _of_the_pod() -> ClusterAccess:
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
    return ClusterAccess(configuration, namespace, origin)


def _of_the_kubeconfig(context: str) -> ClusterAccess:
    from kubernetes import client, config  # noqa: PLC0415

    given = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config"))
    paths = [Path(part).expanduser() for part in given.split(os.pathsep) if part]
    there = [path for path in paths if path.exists()]
    sources = " and ".join(map(str, there or paths))
    if not there:
        raise no_kubeconfig(
            f"There is no kubeconfig: {sources} does not exist.",
            "Get one from the cluster's administrator, and name it in KUBECONFIG.",
        )
    name, namespace, user = _context(there, context, sources)
    origin = f"the context {name} of {sources}"
    configuration = client.Configuration()
    try:
        config.load_kube_config(
            os.pathsep.join(map(str, there)), name, configuration, persist_config=False
        )
        access = ClusterAccess(configuration, namespace or _DEFAULT_NAMESPACE, origin)
    except OSError as error:
        raise _unusable(origin, str(error)) from None
    except config.ConfigException as error:
        missing = str(error) if str(error).startswith(_NO_FILE) else ""
        raise _unusable(origin, missing) from None
    except (ValueError, KeyError, TypeError):
        raise _unusable(origin) from None
    plugin = user.get("exec")
    if plugin and not (configuration.api_key or configuration.cert_file):
        program = plugin.get("command") if isinstance(plugin, dict) else None
        raise no_kubeconfig(
            f"The program {program}, which {origin} names, gave no credentials.",
            "Run it by hand: it may have to be installed, or want a login.",
        )
    return access


def _context(paths: list[Path], name: str, sources: str) -> tuple[str, str, Mapping[str, Any]]:
    """Return a context's name, namespace and user; the current one for "".

    Of what has one name in several files, the first counts, as for kubectl.
    """
    named: dict[str, dict[str, Mapping[str, Any]]] = {"context": {}, "cluster": {}, "user": {}}
    current = ""
    for path in paths:
        found = _mapping(path)
        current = current or str(found.get("current-context") or "")
        for kind, known in named.items():
            try:
                listed = {one["name"]: dict(one[kind]) for one in found.get(f"{kind}s") or ()}
            except (TypeError, KeyError, ValueError):
                raise no_kubeconfig(
                    f"The kubeconfig {path} is broken: not all of {kind}s have a name and a "
                    f"{kind}.",
                    _FIX,
                ) from None
            named[kind] = listed | known
    name = name or current
    if name not in named["context"]:
        raise no_kubeconfig(
            f"{sources} has no context {name}." if name else f"{sources} has no current context.",
            "Name one as context in the cluster file; there are: "
            f"{', '.join(sorted(named['context'])) or 'none'}.",
        )
    context = named["context"][name]
    for kind in ("cluster", "user"):
        wanted = str(context.get(kind) or "")
        if wanted not in named[kind]:
            raise no_kubeconfig(
                f"The context {name} in {sources} names the {kind} {wanted!r}, which is missing.",
                _FIX,
            )
    server = named["cluster"][str(context["cluster"])].get("server")
    if not str(server).startswith(("https://", "http://")):
        raise no_kubeconfig(
            f"The cluster of the context {name} in {sources} has no server, which would be an "
            "https:// address.",
            _FIX,
        )
    return name, str(context.get("namespace") or ""), named["user"][str(context["user"])]


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise no_kubeconfig(
            f"The kubeconfig {path} cannot be read: {reason}.", "Fix it, or name another."
        ) from None
    except (ValueError, yaml.YAMLError) as error:  # also of a day that no month has
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise no_kubeconfig(f"The kubeconfig {path} is not valid YAML{where}.", _FIX) from None
    if not isinstance(found, dict):
        raise no_kubeconfig(f"The kubeconfig {path} is not a mapping.", _FIX)
    return found


def _unusable(origin: str, why: str = "") -> Exception:
    return no_kubeconfig(
        f"The credentials of {origin} cannot be used{': ' if why else ''}{why}.",
        "Check whether kubectl can use them; get new ones if it cannot.",
    )
