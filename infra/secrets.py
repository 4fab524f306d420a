"""Secrets by name: ``secret:NAME`` stands for the value of the Prefect Secret block ``NAME``.

Parameters, settings and records hold the reference ``secret:NAME``; the value is read where it is
used, and is stored nowhere else.
"""

from __future__ import annotations

import os
import re
from typing import Any

from infra.door import credential
from infra.errors import BadInputError, NotFoundError, StackError
from infra.http_status import is_retryable

PREFIX = "secret:"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")  # Prefect's own rule for the names of blocks
_ATTEMPTS = 3
_TIMEOUT_SECONDS = 20.0  # a server that is started again answers late
_HOW = "Make it in the Prefect UI: Blocks, +, Secret."


def resolve(text: str) -> str:
    """Resolve a reference to its secret; return ``text`` itself if it is not a reference.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        BadInputError: If the name or the value is not valid in Prefect's blocks.
        StackError: If Prefect cannot be reached.
    """
    name = name_of(text)
    if name is None:
        return text
    value = read_block(name)
    if not isinstance(value, str):
        raise BadInputError(
            f"The secret {name} is not a string.",
            "Store it as a string in its Prefect Secret block.",
            code="SecretNotText",
        )
    return value


def read_block(name: str) -> object:
    """Read the Prefect Secret block ``name``: a string, or other plain JSON data.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        StackError: If Prefect cannot be reached.
    """
    return _read(name)


def name_of(text: str) -> str | None:
    """Parse the name in ``secret:NAME``; None if ``text`` is not a reference.

    Raises:
        BadInputError: With the code ``SecretNameWrong``.
    """
    if not text.startswith(PREFIX):
        return None
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise BadInputError(
            "The text after 'secret:' is not a secret's name.",  # it may be the secret itself
            "Write secret:NAME, with lower-case letters, digits and '-' in NAME.",
            code="SecretNameWrong",
        )
    return name


def read_blocks(block_type: str) -> dict[str, dict[str, Any]]:
    """Read all blocks of a type with their secrets: their data by their names.

    Prefect is asked by REST: its client takes seconds to import, which each pod that transfers
    files would pay.

    Raises:
        StackError: If Prefect cannot be reached, or refuses the request.
    """
    import httpx  # noqa: PLC0415 (many who import this module ask nobody)

    url = f"{os.environ['PREFECT_API_URL']}/block_types/slug/{block_type}/block_documents"
    user, _, password = os.environ.get(credential.PREFECT, "").partition(":")
    with httpx.Client(
        auth=(user, password) if user else None,
        timeout=_TIMEOUT_SECONDS,
        verify=url.startswith("https:"),  # loading the authorities takes 20 ms
    ) as client:
        for attempt in range(_ATTEMPTS):
            try:
                answer = client.get(url, params={"include_secrets": "true"})
            except httpx.HTTPError as error:
                reason, lasts = type(error).__name__, False
            else:
                if answer.is_success:
                    return {block["name"]: block["data"] for block in answer.json()}
                if answer.status_code == 404:  # no block of this type was ever stored
                    return {}
                reason = f"status {answer.status_code}"
                lasts = not is_retryable(answer.status_code)
            if lasts or attempt == _ATTEMPTS - 1:
                break
    raise StackError(
        f"The blocks of the type {block_type} cannot be read: Prefect does not answer ({reason}).",
        "Start the stack with `modelyard up`.",
        code="SecretUnreadable",
    )


def _read(name: str) -> object:
    """Read a block with a client of this thread alone."""
    # Prefect takes seconds to import, and most who import this module have no secret to read.
    import httpx  # noqa: PLC0415
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    from infra.prefect_client import prefect_client  # noqa: PLC0415

    try:
        with prefect_client() as client:
            block = client.read_block_document_by_name(name, "secret", include_secrets=True)
    except ObjectNotFound:
        raise NotFoundError(f"There is no secret {name}.", _HOW, code="SecretMissing") from None
    except (httpx.HTTPError, RuntimeError, ValueError) as error:
        raise StackError(
            f"The secret {name} cannot be read: Prefect does not answer ({type(error).__name__}).",
            "Start the stack with `modelyard up`.",
            code="SecretUnreadable",
        ) from None
    return block.data.get("value")
