"""Logs of a container as it runs, each line once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from infra.kubernetes.api import Api
from infra.kubernetes.api_errors import ClusterError

_PAUSE_SECONDS = 0.5
_LAST_SECONDS = 30.0  # for lines that are unread when the container has ended
_LAST_READS = 5

_NEVER = threading.Event()

# A time's whole second, and its fraction: servers leave out zeros at its end.
_Time = tuple[str, str]


class LogFollower:
    """Follows one container's log, and reconnects when the connection breaks."""

    def __init__(self, api: Api, pod: str, container: str, on_line: Callable[[str], None]) -> None:
        """Start; ``on_line`` receives each line that is not empty, without its end."""
        self._api = api
        self._pod = pod
        self._container = container
        self._on_line = on_line
        self._over = threading.Event()
        # The time of the last line passed on, and how many lines of that time were.
        self._last: _Time = ("", "")
        self._same = 0
        self._since = ""
        self._thread = threading.Thread(target=self._follow, name=f"log-{pod}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Read the rest of a container that has ended, as far as it is available."""
        self._over.set()
        self._thread.join(_LAST_SECONDS)

    def _follow(self) -> None:
        left = _LAST_READS
        while left:
            over = self._over.is_set()
            try:
                self._read()
                left = 0 if over else left
            except ClusterError:
                left -= over
            if left:
                (_NEVER if over else self._over).wait(_PAUSE_SECONDS)

    def _read(self) -> None:
        """Pass on new lines until the server closes the log."""
        again = self._same  # of the last line's time, these are known
        for stamped in self._api.follow_log(
            self._pod, self._container, since_time=self._since, timestamps=True
        ):
            stamp, _, line = stamped.partition(" ")
            at = _time(stamp)
            if at < self._last:
                continue
            if at == self._last and again:
                again -= 1
                continue
            self._same = self._same + 1 if at == self._last else 1
            if at > self._last:
                again = 0
            self._last, self._since = at, stamp
            for part in line.split("\r"):
                if part:
                    self._on_line(part)


def _time(stamp: str) -> _Time:
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    return whole, fraction.ljust(9, "0")
