"""The images that the nodes can pull, and what is in them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_NAME = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?"
)


@dataclass(frozen=True)
class Image:
    """What stands for the content of an image: programs of this machine, seen by a container."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: int = 0
    """The user that the image names; what a manifest asks for comes first."""
    honour_user: bool = False
    """Whether containers really run as their user. They are the present user's otherwise, because
    the folders of an interpreter may be closed to others."""
    holds: tuple[str, ...] = ()
    """Folders of this machine that the container sees although ``/tmp`` is its own."""
    hides: tuple[str, ...] = ()
    """Folders of this machine that the container does not see."""
    login: tuple[str, str] | None = None
    """User and password without which its registry gives it to nobody."""
    pull_seconds: float = 0.0


class PullError(Exception):
    """An image cannot be pulled: the runtime's reason."""


class InvalidImageName(Exception):
    """What a manifest names cannot be an image."""


def _full(name: str) -> str:
    host, _, rest = name.partition("/")
    if not rest or not ("." in host or ":" in host or host == "localhost"):
        return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    return name


def _login(secret: Mapping, host: str) -> tuple[str, str] | None:
    encoded = (secret.get("data") or {}).get(".dockerconfigjson", "")
    try:
        auths = json.loads(base64.b64decode(encoded) or b"{}").get("auths", {})
    except (ValueError, binascii.Error):
        return None
    for server, login in auths.items():
        if server.removeprefix("https://").split("/")[0] in (host, f"index.{host}"):
            if "auth" in login:
                user, _, password = base64.b64decode(login["auth"]).decode().partition(":")
                return user, password
            return login.get("username", ""), login.get("password", "")
    return None


class Images:
    """All registries of the cluster in one table; tests may change it while pods run."""

    def __init__(self, table: Mapping[str, Image] | None = None) -> None:
        self.table = dict(table or {})
        self.broken: dict[str, str] = {}
        """Images that cannot be pulled for now, with the runtime's reason."""
        self.slow: dict[str, float] = {}
        """Seconds that a pull takes, in place of what the table says."""

    def seconds(self, name: str) -> float:
        """How long a pull takes, also one that fails."""
        known = self.table.get(name)
        return self.slow.get(name, known.pull_seconds if known else 0.0)

    def pull(self, name: str, secrets: Iterable[Mapping]) -> Image:
        """The image, or the reason why there is none."""
        if not _NAME.fullmatch(name):
            raise InvalidImageName(
                f'Failed to apply default image tag "{name}": couldn\'t parse image name '
                f'"{name}": invalid reference format'
            )
        full = _full(name)
        known = self.table.get(name)
        if name in self.broken:
            raise PullError(self.broken[name])
        missing = f'failed to pull and unpack image "{full}": failed to resolve reference "{full}"'
        if known is None:
            raise PullError(f"rpc error: code = NotFound desc = {missing}: {full}: not found")
        host = full.split("/")[0]
        if known.login and known.login not in [_login(secret, host) for secret in secrets]:
            raise PullError(
                f"{missing}: pull access denied, repository does not exist or may require "
                "authorization: authorization failed: no basic auth credentials"
            )
        return known
