"""Result of one check of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "failed", "unseen"]


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: The subject.
        result: Whether it passed; ``unseen`` if the account may not read the subject.
        message: What was observed.
        remedy: How to fix it; "" if there is nothing to fix.
    """

    name: str
    result: Result
    message: str
    remedy: str = ""


def not_visible(name: str, what: str = "") -> Check:
    """Result of a check whose subject the account may not read."""
    return Check(
        name,
        "unseen",
        f"Not checked: this account may not see {what or 'it'}, which runs do not need either.",
        "Run doctor with the kubeconfig of an administrator of the namespace.",
    )
