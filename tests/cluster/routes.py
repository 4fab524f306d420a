"""What the path and the query of a request name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.cluster.kinds import KINDS, SERVED, Kind
from tests.cluster.refusals import Refusal, bad_request
from tests.cluster.rights import Asked

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_SUBRESOURCES = {"Pod": ("log", "eviction")}
_REVIEWS = ("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


@dataclass(frozen=True)
class Route:
    """A resource that a path names."""

    row: Kind
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    review: bool = False

    def asked(self, method: str, query: Mapping[str, str]) -> Asked:
        """The request, as rights see it."""
        resource = f"{self.row.plural}/{self.subresource}" if self.subresource else self.row.plural
        if self.review:
            return Asked("create", _REVIEWS[0], _REVIEWS[2])
        return Asked(
            self._verb(method, query), self.row.group, resource, self.namespace, self.name
        )

    def _verb(self, method: str, query: Mapping[str, str]) -> str:
        if method == "GET":
            if self.name:
                return "get"
            return "watch" if truth(query, "watch") else "list"
        everywhere = self.row.namespaced and not self.namespace
        if method == "DELETE" and not everywhere:
            return "delete" if self.name else "deletecollection"
        if method not in _VERBS or everywhere:
            raise Refusal(
                405, "MethodNotAllowed", "the server does not allow this method on the resource"
            )
        return _VERBS[method]


def route(path: str) -> Route:
    """The resource of a path below /api/v1 or /apis/GROUP/VERSION.

    Raises:
        Refusal: 404, there is none such.
    """
    parts = [part for part in path.split("/") if part]
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    namespace = ""
    if rest and rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    if (group, version, *rest) == _REVIEWS:
        return Route(KINDS["Pod"], review=True)
    row = SERVED.get((group, version, rest[0] if rest else ""))
    if row is None or len(rest) > 3 or (namespace and not row.namespaced):
        raise nowhere()
    name, subresource = [*rest[1:], "", ""][:2]
    known = ("status",) if row.status else ()
    if subresource and subresource not in (*known, *_SUBRESOURCES.get(row.kind, ())):
        raise nowhere()
    if name and row.namespaced and not namespace:
        raise nowhere()
    return Route(row, namespace, name, subresource)


def nowhere() -> Refusal:
    """404 of a path that nothing is served at."""
    return Refusal(404, "NotFound", "the server could not find the requested resource")


def truth(query: Mapping[str, str], key: str) -> bool:
    """A flag of a query."""
    return query.get(key, "").lower() in ("1", "true", "t")


def number(query: Mapping[str, str], key: str) -> int | None:
    """A whole number of a query; None if it is not there.

    Raises:
        Refusal: 400, it is no number.
    """
    given = query.get(key, "")
    if not given:
        return None
    try:
        return int(given)
    except ValueError:
        raise bad_request(f"{key}: {given!r} is no whole number") from None
