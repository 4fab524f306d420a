"""Who asks, and what they may: bearer tokens, and the rules of roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.cluster.refusals import Refusal

if TYPE_CHECKING:
    from tests.cluster.store import Store

MASTERS = "system:masters"
_ACCOUNT = "system:serviceaccount:"
_EVERYBODY = ("selfsubjectaccessreviews", "selfsubjectreviews", "selfsubjectrulesreviews")


@dataclass(frozen=True)
class Rule:
    """What may be done; "*" is all of it."""

    verbs: tuple[str, ...]
    resources: tuple[str, ...]
    """With the subresource: "pods", "pods/log"."""
    groups: tuple[str, ...] = ("",)
    namespaces: tuple[str, ...] = ("*",)
    names: tuple[str, ...] = ()
    """Only objects of these names, if any are given."""


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    """What the user may besides what roles of the cluster say."""

    @classmethod
    def account(cls, namespace: str, name: str) -> User:
        """A service account: it may what roles bound to it say."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return cls(f"{_ACCOUNT}{namespace}:{name}", groups)


ADMIN = User("admin", (MASTERS,))


@dataclass(frozen=True)
class Asked:
    """One request, as rights see it."""

    verb: str
    group: str
    resource: str
    """With the subresource, if there is one."""
    namespace: str = ""
    name: str = ""


@dataclass
class Rights:
    """The users of a cluster by their tokens."""

    store: Store
    tokens: dict[str, User] = field(default_factory=dict)

    def user(self, headers: Mapping[str, str]) -> User:
        """Who sent a request.

        Raises:
            Refusal: 401, the token is nobody's.
        """
        given = headers.get("Authorization", "")
        if not given:
            return User("system:anonymous", ("system:unauthenticated",))
        scheme, _, token = given.partition(" ")
        found = self.tokens.get(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        return found

    def may(self, user: User, asked: Asked) -> bool:
        """Whether a user may do something."""
        if MASTERS in user.groups:
            return True
        if asked.resource in _EVERYBODY and "system:unauthenticated" not in user.groups:
            return True
        return any(
            _takes(rule, asked) for rule in (*user.rules, *self._bound(user, asked.namespace))
        )

    def check(self, user: User, asked: Asked) -> None:
        """Refuses what a user may not.

        Raises:
            Refusal: 403.
        """
        if self.may(user, asked):
            return
        plural, _, _ = asked.resource.partition("/")
        where = (
            f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        )
        full = f"{plural}.{asked.group}" if asked.group else plural
        named = f' "{asked.name}"' if asked.name else ""
        raise Refusal(
            403,
            "Forbidden",
            f'{full}{named} is forbidden: User "{user.name}" cannot {asked.verb} resource '
            f'"{asked.resource}" in API group "{asked.group}" {where}',
            {
                **({"name": asked.name} if asked.name else {}),
                **({"group": asked.group} if asked.group else {}),
                "kind": plural,
            },
        )

    def _bound(self, user: User, namespace: str) -> Iterator[Rule]:
        """The rules of the roles that are bound to a user."""
        for binding in self.store.each("ClusterRoleBinding"):
            if _names(binding, user):
                yield from self._rules(binding, "", "*")
        if namespace:
            for binding in self.store.each("RoleBinding", namespace):
                if _names(binding, user):
                    yield from self._rules(binding, namespace, namespace)

    def _rules(self, binding: Mapping[str, Any], namespace: str, where: str) -> Iterator[Rule]:
        role = self.store.find(binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"])
        for rule in (role or {}).get("rules") or ():
            yield Rule(
                tuple(rule["verbs"]),
                tuple(rule.get("resources") or ()),
                tuple(rule.get("apiGroups") or ()),
                (where,),
                tuple(rule.get("resourceNames") or ()),
            )


def _takes(rule: Rule, asked: Asked) -> bool:
    def has(values: tuple[str, ...], value: str) -> bool:
        return "*" in values or value in values

    _, slash, subresource = asked.resource.partition("/")
    return (
        has(rule.verbs, asked.verb)
        and has(rule.groups, asked.group)
        and (
            has(rule.resources, asked.resource)
            or (bool(slash) and f"*/{subresource}" in rule.resources)
        )
        and has(rule.namespaces, asked.namespace)
        and (not rule.names or asked.name in rule.names)
    )


def _names(binding: Mapping[str, Any], user: User) -> bool:
    for subject in binding.get("subjects") or ():
        match subject["kind"]:
            case "ServiceAccount":
                full = f"{_ACCOUNT}{subject.get('namespace', '')}:{subject['name']}"
                found = full == user.name
            case "Group":
                found = subject["name"] in user.groups
            case _:
                found = subject["name"] == user.name
        if found:
            return True
    return False
