"""Secrets by name: ``secret:NAME`` stands for the value of the Prefect Secret block ``NAME``.

The text ``secret:NAME`` is what parameters, settings and records hold; the value is read where
it is used and goes nowhere else.
"""

from __future__ import annotations

import re

from infra.errors import BadInputError, NotFoundError, StackError

PREFIX = "secret:"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")  # Prefect's own rule for the names of blocks
_HOW = "Make it in the Prefect UI: Blocks, +, Secret."


def resolve(text: str) -> str:
    """The secret that ``text`` names, or ``text`` itself where it names none.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        BadInputError: If the name or the value is none that Prefect's blocks hold.
        StackError: If Prefect cannot be asked.
    """
    name = name_of(text)
    if name is None:
        return text
    value = held(name)
    if not isinstance(value, str):
        raise BadInputError(
            f"The secret {name} is not a text.",
            "Store it as a text in its Prefect Secret block.",
            code="SecretNotText",
        )
    return value


def held(name: str) -> object:
    """What the Prefect Secret block ``name`` holds: a text, or other plain JSON data.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        StackError: If Prefect cannot be asked.
    """
    return _read(name)


def name_of(text: str) -> str | None:
    """The name in ``secret:NAME``, or None where ``text`` names no secret.

    Raises:
        BadInputError: With the code ``SecretNameWrong``.
    """
    if not text.startswith(PREFIX):
        return None
    name = text.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise BadInputError(
            "What follows 'secret:' is no name of a secret.",  # it may be the secret itself
            "Write secret:NAME, with lower-case letters, digits and '-' in NAME.",
            code="SecretNameWrong",
        )
    return name


def _read(name: str) -> object:
    """The value of a block, by a client of this thread alone."""
    # Prefect takes seconds to import, and most who import this module have no secret to read.
    import httpx  # noqa: PLC0415
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    try:
        with get_client(sync_client=True) as client:
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
