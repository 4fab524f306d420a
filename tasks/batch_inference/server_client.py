"""Servers that serve the model, asked as a predictor is: what both protocols have in common."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import httpx
from modelyard_runtime.frames import Columns

from serving import server_readiness
from serving.server_http import ServedModel, ServerAnswer, answer_of
from serving.server_readiness import BUSY, ModelUnservedError
from tasks.batch_inference.predictor_client import PredictionError, PredictorStartError

_LONGEST_PAUSE = 5.0
JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json"}


class ServerClient(ABC):
    """A server, which several requests may reach at once. For one thread."""

    def __init__(self, client: httpx.Client, served: ServedModel) -> None:
        """Ask through ``client``, which is closed with this one."""
        self._http = client
        self._served = served
        self._is_lost = False

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def prepare(self) -> None:
        """Wait until a server that has ended, and is started again, is ready.

        Raises:
            PredictorStartError: If it is not in its time.
        """
        if not self._is_lost:
            return
        try:
            server_readiness.await_ready(self._http, self._served)
        except ModelUnservedError as error:
            raise PredictorStartError(f"The server ended, and {error}") from error
        self._is_lost = False

    def infer(self, columns: Columns, seconds: float) -> Columns:
        """Predict a batch.

        Raises:
            PredictionError: If the server refuses it, or does not answer in ``seconds``, in which
                a server that is busy or away is asked again. One that is started again if it ends
                is lost instead of away.
            PredictorStartError: If one that was lost is not ready again in its time.
        """
        self.prepare()
        return self._infer(columns, time.monotonic() + seconds)

    @abstractmethod
    def _infer(self, columns: Columns, until: float) -> Columns:
        """Predict a batch until ``time.monotonic()`` is ``until``; raises as :meth:`infer`."""

    def _ask(
        self, path: str, content: bytes, until: float, headers: Mapping[str, str] = JSON_HEADERS
    ) -> ServerAnswer:
        """The server's answer; ``until`` is ``time.monotonic()`` when it is late."""
        pause, reason = 0.1, "did not answer"
        while time.monotonic() < until:
            try:
                answer = self._post(path, content, headers, until)
            except httpx.TimeoutException:
                break
            except httpx.TransportError as error:
                if self._served.is_restarted:
                    self._is_lost = True
                    raise PredictionError(f"The server ended: {error}", is_lost=True) from error
                reason = f"cannot be reached: {error}"
            else:
                if answer.is_ok:
                    return answer
                reason = f"answers {answer.status}: {answer.reason}"
                if answer.status not in BUSY:
                    raise PredictionError(f"The server {reason}")
                pause = max(pause, answer.retry_after)
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise PredictionError(f"The server {reason} within its time.", is_late=True)

    def _post(
        self, path: str, content: bytes, headers: Mapping[str, str], until: float
    ) -> ServerAnswer:
        """The answer, whole; a server that sends it drop by drop is late, too."""
        left = max(0.001, until - time.monotonic())
        pieces = []
        with self._http.stream(
            "POST", path, content=content, headers=headers, timeout=left
        ) as found:
            for piece in found.iter_bytes():
                pieces.append(piece)
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("It is late.")
        return answer_of(self._http, found, b"".join(pieces))


def encode_json(body: Any) -> bytes:
    """A request's body.

    Raises:
        PredictionError: If it has a value that JSON has not.
    """
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise PredictionError(f"The records cannot be sent: {error}") from error


def unusable_answer(error: object) -> PredictionError:
    """The error of an answer that is none of the protocol."""
    return PredictionError(f"The server sent what is no answer: {error}")
