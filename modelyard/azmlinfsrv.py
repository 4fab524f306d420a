"""``azmlinfsrv``: ``modelyard serve`` with the options of Azure ML's inference server."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence

from modelyard_runtime.server import azmlinfsrv_options

from modelyard import packages


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a scoring script, by the options and variables of Azure ML's server.

    It listens on all addresses, as that does, where a token is set, and else on loopback.
    """
    given = azmlinfsrv_options.parse(arguments)
    if given.origins is not None:
        os.environ["AML_CORS_ORIGINS"] = given.origins
    made = ["serve", "--entry-script", str(given.entry_script), "--port", str(given.port),
            "--workers", str(given.workers), "--host", given.host]  # fmt: skip
    made += ["--model-dir", str(given.model_dir)] if given.model_dir else []
    sys.argv = ["modelyard", *made]
    packages.come_first()
    pkgutil.resolve_name("modelyard.main:main")()


if __name__ == "__main__":
    main()
