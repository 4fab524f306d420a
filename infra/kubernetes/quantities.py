"""Kubernetes quantities, such as ``500m`` of a core and ``2Gi`` of memory."""

from __future__ import annotations

import math
import re
from fractions import Fraction

GIB = 2**30

_BINARY = {"Ei": 2**60, "Pi": 2**50, "Ti": 2**40, "Gi": 2**30, "Mi": 2**20, "Ki": 2**10}
_UNITS: dict[str, int | Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    **_BINARY,
}
# "1E" is 10**18, "1E3" a thousand.
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)([numkMGTPE]|[KMGTPE]i|)")


def format_cores(cpu: float) -> str:
    """Format a number of cores; the least is a thousandth."""
    thousandths = max(1, round(cpu * 1000))
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def format_bytes(octets: float) -> str:
    """Format a number of bytes, rounded up."""
    whole = math.ceil(octets)
    for suffix, unit in _BINARY.items():
        if whole and whole % unit == 0:
            return f"{whole // unit}{suffix}"
    return str(whole)


def parse_quantity(quantity: str | float) -> float:
    """Parse a quantity into cores, bytes or pieces.

    The grammar is that of ``resource.Quantity`` in ``k8s.io/apimachinery``.

    Raises:
        ValueError: If it is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(quantity).strip())
    if match is None:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity.")
    return float(Fraction(match[1]) * _UNITS[match[2]])
