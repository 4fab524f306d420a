from __future__ import annotations

import httpx
import pytest

from infra import prefect_outage
from infra.prefect_outage import retry_during_outage

REQUEST = httpx.Request("GET", "http://prefect/api")


def _answer(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError(
        "refused", request=REQUEST, response=httpx.Response(status, request=REQUEST)
    )


AWAY = [
    httpx.ConnectError("refused"),
    httpx.RemoteProtocolError("Server disconnected"),
    httpx.ReadTimeout("too long"),
    RuntimeError("Failed to reach API at http://prefect/api"),
    _answer(503),
]


class Server:
    """Fails with each error in turn, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = [*errors]
        self.slept: list[float] = []
        self.told: list[str] = []

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    def asked(self, seconds: float = 600) -> str:
        return retry_during_outage(
            self, self.told.append, seconds=seconds, sleep=self.slept.append
        )


def test_a_server_that_is_away_is_waited_for_and_each_wait_is_logged() -> None:
    server = Server(*AWAY)

    assert server.asked() == "answer"
    assert server.slept == [1, 2, 4, 8, 10]
    assert len(server.told) == 5
    assert server.told[0] == (
        "Prefect does not answer (refused). It is waited for, 600 s at most."
    )


def test_not_for_ever() -> None:
    server = Server(*(httpx.ConnectError("refused") for _ in range(99)))

    with pytest.raises(httpx.ConnectError):
        server.asked(20)
    assert sum(server.slept) == 20


@pytest.mark.parametrize("error", [_answer(401), _answer(404), RuntimeError("another one")])
def test_a_refusal_is_no_outage(error: Exception) -> None:
    server = Server(error)

    with pytest.raises(type(error)):
        server.asked()
    assert not server.slept
    assert not prefect_outage.is_outage(error)
