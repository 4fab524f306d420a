"""The models of a server, as every protocol finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modelyard_runtime.server import observation
from modelyard_runtime.server.hosted_model import HostedModel
from modelyard_runtime.server.refusals import RequestRefused


class ServedModels:
    """The models of a server by their names, and whether it takes requests.

    Attributes:
        is_draining: Whether the server is to end: it answers what it has begun, and is not ready.
    """

    def __init__(self, models: Sequence[HostedModel]) -> None:
        """Serve ``models``."""
        self._models = {model.name: model for model in models}
        self.is_draining = False

    def __iter__(self) -> Iterator[HostedModel]:
        """The models, in the order in which they were given."""
        return iter(self._models.values())

    @property
    def names(self) -> list[str]:
        """Their names, in the same order."""
        return list(self._models)

    def find(self, name: str, version: str | None = None) -> HostedModel:
        """The model of a name, which has to be of the ``version`` if one is given.

        Raises:
            RequestRefused: 404.
        """
        if name not in self._models:
            raise RequestRefused(404, f"There is no model {name}, but {', '.join(self._models)}.")
        model = self._models[name]
        observation.is_of_model(name)
        if version not in {None, model.version}:
            raise RequestRefused(
                404, f"The model {name} has no version {version}, but {model.version}."
            )
        return model

    def check_ready(self) -> None:
        """Refuse unless all models are loaded and the server is not to end.

        Raises:
            RequestRefused: 503.
        """
        if self.is_draining:
            raise RequestRefused(503, "The server is ending.")
        for model in self:
            model.check_ready()
