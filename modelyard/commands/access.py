"""``modelyard env``, ``open`` and ``credential``: access for the owner."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import Annotated

import typer

from infra import connection
from infra import home as homes
from infra.connection import Endpoints
from infra.door import credential
from infra.errors import ConflictError, StackError
from infra.stack import client
from modelyard import login, output
from modelyard.options import Json
from modelyard.output import console

app = typer.Typer(add_completion=False)
credentials = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(credentials, name="credential", help="Credential of the stack's servers: rotate.")


class StackPage(StrEnum):
    """A page to open."""

    PREFECT = "prefect"
    MLFLOW = "mlflow"
    WEB = "web"


def _endpoints() -> Endpoints:
    found = connection.from_environment() or client.endpoints(homes.current())
    if found is None:
        raise StackError("The stack is not up.", "Start it: modelyard up --detach.")
    return found


@app.command()
def env(json: Json = False) -> None:
    """Print the environment of Prefect's and MLflow's clients, for: eval "$(modelyard env)"."""
    variables = connection.client_environment(_endpoints(), homes.current())
    if json:
        output.as_json(variables)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command("open")
def open_(
    page: Annotated[StackPage, typer.Argument(help="Page to open.")] = StackPage.PREFECT,
    json: Json = False,
) -> None:
    """Open Prefect's, MLflow's or Modelyard's own pages in the browser, logged in."""
    url = connection.browser_urls(_endpoints())[page]
    opened = login.open_browser(url)
    if json:
        output.as_json({"url": url, "opened": opened})
    else:
        lead = "If no page appears, open" if opened else "No browser was found. Open"
        console.print(f"{lead}: {login.link(url)}", markup=False)


@credentials.command()
def rotate(json: Json = False) -> None:
    """Replace the credential; browsers are logged out, and the output of `env` is void."""
    home = homes.current()
    if client.status(home) is not None:
        raise ConflictError(
            "The stack is up, and its parts use the credential.",
            "Stop it first (modelyard down), and start it again afterwards.",
            code="StackUp",
        )
    home.make()
    credential.rotate(home)
    if json:
        output.as_json({"rotated": True})
    else:
        console.print("The credential is replaced; the next modelyard up uses it.")
