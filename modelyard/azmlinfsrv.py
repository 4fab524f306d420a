"""``azmlinfsrv``: ``modelyard serve`` with the options of Azure ML's inference server."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence

from modelyard import packages

_TOKEN = "MODELYARD_SERVE_TOKEN"  # noqa: S105 (the variable's name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a scoring script, by the options and variables of Azure ML's server.

    It listens on all addresses, as that does, where a token is set, and else on loopback.
    """
    environment = os.environ
    parser = argparse.ArgumentParser("azmlinfsrv", description="Serve a scoring script.")
    add = parser.add_argument
    script = environment.get("AZUREML_ENTRY_SCRIPT")
    add("--entry_script", default=script, required=not script, help="Path of the script.")
    add("--model_dir", default=environment.get("AZUREML_MODEL_DIR"),
        help="Folder of the model, in AZUREML_MODEL_DIR for the script.")  # fmt: skip
    add("--port", default="5001", help="Port; 5001 if left out.")
    add("--worker_count", default=environment.get("WORKER_COUNT", "1"),
        help="Processes that answer requests; 1 if left out.")  # fmt: skip
    add("--access_control_allow_origins", default=None,
        help="Origins whose pages may ask, separated by commas.")  # fmt: skip
    given = parser.parse_args(arguments)
    if given.access_control_allow_origins is not None:
        environment["AML_CORS_ORIGINS"] = given.access_control_allow_origins
    host = "0.0.0.0" if environment.get(_TOKEN, "").strip() else "127.0.0.1"  # noqa: S104
    made = ["serve", "--entry-script", given.entry_script, "--port", given.port,
            "--workers", given.worker_count, "--host", host]  # fmt: skip
    made += ["--model-dir", given.model_dir] if given.model_dir else []
    sys.argv = ["modelyard", *made]
    packages.come_first()
    pkgutil.resolve_name("modelyard.main:main")()


if __name__ == "__main__":
    main()
