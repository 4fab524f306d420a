"""Secrets, config maps and claims of this machine, by name, as a cluster has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from infra import secrets
from infra.errors import BadInputError, NotFoundError
from infra.storage import disk
from infra.workloads.claims import LocalClaims

# The texts of a secret, by their keys.
Secret = Callable[[str], Mapping[str, str]]

_CONFIG_MAPS = "configmaps"
_CLAIMS = "claims"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def from_store(name: str) -> Mapping[str, str]:
    """A secret: the JSON object that the Prefect Secret block ``name`` holds, or its text.

    Raises:
        NotFoundError: With the code ``SecretMissing``.
        BadInputError: With the code ``SecretNotObject``, if the block holds something else.
        ModelyardError: If it cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise NotFoundError(
            f"There is no secret {name[:300]!r}.",
            "Use small letters, digits and '-' in its name.",
            code="SecretMissing",
        )
    # Prefect's blocks have no dots in their names.
    held = secrets.read_block(name.replace(".", "-"))
    if isinstance(held, str):
        try:
            held = json.loads(held)
        except ValueError:
            held = None
    if not isinstance(held, dict) or not all(isinstance(one, str) for one in held.values()):
        raise BadInputError(
            f"The secret {name} holds no keys with strings.",
            'Let its Prefect Secret block hold a JSON object such as {"KEY": "VALUE"}.',
            code="SecretNotObject",
        )
    return held


class LocalObjects:
    """The secrets, config maps and claims of one home."""

    def __init__(self, home: Path, secret: Secret = from_store) -> None:
        """Keep them below ``home``; ``secret`` reads a secret."""
        self.secret = secret
        self.claims = LocalClaims(home / _CLAIMS)
        self._config_maps = home / _CONFIG_MAPS

    def config_map(self, name: str) -> Mapping[str, bytes]:
        """A config map: the files of a folder, by their names.

        Raises:
            NotFoundError: With the code ``ConfigMapMissing``.
        """
        place = self._config_maps / name
        if not _NAME.fullmatch(name) or not place.is_dir():
            raise NotFoundError(
                f"There is no config map {name[:300]} on this machine.",
                f"Make the folder {self._config_maps}/NAME, with a file for each key.",
                code="ConfigMapMissing",
            )
        with disk.translating_errors(str(place), place):
            return {
                file.name: file.read_bytes()
                for file in sorted(place.iterdir())
                if file.is_file() and _KEY.fullmatch(file.name)
            }


def key_of(what: str, name: str, key: str, held: Mapping[str, str]) -> str:
    """One key of a secret or a config map.

    Raises:
        NotFoundError: ``SecretMissing`` or ``ConfigMapMissing``.
    """
    if key not in held:
        code = "SecretMissing" if what == "secret" else "ConfigMapMissing"
        raise NotFoundError(f"The {what} {name} has no key {key}.", "Add it.", code=code)
    return held[key]
