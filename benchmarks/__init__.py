"""Our numbers beside a neighbour's, from one run: ``python -m benchmarks``."""

import infra  # noqa: F401  (first of all: it keeps libraries from phoning home)
