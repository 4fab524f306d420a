"""Quantities, as Kubernetes writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

_FACTORS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40),
    "Pi": Fraction(2**50), "Ei": Fraction(2**60),
}  # fmt: skip
_SHAPE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(n|u|m|k|[KMGTPE]i|[MGTPE])?)")


def quantity(text: str | float) -> Fraction:
    """The number that a quantity is."""
    shaped = _SHAPE.fullmatch(str(text))
    if shaped is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, suffix = shaped.groups()
    if exponent:
        return Fraction(number + exponent)
    return Fraction(number) * _FACTORS[suffix or ""]


def whole(text: str | float, divisor: str | float = "1") -> int:
    """A quantity in units of ``divisor``, rounded up."""
    return -int(-quantity(text) // (quantity(divisor) or 1))


def requests(container: Mapping) -> dict[str, Fraction]:
    """What a container asks for: its limits count where it makes no request."""
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(text) for name, text in asked.items()}


def _sum(parts: Iterable[Mapping[str, Fraction]]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Fraction(0)) + amount
    return total


def pod_requests(spec: Mapping) -> dict[str, Fraction]:
    """What a pod asks a node for: its containers together, or what starts it if that is more."""
    sidecars: list[dict[str, Fraction]] = []
    peak: dict[str, Fraction] = {}
    for one in spec.get("initContainers") or []:
        if one.get("restartPolicy") == "Always":
            sidecars.append(requests(one))
        needed = _sum([*sidecars, *([] if one.get("restartPolicy") else [requests(one)])])
        peak = {name: max(peak.get(name, 0), needed.get(name, 0)) for name in {*peak, *needed}}
    total = _sum([*sidecars, *(requests(one) for one in spec["containers"])])
    most = {name: max(peak.get(name, 0), total.get(name, 0)) for name in {*peak, *total}}
    return _sum([most, {n: quantity(t) for n, t in (spec.get("overhead") or {}).items()}])
