"""Named accesses to storage: added, listed and removed.

An access is a block of Prefect's with everything of it, the secret included, because every process
that transfers bytes asks Prefect for it. Nothing of it is in the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from pydantic import Field, SecretStr
from sqlalchemy import select

from infra import settings
from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.prefect_client import prefect_client
from infra.storage import accesses, addresses
from infra.storage.accesses import StorageAccess
from infra.suggestions import suggest_names
from registry import catalogue, history
from registry.blockers import Blocker
from registry.schedules.schedules import ScheduleModel
from registry.training_templates import TrainingTemplateModel
from registry.views import JsonObject, View

_NOUN = "storage"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")  # Prefect's own rule for the names of blocks
_NAS = re.compile(r"nas://([^/:@]+):?/?", re.IGNORECASE)


class StorageAccessBlock(Block):
    """Access of Modelyard to object storage or a NAS."""

    _block_type_name = "Storage Access"
    _block_type_slug = accesses.BLOCK_TYPE

    uris: list[str] = Field(description="What it is for: these URIs, and all below them.")
    endpoint: str = Field("", description="The server of s3:// URIs; empty for Amazon's own.")
    region: str = Field("", description="The region.")
    plain_http: bool = Field(False, description="Whether an obs:// endpoint speaks plain http.")
    key_id: str = Field("", description="Id of the access key.")
    secret_key: SecretStr = Field(SecretStr(""), description="Secret of the access key.")
    session_token: SecretStr = Field(SecretStr(""), description="Of a temporary access key.")
    folder: str = Field("", description="The mounted folder that a nas:// URI stands for.")


class StorageAccessView(View):
    """An access without its secret.

    Attributes:
        name: Its name.
        uris: What it is for: these URIs, and all below them.
        endpoint: The server of s3:// URIs; "" for Amazon's own.
        region: The region; "" for none.
        key_id: Id of the access key; "" for none.
        folder: The folder that a nas:// URI stands for; "" for object storage.
    """

    name: str
    uris: list[str]
    endpoint: str
    region: str
    key_id: str
    folder: str


def validate(access: StorageAccess) -> None:
    """Refuse an access that could not be used.

    Raises:
        BadInputError: With a code of its own for each fault.
    """
    if not _NAME.fullmatch(access.name):
        raise BadInputError(
            f"{access.name[:60]!r} cannot be the name of an access.",
            "Give lower-case letters, digits and '-', 60 at most.",
            code="AccessNameInvalid",
        )
    schemes = {_checked_scheme(uri) for uri in access.uris}
    if len(schemes) != 1:
        raise BadInputError(
            "An access has URIs of one scheme.",
            "Give s3://, obs:// or nas:// URIs, and an access for each.",
            code="AccessSchemes",
        )
    is_nas, has_key = schemes == {"nas"}, bool(access.key_id or access.secret_key)
    if is_nas != bool(access.folder) or (is_nas and (has_key or len(access.uris) > 1)):
        raise BadInputError(
            "A NAS has one URI and a folder; object storage has a key and no folder.",
            "Write nas://ID --folder /mounted/folder, or s3://bucket --key-id ID.",
            code="AccessFields",
        )
    if bool(access.key_id) != bool(access.secret_key) or (schemes == {"obs"} and not has_key):
        raise BadInputError(
            "The access has no complete access key.",
            "Give --key-id; its secret is asked for.",
            code="CredentialsMissing",
        )
    if access.endpoint and (schemes != {"s3"} or not _is_endpoint(access.endpoint)):
        raise BadInputError(
            "The endpoint is not the address of a server of s3:// URIs.",  # it may hold a password
            "Write it as https://host or http://host:port; that of obs:// is in the URI.",
            code="EndpointWrong",
        )


def _checked_scheme(uri: str) -> str:
    scheme, *place = addresses.place_of(uri)
    if scheme == "nas" and _NAS.fullmatch(uri):
        return scheme
    if scheme not in {"s3", "obs"} or "://" not in uri or (scheme == "obs" and not place):
        raise BadInputError(
            f"{uri[:80]!r} is not a place in storage.",
            "Write s3://bucket/key, obs://endpoint/container/path or nas://ID.",
            code="UnknownScheme",
        )
    if scheme == "obs" and len(place) == 1:  # every container
        addresses.parse(f"obs://{place[0]}/container")
    elif place:  # or every bucket
        addresses.parse(uri)
    return scheme


def _is_endpoint(url: str) -> bool:
    return re.fullmatch(r"https?://[^\s/@?#]+/?", url) is not None


def add(access: StorageAccess) -> StorageAccessView:
    """Store an access that was validated, or replace the one of its name.

    Raises:
        ConflictError: With the code ``AccessTaken``, if another access is for the same URI.
    """
    with lock(access.name):
        for other in accesses.read_all():
            shared = set(map(addresses.place_of, other.uris)) & set(
                map(addresses.place_of, access.uris)
            )
            if shared and other.name != access.name:
                raise ConflictError(
                    f"The access {other.name} is for {', '.join(other.uris)} already.",
                    f"Change that one: modelyard storage add {other.name}, or remove it.",
                    code="AccessTaken",
                )
        block = StorageAccessBlock(
            uris=list(access.uris), endpoint=access.endpoint, region=access.region,
            plain_http=access.plain_http, key_id=access.key_id,
            secret_key=SecretStr(access.secret_key),
            session_token=SecretStr(access.session_token), folder=access.folder,
        )  # fmt: skip
        block.save(access.name, overwrite=True)
    accesses.forget()
    view = _view(access)
    history.record(_NOUN, access.name, "add", **view.model_dump(exclude={"name"}))
    return view


def list_all() -> list[StorageAccessView]:
    """List every access, by name."""
    return [_view(access) for access in accesses.read_all()]


def find(name: str) -> str:
    """Return the name of an access.

    Raises:
        NotFoundError: With the code ``AccessUnknown``.
    """
    known = [access.name for access in accesses.read_all()]
    if name not in known:
        raise NotFoundError(
            f"There is no access {name!r}.",
            suggest_names(known, name, "There is none yet: modelyard storage add."),
            code="AccessUnknown",
        )
    return name


def lock(_: str) -> AbstractContextManager[None]:
    """Hold the lock of all accesses: no two are for the same URI."""
    return catalogue.advisory_lock("storage accesses")


def blockers(name: str) -> list[Blocker]:
    """Return why an access may not be removed: what names a URI that nothing else is for."""
    known = accesses.read_all()
    own = [access for access in known if access.name == name]
    others = [access for access in known if access.name != name]
    return [
        Blocker(f"The {noun} {user} uses {uri}.", (noun, "show", user))
        for noun, user, uri in _uses()
        if accesses.is_covered(uri, own)
        and not accesses.is_covered(uri, others)
        and not _is_set(uri)
    ]


def _is_set(uri: str) -> bool:
    """Whether the settings have an access key for a URI, or its NAS."""
    found, (scheme, *rest) = settings.load(), addresses.place_of(uri)
    keys = {"s3": found.s3_access_key_id, "obs": found.obs_access_key_id}
    return bool(keys.get(scheme)) or (scheme == "nas" and rest[:1] != [] and rest[0] in found.nas)


def _uses() -> Iterator[tuple[str, str, str]]:
    """Yield every string in the parameters of schedules and templates that may be a URI."""
    present = select(ScheduleModel).where(ScheduleModel.archived_at.is_(None))
    with catalogue.session() as open_session:
        for schedule in open_session.scalars(present.order_by(ScheduleModel.name)):
            for uri in _uris(schedule.parameters):
                yield "schedule", schedule.name, uri
        templates = select(TrainingTemplateModel).order_by(TrainingTemplateModel.name)
        for template in open_session.scalars(templates):
            for uri in _uris(template.parameters):
                yield "template", template.name, uri


def _uris(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _uris(one)
    elif isinstance(value, str) and "://" in value:
        yield value


def remove(name: str) -> JsonObject:
    """Remove an access with its secret; called by :mod:`registry.deletion`."""
    with prefect_client() as client:
        try:
            found = client.read_block_document_by_name(name, accesses.BLOCK_TYPE)
            client.delete_block_document(found.id)
        except ObjectNotFound:
            pass  # another command was faster
    accesses.forget()
    return {"name": name}


def _view(access: StorageAccess) -> StorageAccessView:
    return StorageAccessView(
        name=access.name,
        uris=list(access.uris),
        endpoint=access.endpoint,
        region=access.region,
        key_id=access.key_id,
        folder=access.folder,
    )
