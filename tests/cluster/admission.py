"""What happens to an object between a request and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.cluster.kinds import Kind

if TYPE_CHECKING:
    from tests.cluster.store import Store

Object = dict[str, Any]


def created(store: Store, row: Kind, new: Object) -> Object:
    """A new object as it will be kept.

    Raises:
        Refusal: It is not allowed.
    """
    return new


def updated(store: Store, row: Kind, old: Object, new: Object, subresource: str) -> Object:
    """A changed object as it will be kept.

    Raises:
        Refusal: The change is not allowed.
    """
    return new


def owned(row: Kind, old: Object, new: Object, manager: str, subresource: str = "") -> Object:
    """An object whose managedFields say who wrote what; unchanged where nobody is named."""
    return new


def settled(store: Store, row: Kind, new: Object) -> None:
    """What a cluster makes for a new object at once."""


def gone(store: Store, row: Kind, obj: Object) -> None:
    """What a cluster does when an object has gone."""
