"""State of a connection of HTTP/2: its streams, its client's settings and remaining budget."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from modelyard_runtime.server.body_memory import HeldBytes
from modelyard_runtime.server.http2_frames import (
    MOST_FRAME_BYTES,
    MOST_WINDOW,
    ErrorCode,
    Http2Error,
    Setting,
)
from modelyard_runtime.server.http2_heads import Http2Head

DEFAULT_WINDOW = 2**16 - 1
_DEFAULT_FRAME_BYTES = 2**14

# Frames that are no request cost time as well. A client has some at once, some for each second,
# and some for each request and each part of an answer, which are what they are for.
_MOST_CONTROLS = 10_000
_CONTROLS_PER_SECOND = 1000.0
_CONTROLS_PER_FRAME = 8


@dataclass(slots=True)
class Http2Stream:
    """A request that arrives, or is answered.

    Attributes:
        number: The stream's.
        head: The head of the request.
        held: What there is of the body, in the server's memory.
        credit: Bytes that the client takes of the answer beyond the window that its settings
            give to each stream.
        since: Time at which the request began to arrive, or the client last took of the answer.
        read_bytes: Bytes of the request since the client has heard that it may send more.
        body: What there is of its body; None once it is refused.
        size: Its bytes.
        is_received: Whether all of the request is there.
        task: The task that answers it.
        unsent: The rest of the answer's body.
        trailers: The answer's trailers.
    """

    number: int
    head: Http2Head
    held: HeldBytes
    since: float
    credit: int = 0
    read_bytes: int = 0
    body: bytes | bytearray | None = b""
    size: int = 0
    is_received: bool = False
    task: asyncio.Task[None] | None = None
    unsent: memoryview | bytes = b""
    trailers: bytes = b""


class ClientSettings:
    """What a client says of itself in SETTINGS.

    Attributes:
        window: Bytes of an answer that it takes at first.
        frame_bytes: Longest frame that it takes.
    """

    def __init__(self) -> None:
        self.window = DEFAULT_WINDOW
        self.frame_bytes = _DEFAULT_FRAME_BYTES

    def update(self, payload: bytes) -> None:
        """Heed the payload of a frame; what it does not know is passed over.

        Raises:
            Http2Error: If a value is out of range.
        """
        for at in range(0, len(payload), 6):
            name = int.from_bytes(payload[at : at + 2])
            value = int.from_bytes(payload[at + 2 : at + 6])
            if name == Setting.ENABLE_PUSH and value > 1:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1.")
            if name == Setting.MAX_FRAME_SIZE:
                if not _DEFAULT_FRAME_BYTES <= value < 2**24:
                    raise Http2Error(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range.")
                self.frame_bytes = min(value, MOST_FRAME_BYTES)
            if name == Setting.INITIAL_WINDOW_SIZE:
                if value > MOST_WINDOW:
                    raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "The window is too large.")
                self.window = value


class ControlBudget:
    """Bounds the frames of a client that are no requests: a token bucket."""

    def __init__(self, now: float) -> None:
        """Begin with a full bucket."""
        self._left = float(_MOST_CONTROLS)
        self._at = now

    def earn(self) -> None:
        """Count a request, or a part of an answer."""
        self._left += _CONTROLS_PER_FRAME

    def spend(self, now: float) -> None:
        """Count a frame that is neither.

        Raises:
            Http2Error: If there are too many.
        """
        if self._left < 1:
            self._left += (now - self._at) * _CONTROLS_PER_SECOND
            self._at = now
        self._left = min(self._left, _MOST_CONTROLS) - 1
        if self._left < 0:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "Too many frames are no requests.")
