"""Accesses to storage, as ``modelyard storage``."""

from __future__ import annotations

from collections.abc import Collection

from flows.connection import connected
from infra.errors import ModelyardError
from infra.storage import access_check
from infra.storage.accesses import StorageAccess
from modelyard.api.verbs import noun, verb
from registry import deletion, storage_accesses
from registry.storage_accesses import StorageAccessView
from registry.views import JsonObject


def store(access: StorageAccess, *, check: bool) -> StorageAccessView:
    """Store a valid access; with ``check``, once it works.

    Raises:
        ModelyardError: As reading from its URIs would, if it does not work.
        ConflictError: With the code ``AccessTaken``.
    """
    if check:
        try:
            access_check.check(access)
        except ModelyardError as error:
            error.hint = f"{error.hint} With --no-check it is added all the same.".strip()
            raise
    return storage_accesses.add(access)


def _add(
    name: str,
    uris: Collection[str],
    *,
    key_id: str = "",
    secret_key: str = "",
    session_token: str = "",
    endpoint: str = "",
    region: str = "",
    plain_http: bool = False,
    folder: str = "",
    check: bool = True,
) -> StorageAccessView:
    """Add an access to storage, or replace the one of this name.

    Args:
        name: The access's name.
        uris: What it is for, with all below it: ``s3://bucket``, ``obs://endpoint/container``,
            ``nas://ID``.
        key_id: Id of the access key, or ``secret:NAME``.
        secret_key: Its secret, or ``secret:NAME``.
        session_token: Of a temporary access key.
        endpoint: The server of s3:// URIs; without, Amazon's own.
        region: The region, where the server has regions.
        plain_http: Whether the endpoint of the obs:// URI speaks http.
        folder: The mounted folder that nas://ID stands for.
        check: Whether an access that does not work is refused.

    Raises:
        BadInputError: With a code of its own for each fault.
        ConflictError: With the code ``AccessTaken``, if another access is for the same URI.
        ModelyardError: As reading from its URIs would, if it does not work.
    """
    access = StorageAccess(
        name=name, uris=tuple([uris] if isinstance(uris, str) else uris),
        endpoint=endpoint.rstrip("/"), region=region, plain_http=plain_http, key_id=key_id,
        secret_key=secret_key, session_token=session_token, folder=folder,
    )  # fmt: skip
    storage_accesses.validate(access)
    with connected():
        return store(access, check=check)


def _remove(name: str) -> JsonObject:
    """Remove an access with its secret."""
    return deletion.delete("storage", name)


@noun("storage")
class StorageVerbs:
    """Accesses to storage."""

    add = staticmethod(_add)
    list = staticmethod(verb(storage_accesses.list_all))
    remove = staticmethod(verb(_remove))
