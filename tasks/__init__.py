"""The steps that flows are made of."""

import infra  # noqa: F401  (first of all: it keeps libraries from phoning home)
