"""What NetworkPolicies allow: a pod's connections, decided as Kubernetes' documentation says."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """One end of a connection: a pod, or an address outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def allowed(
    policies: Iterable[Mapping[str, Any]],
    here: Place,
    there: Place,
    port: int,
    protocol: str = "TCP",
) -> bool:
    """Whether ``here`` may open a connection to ``there``: both sides must let it pass."""
    known = list(policies)
    return _passes(known, "Egress", here, there, port, protocol) and _passes(
        known, "Ingress", there, here, port, protocol
    )


def _passes(
    policies: list[Mapping[str, Any]], way: str, own: Place, other: Place, port: int, protocol: str
) -> bool:
    if own.address:
        return True  # no policy holds for what is no pod
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and way in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], own.labels)
    ]
    if not selecting:
        return True
    peers = "to" if way == "Egress" else "from"
    return any(
        _port(rule.get("ports"), port, protocol)
        and (not rule.get(peers) or any(_peer(peer, own, other) for peer in rule[peers]))
        for spec in selecting
        for rule in spec.get(way.lower()) or []
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, selector
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items())


def _peer(peer: Mapping[str, Any], own: Place, other: Place) -> bool:
    if "ipBlock" in peer:
        assert set(peer["ipBlock"]) == {"cidr"}
        return bool(other.address) and _inside(other.address, peer["ipBlock"]["cidr"])
    if other.address:
        return False
    if "namespaceSelector" in peer:
        if not _selects(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}
        ):
            return False
    elif other.namespace != own.namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _inside(address: str, cidr: str) -> bool:
    found, network = ipaddress.ip_address(address), ipaddress.ip_network(cidr)
    return found.version == network.version and found in network


def _port(ports: list[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports
    )
