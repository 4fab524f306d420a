"""``modelyard storage``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.storage.accesses import StorageAccess
from modelyard import output, secret_input
from modelyard.api import storage as api
from modelyard.connecting import connected
from modelyard.options import Json
from registry import deletion, storage_accesses

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Access keys of object storage and folders of NAS, by URI.",
)

SECRET_VARIABLE = "MODELYARD_STORAGE_SECRET"  # noqa: S105 (a variable's name)
TOKEN_VARIABLE = "MODELYARD_STORAGE_TOKEN"  # noqa: S105
_COLUMNS = ("name", "uris", "endpoint", "region", "key_id", "folder")

Access = Annotated[str, typer.Argument(help="Name of the access.")]


@app.command()
def add(
    name: Access,
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI...",
            help="What it is for, with all below it: s3:// (every bucket), s3://bucket, "
            "s3://bucket/prefix, obs://endpoint, obs://endpoint/container, nas://ID.",
        ),
    ],
    key_id: Annotated[
        str,
        typer.Option(help="Id of the access key, or secret:NAME; its secret is asked for."),
    ] = "",
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="Endpoint of s3:// URIs; Amazon's own if left out.")
    ] = "",
    region: Annotated[str, typer.Option(help="Region of the bucket.")] = "",
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="The obs:// endpoint uses plain HTTP.")
    ] = False,
    session_token: Annotated[
        bool,
        typer.Option("--session-token", help="The key is temporary; its token is asked for."),
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder where nas://ID is mounted.")] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Refuse an access that does not work."),
    ] = True,
    json: Json = False,
) -> None:
    """Add an access to storage, or replace the one of this name.

    The secret of --key-id is taken from the variable MODELYARD_STORAGE_SECRET, else from a
    prompt, else from standard input.
    """
    secret = secret_input.read(f"Secret of {key_id}", SECRET_VARIABLE) if key_id else ""
    token = secret_input.read("Session token", TOKEN_VARIABLE) if session_token else ""
    access = StorageAccess(
        name=name,
        uris=tuple(uris),
        endpoint=endpoint.rstrip("/"),
        region=region,
        plain_http=plain_http,
        key_id=key_id,
        secret_key=secret,
        session_token=token,
        folder=str(folder.expanduser().absolute()) if folder else "",
    )
    storage_accesses.validate(access)
    with connected():
        added = api.store(access, check=check)
    output.thing(added, as_json_=json)


@app.command("list")
def list_(json: Json = False) -> None:
    """List every access; secrets are not shown."""
    with connected():
        found = storage_accesses.list_all()
    output.rows(found, _COLUMNS, as_json_=json)


@app.command()
def remove(name: Access, json: Json = False) -> None:
    """Remove an access with its secret."""
    with connected():
        output.thing(deletion.delete("storage", name), as_json_=json)
