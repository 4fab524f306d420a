"""Check that an access works: its server answers and accepts the key, its folder is there."""

from __future__ import annotations

from pathlib import Path

from infra import settings
from infra.errors import NotFoundError
from infra.storage import clients, failures
from infra.storage.accesses import StorageAccess
from infra.storage.addresses import place_of


def check(access: StorageAccess) -> None:
    """Check an access, which need not be stored.

    Raises:
        ModelyardError: As reading from its URIs would.
    """
    for uri in access.uris:
        if access.folder:
            _check_folder(uri, access.folder)
        else:
            _check_objects(uri, access)


def _check_folder(uri: str, folder: str) -> None:
    if not Path(folder).is_dir():
        raise NotFoundError(
            f"{uri}: the folder {folder} is not there.", "Mount it first.", code="NasNotMounted"
        )


def _check_objects(uri: str, access: StorageAccess) -> None:
    scheme, *rest = place_of(uri)
    host = rest.pop(0) if scheme == "obs" else ""
    client = clients.client_of(uri, host, access, settings.load())
    try:
        if rest:
            bucket, *folders = rest
            prefix = f"{'/'.join(folders)}/" if folders else ""
            client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        else:
            client.list_buckets()
    except failures.FAULTS as error:
        if not rest and failures.code_of(error) == "AccessDenied":
            return  # the key is accepted, though it may not list buckets
        raise failures.translate(uri, error) from None
