"""The owner's credential: one random secret per home, readable by its owner alone.

Cookies, login tokens and credentials of runs are derived from it, so that rotating it revokes
them all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from infra.errors import StackError
from infra.home import Home

USER = "modelyard"
VARIABLE = "MODELYARD_CREDENTIAL"  # the servers' own, on a cluster
PREFECT = "PREFECT_API_AUTH_STRING"
PREFECT_SERVER = "PREFECT_SERVER_API_AUTH_STRING"  # what Prefect's own authentication wants
MLFLOW_USER = "MLFLOW_TRACKING_USERNAME"
MLFLOW_PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105 (a variable's name)
VARIABLES = (PREFECT, MLFLOW_USER, MLFLOW_PASSWORD)

_MODE = 0o600
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_BYTES = 32


@dataclass(frozen=True)
class Credential:
    """Secret that grants access to every server of one stack.

    Attributes:
        secret: Random text without a colon or white space.
    """

    secret: str = field(repr=False)

    @property
    def auth_string(self) -> str:
        """``USER:PASSWORD``, as Prefect's settings want it."""
        return f"{USER}:{self.secret}"

    @property
    def basic(self) -> str:
        """Value of an ``Authorization`` header."""
        return f"Basic {base64.b64encode(self.auth_string.encode()).decode()}"

    def key(self, purpose: str) -> bytes:
        """Derive a key of 32 bytes for one purpose, which does not reveal the secret."""
        return hmac.digest(self.secret.encode(), purpose.encode(), hashlib.sha256)

    def environment(self) -> dict[str, str]:
        """Build the variables that Prefect's and MLflow's clients read."""
        return {
            PREFECT: self.auth_string,
            MLFLOW_USER: USER,
            MLFLOW_PASSWORD: self.secret,
        }


def read(home: Home) -> Credential | None:
    """Read the home's credential; None if it has none. On a cluster it is in a variable.

    Raises:
        StackError: With the code ``CredentialExposed``, if other users may read or change it, or
            ``HomeExposed``, if they may replace it.
    """
    if told := os.environ.get(VARIABLE, ""):
        return Credential(told.strip())
    _check_folder(home)
    try:
        with home.credential.open() as file:
            found = os.fstat(file.fileno())
            secret = file.read().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(
            f"The credential {home.credential} cannot be read: {error.strerror}.",
            "The stack belongs to another user; set MODELYARD_HOME to a folder of your own.",
            code="CredentialUnreadable",
        ) from error
    if found.st_mode & _OTHERS or found.st_uid != os.getuid():
        raise StackError(
            f"The credential {home.credential} can be read or was written by other users.",
            "Replace it: modelyard down, then modelyard credential rotate.",
            code="CredentialExposed",
        )
    return Credential(secret) if secret else None


def _check_folder(home: Home) -> None:
    """Refuse a home in which other users may replace the credential or executed files."""
    try:
        found = home.root.stat()
    except OSError:
        return  # there is none yet, or reading the credential says why not
    if found.st_uid != os.getuid():
        raise StackError(
            f"The home {home.root} belongs to another user.",
            "Set MODELYARD_HOME to a folder of your own.",
            code="HomeExposed",
        )
    if found.st_mode & _OTHERS_WRITE:
        raise StackError(
            f"Other users may write to the home {home.root}.",
            f"Close it (chmod go-w {home.root}) and replace the credential: modelyard down, then "
            "modelyard credential rotate.",
            code="HomeExposed",
        )


def ensure(home: Home) -> Credential:
    """Return the home's credential; create one if it has none.

    Raises:
        StackError: If other users may read the present one.
    """
    if present := read(home):
        return present
    partial = _written(home.credential)
    try:
        os.link(partial, home.credential)  # never replaces what another process made meanwhile
    except FileExistsError:
        if home.credential.stat().st_size == 0:  # a disk was full
            partial.replace(home.credential)
    finally:
        partial.unlink(missing_ok=True)
    made = read(home)
    assert made is not None
    return made


def rotate(home: Home) -> Credential:
    """Replace the home's credential, which revokes everything derived from the old one.

    Raises:
        StackError: With the code ``HomeExposed``, if other users may replace it.
    """
    _check_folder(home)
    _written(home.credential).replace(home.credential)
    made = read(home)
    assert made is not None
    return made


def _written(path: Path) -> Path:
    """Write a new secret to a file beside ``path``."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return partial
