"""The server's command: ``python -m modelyard_runtime.server --model-dir DIR``."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelyard_runtime.server import serving
from modelyard_runtime.server.application import Application, RequestLimits
from modelyard_runtime.server.batching import BatchLimits
from modelyard_runtime.server.hosted_model import HostedModel


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve models until a signal ends the server."""
    given = _parser().parse_args(arguments)
    limits = BatchLimits(given.batch_rows, given.queue, given.timeout)
    parameters = _pairs(given.parameter)
    models = [
        HostedModel.of_folder(name, given.version, Path(folder), parameters, limits)
        for name, folder in _models(given).items()
    ]
    requests = RequestLimits(given.body_mib * 2**20, given.body_timeout)
    application = Application(models, given.prefix, requests)
    opened = (
        serving.listen(given.host, given.port)
        if given.fd is None
        else socket.socket(fileno=given.fd)
    )
    sys.exit(asyncio.run(serving.serve(application, models, opened, given.drain)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelyard_runtime.server", description="Serve a model over HTTP."
    )
    add = parser.add_argument
    add("--model-dir", type=Path, help="The folder of the model's files.")
    add("--name", default="model", help="The model's name.")
    add("--version", default="1", help="The model's version.")
    add("--model", action="append", default=[], metavar="NAME=DIR", help="One more model.")
    add("--parameter", action="append", default=[], metavar="NAME=VALUE",
        help="A parameter of the model's.")  # fmt: skip
    add("--host", default="127.0.0.1", help="The address to listen on.")
    add("--port", type=int, default=8080, help="The port; 0 for any that is free.")
    add("--fd", type=int, help="A socket to accept from, instead of an address.")
    add("--prefix", default="", help="A path below which everything is served as well.")
    add("--batch-rows", type=int, default=BatchLimits.rows,
        help="Most rows that are predicted together.")  # fmt: skip
    add("--queue", type=int, default=BatchLimits.waiting, help="Most requests that wait.")
    add("--timeout", type=float, default=BatchLimits.seconds,
        help="Seconds until a request is answered at the latest.")  # fmt: skip
    add("--body-mib", type=int, default=RequestLimits.body_bytes // 2**20,
        help="Longest body, in MiB.")  # fmt: skip
    add("--body-timeout", type=float, default=RequestLimits.body_seconds,
        help="Seconds within which a body has to arrive.")  # fmt: skip
    add("--drain", type=float, default=30.0,
        help="Seconds that requests may take to end once the server is to end.")  # fmt: skip
    return parser


def _models(given: argparse.Namespace) -> Mapping[str, str]:
    found = _pairs(given.model)
    if given.model_dir is not None:
        found = {given.name: str(given.model_dir), **found}
    if not found:
        sys.exit("modelyard_runtime.server: give --model-dir DIR.")
    return found


def _pairs(given: Sequence[str]) -> Mapping[str, str]:
    pairs = [one.partition("=") for one in given]
    if odd := [name for name, equals, _ in pairs if not (name and equals)]:
        sys.exit(f"modelyard_runtime.server: {odd[0]!r} is not NAME=VALUE.")
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    main()
