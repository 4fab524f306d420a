"""Addresses of ``s3://`` and ``obs://`` URIs."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from infra.errors import BadInputError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
)


@dataclass(frozen=True)
class Address:
    """Address in object storage.

    Attributes:
        host: The endpoint of an ``obs://`` URI, with its port if it has one; empty for ``s3://``,
            whose endpoint is a setting.
        bucket: The bucket or container.
        key: Without slashes at its ends; empty for the whole bucket.
    """

    host: str
    bucket: str
    key: str

    @property
    def prefix(self) -> str:
        """Prefix of all keys below."""
        return f"{self.key}/" if self.key else ""


def parse(uri: str) -> Address:
    """Parse ``uri``. Its parts are literal: ``%20`` is not a space.

    Raises:
        BadInputError: If it names none, or holds a password.
    """
    scheme, _, rest = uri.partition("://")
    if "@" in rest.partition("/")[0]:
        raise BadInputError(
            f"A {scheme}:// URI holds a user or a password.",
            "Leave it out, and put the access key into the settings.",
            code="SecretInUri",
        )
    host = ""
    if scheme.lower() == "obs":
        host, _, rest = rest.partition("/")
        if not _HOST.fullmatch(host):
            raise BadInputError(
                f"{uri!r} does not begin with an endpoint.",
                "Write obs://endpoint/container/path.",
                code="EndpointWrong",
            )
        rest = _without_account(rest)
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadInputError(
            f"{uri!r} has no bucket or container.",
            "Write s3://bucket/key or obs://endpoint/container/path.",
            code="BucketNameWrong",
        )
    key = key.removesuffix("/")
    if key and ("\0" in key or any(part in {"", ".", ".."} for part in key.split("/"))):
        raise BadInputError(
            f"{uri!r} climbs out of its folder, or has an empty part.",
            "Give the key without '.', '..' and '//'.",
            code="PathClimbs",
        )
    return Address(host, bucket, key)


def place_of(uri: str) -> tuple[str, ...]:
    """Split a URI of object storage or a NAS into scheme, endpoint or id, bucket, and folders.

    ``obs://host/container/a`` is ``("obs", "host", "container", "a")``. A URI covers all whose
    parts begin with its own.
    """
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if scheme.lower() == "obs":
        host, path = host.lower(), _without_account(path)
    elif scheme.lower() == "nas":
        host = host.removesuffix(":")
    return (scheme.lower(), *(part for part in (host + slash + path).split("/") if part))


def _without_account(path: str) -> str:
    """The path without the ``v1/AUTH_…`` that the same storage's own interface begins with."""
    version, _, rest = path.partition("/")
    account, _, inside = rest.partition("/")
    return inside if version == "v1" and account.startswith("AUTH_") else path


def endpoint_url(host: str, plain_http: str) -> str:
    """Build the endpoint URL of an ``obs://`` URI.

    Args:
        host: With its port, if it has one.
        plain_http: Hosts, with or without a port, that speak plain http, separated by commas.
    """
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    plain = {text.strip().lower() for text in plain_http.split(",")}
    is_plain = bool({host.lower(), name.lower()} & plain) or _is_loopback(name)
    return f"{'http' if is_plain else 'https'}://{host}"


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"
