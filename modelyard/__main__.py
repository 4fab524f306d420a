"""The process of the ``modelyard`` command, whatever folders are named as Modelyard's packages."""

from __future__ import annotations

import pkgutil

from modelyard import packages


def main() -> None:
    """Run the command."""
    packages.come_first()
    pkgutil.resolve_name("modelyard.main:main")()


if __name__ == "__main__":
    main()
