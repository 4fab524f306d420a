"""Flows, the entry points of users: one module per lifecycle action."""

import infra  # noqa: F401  (first of all: it keeps libraries from phoning home)
