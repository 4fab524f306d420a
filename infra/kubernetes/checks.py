"""One thing that was looked at in a cluster, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "failed", "unseen"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is about.
        result: Whether runs can do with it; ``unseen`` if the account may not look at it.
        message: What was seen.
        remedy: How to fix it; "" if there is nothing to fix.
    """

    name: str
    result: Result
    message: str
    remedy: str = ""


def unseen(name: str, what: str = "") -> Check:
    """The check of what the account may not see."""
    return Check(
        name,
        "unseen",
        f"Not checked: this account may not see {what or 'it'}, which runs do not need either.",
        "Run doctor with the kubeconfig of an administrator of the namespace.",
    )
