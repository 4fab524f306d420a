"""What a run, and the model that it makes, may be called."""

from __future__ import annotations

from infra.errors import BadInputError

LONGEST = 250
_FORBIDDEN = frozenset('/:"')  # MLflow's, in a registered model's name and in its filters


def check(name: str) -> None:
    """Refuse a name that Prefect or MLflow could not keep.

    Raises:
        BadInputError: With the code ``NameInvalid``.
    """
    if (
        not name.strip()
        or len(name) > LONGEST
        or not name.isprintable()
        or _FORBIDDEN.intersection(name)
    ):
        raise BadInputError(
            f"The name {name[:60]!r} cannot be used.",
            f"Give 1 to {LONGEST} printable characters without '/', ':' and '\"'.",
            code="NameInvalid",
        )
