"""Clients of object storage and the thread pool that uses them, per process.

Our processes are forked from one that has everything imported. A thread, a connection or a held
lock does not survive a fork, so all caches belong to a process id, and need no lock: where two
threads make the same thing at once, one of them is dropped unused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from pydantic import SecretStr

from infra import secrets
from infra.errors import BadInputError, StackError
from infra.settings import Settings
from infra.storage import accesses, failures
from infra.storage.accesses import StorageAccess
from infra.storage.addresses import Address, endpoint_url

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_Texts = tuple[str | None, ...]

_CONNECT_SECONDS = 5
_CONNECT_ATTEMPTS = 2  # infra/storage/transfer.py tries again with more patience
_SECRET_SECONDS = 60  # how long the value of a secret is believed; each read asks Prefect
_DEFAULT_REGION = "us-east-1"  # what servers that have no regions expect


@dataclass(frozen=True)
class _ClientKey:
    """Key of a client: everything in which clients differ."""

    endpoint_url: str | None
    region: str | None
    key_id: str | None = field(repr=False)
    secret: str | None = field(repr=False)
    token: str | None = field(repr=False)
    connections: int
    timeout: float
    attempts: int = _CONNECT_ATTEMPTS


_clients: dict[tuple[int, _ClientKey], S3Client] = {}
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_secrets: dict[tuple[int, _Texts], tuple[float, _Texts]] = {}


def client(uri: str, address: Address, settings: Settings) -> S3Client:
    """Return the client for ``address``.

    Raises:
        BadInputError: If there are no credentials, or only half of them.
        NotFoundError: If a setting names a secret that does not exist.
    """
    access = _access(uri, address, settings)
    key = (os.getpid(), access)
    found = _clients.get(key)
    if found is None:
        _forget_parents(_clients)
        found = _clients.setdefault(key, _make(uri, access))
    return found


def pool(threads: int) -> ThreadPoolExecutor:
    """Return the thread pool that all transfers of this process share."""
    key = (os.getpid(), threads)
    found = _pools.get(key)
    if found is None:
        _forget_parents(_pools)
        made = ThreadPoolExecutor(threads, thread_name_prefix="transfer")
        found = _pools.setdefault(key, made)
    return found


def _forget_parents(cache: dict[tuple[int, _Key], _Value]) -> None:
    """Drop entries that the parent process created before the fork."""
    for key in [key for key in list(cache) if key[0] != os.getpid()]:
        cache.pop(key, None)


def _resolved(given: Iterable[SecretStr | None]) -> _Texts:
    """Resolve the secrets that settings name, together, and cache them for a while."""
    texts = tuple(each.get_secret_value() if each is not None else None for each in given)
    if not any(text and secrets.name_of(text) for text in texts):
        return texts
    key = (os.getpid(), texts)
    until, found = _secrets.get(key, (0.0, ()))
    if time.monotonic() >= until:
        _forget_parents(_secrets)
        found = tuple(text and secrets.resolve(text) for text in texts)
        _secrets[key] = (time.monotonic() + _SECRET_SECONDS, found)
    return found


def _forget_if_wrong(parsed: dict[str, Any], **_: object) -> None:
    """Drop cached secrets after a response that refuses the key: it may have changed."""
    if failures.refuses_the_key(parsed):
        _secrets.clear()
        accesses.forget()


def client_for_check(
    uri: str, host: str, access: StorageAccess, settings: Settings, seconds: float
) -> S3Client:
    """Create a client that uses ``access``, which need not be stored, and asks once.

    Args:
        uri: The URI, for errors.
        host: Endpoint of an obs:// URI; "" for s3://.
        access: The access.
        settings: The settings.
        seconds: How long it waits for an answer.

    Raises:
        BadInputError: If the credentials are not complete.
    """
    key = _key_of(uri, host, _of_access(host, access, settings), settings)
    return _make(uri, replace(key, timeout=seconds, attempts=1))


def _access(uri: str, address: Address, settings: Settings) -> _ClientKey:
    """Choose endpoint and credentials: those of a named access, else those of the settings."""
    unread: StackError | None = None
    try:
        named = accesses.find(uri)
    except StackError as error:
        named, unread = None, error
    if named:
        chosen = _of_access(address.host, named, settings)
    else:
        chosen = _of_settings(uri, address.host, settings)
        if unread and not chosen.credentials[0]:
            raise unread
    return _key_of(uri, address.host, chosen, settings)


@dataclass(frozen=True)
class _Chosen:
    """Endpoint, region and credentials, which may be references to secrets."""

    url: str | None
    region: str | None
    credentials: tuple[SecretStr | None, SecretStr | None, SecretStr | None]


def _of_access(host: str, access: StorageAccess, settings: Settings) -> _Chosen:
    plain = host if access.plain_http else settings.obs_plain_http
    url = endpoint_url(host, plain) if host else access.endpoint or None
    key_id, secret, token = (
        SecretStr(one) if one else None
        for one in (access.key_id, access.secret_key, access.session_token)
    )
    region = access.region or (_DEFAULT_REGION if url else None)
    return _Chosen(url, region, (key_id, secret, token))


def _of_settings(uri: str, host: str, settings: Settings) -> _Chosen:
    if host:
        return _Chosen(
            endpoint_url(host, settings.obs_plain_http),
            settings.obs_region or _DEFAULT_REGION,
            (settings.obs_access_key_id, settings.obs_secret_access_key,
             settings.obs_session_token),
        )  # fmt: skip
    url, region = settings.s3_endpoint_url, settings.s3_region
    if url and "@" in url:
        raise _no_endpoint(uri)
    return _Chosen(
        url,
        region or (_DEFAULT_REGION if url else None),
        (settings.s3_access_key_id, settings.s3_secret_access_key, settings.s3_session_token),
    )


def _key_of(uri: str, host: str, chosen: _Chosen, settings: Settings) -> _ClientKey:
    key_id, secret, token = _resolved(chosen.credentials)
    # Only s3:// may fall back to boto3's own rules: their credentials are for no other server.
    if bool(key_id) != bool(secret) or (host and not key_id):
        raise failures.no_credentials(uri)
    return _ClientKey(
        chosen.url, chosen.region, key_id, secret, token,
        settings.transfer_threads, settings.transfer_timeout_seconds,
    )  # fmt: skip


def _make(uri: str, access: _ClientKey) -> S3Client:
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=access.timeout,
        retries={"mode": "standard", "total_max_attempts": access.attempts},
        max_pool_connections=access.connections,
        tcp_keepalive=True,
        # Newer checksums are no part of the protocol that other servers speak.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if access.endpoint_url else "auto"},
    )
    try:
        # A session of its own: the module's default one is not safe to use from many threads.
        session = boto3.session.Session()
        if access.key_id is None and session.get_credentials() is None:
            raise failures.no_credentials(uri)
        made = session.client(
            "s3",
            endpoint_url=access.endpoint_url,
            region_name=access.region,
            aws_access_key_id=access.key_id,
            aws_secret_access_key=access.secret,
            aws_session_token=access.token,
            config=config,
        )
        made.meta.events.register("after-call.s3", _forget_if_wrong)
        return made
    except BotoCoreError as error:
        raise failures.translate(uri, error) from None
    except ValueError:
        # boto3's message repeats the address, which may contain a password.
        raise _no_endpoint(uri) from None


def _no_endpoint(uri: str) -> BadInputError:
    return BadInputError(
        f"{uri}: its endpoint (--endpoint, MODELYARD_S3_ENDPOINT_URL) is not a server's address.",
        "Write it as https://host or http://host:port.",
        code="EndpointWrong",
    )
