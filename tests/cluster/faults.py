"""Trouble on request: answers that are none, and an API server that is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.cluster.refusals import Refusal, bad_request

_LONGEST_HANG = 120.0
_SAID = {
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try "
          "again later"),
    500: ("InternalError", "Internal error occurred: etcdserver: leader changed"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}  # fmt: skip


@dataclass
class Fault:
    """What happens to requests, for so many of them or for so many seconds.

    Attributes:
        kind: "answer" (with `code`), "hang" (until the client gives up), "close" (the connection
            ends without an answer), "drop" (the request is done, and then the connection ends
            without an answer), "slow" (the answer waits `delay` seconds).
        method: Only requests of this method; of all without one.
        path: Only requests whose path this expression finds.
    """

    kind: str
    times: int | None = None
    seconds: float | None = None
    code: int = 500
    retry_after: int = 1
    delay: float = 1.0
    method: str = ""
    path: str = ""
    since: float = field(default_factory=time.monotonic)

    def takes(self, request: web.BaseRequest) -> bool:
        """Whether it befalls this request."""
        return (
            self.method in ("", request.method) and re.search(self.path, request.path) is not None
        )

    @property
    def over(self) -> bool:
        late = self.seconds is not None and time.monotonic() - self.since > self.seconds
        return late or (self.times is not None and self.times <= 0)


class Faults:
    """The faults that are to come."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self.met = 0
        """Requests that a fault befell."""

    def add(self, fault: Fault) -> None:
        """Adds one; without a number of times or seconds it befalls one request."""
        if fault.kind not in ("answer", "hang", "close", "drop", "slow"):
            raise bad_request(f"there is no fault {fault.kind}")
        if fault.times is None and fault.seconds is None:
            fault.times = 1
        self._faults.append(fault)

    def clear(self) -> None:
        """Takes all away."""
        self._faults.clear()

    def told(self, wanted: Mapping[str, Any]) -> None:
        """Adds one as a request of the admin path says it."""
        try:
            self.add(Fault(**wanted))
        except TypeError as error:
            raise bad_request(str(error)) from error

    async def befall(self, request: web.BaseRequest) -> Fault | None:
        """Lets the first fault that takes this request befall it.

        Returns:
            A fault that shows only after the request is done.

        Raises:
            Refusal: The answer instead of the real one.
            ConnectionAbortedError: The connection ends here.
        """
        self._faults = [fault for fault in self._faults if not fault.over]
        fault = next((one for one in self._faults if one.takes(request)), None)
        if fault is None:
            return None
        self.met += 1
        if fault.times is not None:
            fault.times -= 1
        if fault.kind == "answer":
            reason, message = _SAID.get(fault.code, ("", "the server was told to answer this"))
            details = {"retryAfterSeconds": fault.retry_after} if fault.code == 429 else None
            raise Refusal(fault.code, reason, message, details)
        if fault.kind == "close":
            raise ConnectionAbortedError
        if fault.kind == "hang":
            await asyncio.sleep(_LONGEST_HANG)
            raise ConnectionAbortedError
        if fault.kind == "slow":
            await asyncio.sleep(fault.delay)
        return fault
