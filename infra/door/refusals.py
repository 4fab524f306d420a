"""Responses of the door to refused requests: JSON for programs, a page for browsers."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

from starlette.types import Send


@dataclass(frozen=True)
class Refusal:
    """Reason why a request is refused.

    Attributes:
        status: The HTTP status.
        code: A stable word, as MLflow has them.
        message: What is wrong.
        hint: How to get in, for programs; a page has words of its own.
    """

    status: int
    code: str
    message: str
    hint: str = ""


UNAUTHENTICATED = Refusal(
    401, "UNAUTHENTICATED", "This stack is open to its owner alone.",
    'Set what its clients need: eval "$(modelyard env)".',
)  # fmt: skip
LINK_USED = Refusal(
    401,
    "UNAUTHENTICATED",
    "This link was used already, or is too old.",
    "Get a new one: modelyard open.",
)
FOREIGN_HOST = Refusal(
    403, "PERMISSION_DENIED", "This server does not answer under this host name.",
    "Add it to MODELYARD_WEB_HOSTS.",
)  # fmt: skip
FOREIGN_ORIGIN = Refusal(
    403, "PERMISSION_DENIED", "Pages of another origin may not send requests to this server."
)
AMBIGUOUS = Refusal(400, "BAD_REQUEST", "A header that must be single occurs twice.")

# None of it may be kept, framed or read by others.
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; "
     b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
]  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Modelyard: not logged in</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto; padding: 0 1rem;
  color: #1c2430; background: #f6f7f9; }}
h1 {{ font-size: 1.3rem; }}
pre {{ background: #1c2430; color: #f6f7f9; padding: .8rem 1rem; border-radius: 6px; }}
</style>
<h1>{title}</h1><p>{message}</p>
<p>On the machine on which the stack runs, as its user:</p><pre>modelyard open</pre></html>
"""


async def refuse(send: Send, refusal: Refusal, *, as_page: bool = False) -> None:
    """Answer a request with a refusal."""
    if as_page:
        title = "Log in to Modelyard" if refusal.status == 401 else "Refused by Modelyard"
        page = _PAGE.format(title=title, message=html.escape(refusal.message))
        body, kind = page.encode(), b"text/html; charset=utf-8"
    else:
        # `exception_message` and `detail` are Prefect's words for it, the others are MLflow's.
        text = f"{refusal.message} {refusal.hint}".strip()
        content = {
            "error_code": refusal.code,
            "message": text,
            "exception_message": text,
            "detail": text,
        }
        body, kind = json.dumps(content).encode(), b"application/json"
    headers = [*_HEADERS, (b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="modelyard"'))  # no browser asks then
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def redirect(send: Send, location: str, cookies: list[str]) -> None:
    """Redirect a browser, and set cookies."""
    headers = [*_HEADERS, (b"location", location.encode("latin-1")), (b"content-length", b"0")]
    headers += [(b"set-cookie", cookie.encode()) for cookie in cookies]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def reject(send: Send) -> None:
    """Reject a websocket before it is accepted, with the status 403."""
    await send({"type": "websocket.close", "code": 1008})
