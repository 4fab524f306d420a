"""Links that log a browser in, for people; programs get plain URLs."""

from __future__ import annotations

import html
import json
import os
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from infra import connection, settings
from infra import home as homes
from infra.door import credential, sessions
from infra.home import Home
from infra.stack import client as stack

_PAGE = """<!doctype html><meta charset="utf-8"><title>Modelyard</title>
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">Modelyard</a>
"""


def link(url: str) -> str:
    """Return a page's URL with a token that logs one browser in, once.

    Args:
        url: The address; it stays as it is where it is no page of this home's stack.
    """
    return with_token(url) if _is_own(url) else url


def _is_own(url: str) -> bool:
    return any(server and _is_below(url, server) for server in _servers())


def _servers() -> list[str]:
    """Return the URLs of the servers that this process's credential opens in a browser."""
    endpoints = connection.from_environment()
    if credential.VARIABLE in os.environ and endpoints is not None:
        return [*connection.browser_urls(endpoints).values()]
    try:
        ports = json.loads((homes.current().root / "ports.json").read_text()).values()
    except (OSError, ValueError):
        return []
    return [f"http://127.0.0.1:{port}" for port in ports]


def _is_below(url: str, server: str) -> bool:
    return url == server or url.startswith((f"{server}/", f"{server}?"))


def with_token(url: str) -> str:
    """Return the URL of a server behind this home's door, with such a token."""
    home = homes.current()
    held = credential.read(home)
    if held is None or not _has_door(home):
        return url
    parts = urlsplit(url)
    token = f"{sessions.TOKEN_PARAMETER}={sessions.of(home, held).issue_token()}"
    query = f"{parts.query}&{token}" if parts.query else token
    return urlunsplit(parts._replace(path=parts.path or "/", query=query))


def is_missing() -> bool:
    """Whether the pages of this home's stack want a login, and no browser has one yet."""
    home = homes.current()
    held = credential.read(home)
    return held is not None and not sessions.has_logins(home) and _has_door(home)


def _has_door(home: Home) -> bool:
    """Whether the running stack has a door: a setting of the stack's, not of the caller's."""
    status = stack.status(home) or {}
    return bool(status.get("door", settings.load().door))


def open_browser(url: str) -> bool:
    """Open a page of this home's stack in the browser, logged in; return whether one opened.

    The browser is given a file that only its user can read: a command line is everybody's.
    """
    home = homes.current()
    page = _PAGE.format(link=html.escape(with_token(url)))
    return webbrowser.open(_written(home.logins, page).as_uri())


def _written(folder: Path, page: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "open.html"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(page)
    return path
