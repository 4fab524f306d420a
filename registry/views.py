"""Base of views: what commands, pages and APIs show of a noun, as a frozen model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer

JsonObject = dict[str, Any]

# A point in time, in JSON as ISO 8601 with its offset.
Instant = Annotated[datetime, PlainSerializer(datetime.isoformat)]


class View(BaseModel):
    """A noun as it is shown.

    Fields are in the order of the JSON. A field that JSON omits where it is empty has
    ``exclude_if``; one that only code reads has ``exclude``.
    """

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> JsonObject:
        """Return what ``--json`` prints."""
        return self.model_dump(by_alias=True)

    def __getitem__(self, name: str) -> Any:
        """Return a field of the JSON, so that a script can read a view as the JSON itself."""
        return self.to_json()[name]
