"""Check that an access works: its server answers and accepts the key, its folder is there."""

from __future__ import annotations

from pathlib import Path

from botocore.exceptions import ReadTimeoutError

from infra import settings
from infra.storage import clients, failures, nas
from infra.storage.accesses import StorageAccess
from infra.storage.addresses import place_of

_SECONDS = 10.0  # a command waits for it


def check(access: StorageAccess) -> None:
    """Check an access, which need not be stored.

    Raises:
        ModelyardError: As reading from its URIs would.
    """
    for uri in access.uris:
        if access.folder:
            nas.check_mounted(uri, Path(access.folder))
        else:
            _check_objects(uri, access)


def _check_objects(uri: str, access: StorageAccess) -> None:
    scheme, *rest = place_of(uri)
    host = rest.pop(0) if scheme == "obs" else ""
    found = settings.load()
    seconds = min(_SECONDS, found.transfer_timeout_seconds)
    client = clients.client_for_check(uri, host, access, found, seconds)
    try:
        if rest:
            bucket, *folders = rest
            prefix = f"{'/'.join(folders)}/" if folders else ""
            client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            client.list_buckets()
    except ReadTimeoutError:
        raise failures.silent(uri, seconds) from None
    except failures.FAULTS as error:
        if not rest and failures.code_of(error) == "AccessDenied":
            return  # the key is accepted, though it may not list buckets
        raise failures.translate(uri, error) from None
