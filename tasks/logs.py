"""What becomes of what a run's scripts print."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from infra import storage
from tasks.parameters import Text


class Logs(BaseModel):
    """What becomes of what is printed, beside the file among the run's artifacts."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    stream: bool = Field(True, description="Show the lines in the run's log in Prefect.")
    uri: Text = Field("", description="A folder that gets a copy of the whole log at the end.")

    def absolute(self) -> Logs:
        """The same with a relative path made absolute against the caller's working directory."""
        return self.model_copy(update={"uri": storage.absolute(self.uri)})
