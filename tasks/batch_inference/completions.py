"""OpenAI's completions and chat completions, asked as a predictor is. vLLM speaks them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from modelyard_runtime.frames import Columns, objects
from modelyard_runtime.models.base import PREDICTION, instances

from serving.server_http import ServedModel
from serving.server_readiness import ServerReadiness
from tasks.batch_inference.predictor_client import PredictionError
from tasks.batch_inference.server_client import ServerClient, encode_json, unusable_answer

# Fields of a record that are options of its request.
_OPTIONS = ("max_tokens", "temperature", "top_p", "stop", "seed")
_AT_ONCE = 16


class CompletionsClient(ServerClient):
    """OpenAI's protocol: records have a ``prompt``, or ``messages``."""

    def __init__(self, client: httpx.Client, served: ServedModel, ready: ServerReadiness) -> None:
        """Ask for completions of the model that is ready."""
        super().__init__(client, served)
        self._model = ready.name
        self._asked: frozenset[str] = frozenset()  # of the last batch that is no piece of another
        self._kept: dict[str, str] = {}

    def _infer(self, columns: Columns, until: float) -> Columns:
        """Send the requests of a batch 16 at a time.

        Of a batch of which some fail, the texts of the others are kept for when pieces of it are
        asked for.
        """
        records = instances(columns)
        keys = [json.dumps(one, default=str) for one in records]
        if not set(keys) <= self._asked:
            self._asked, self._kept = frozenset(keys), {}
        with ThreadPoolExecutor(_AT_ONCE, "completion") as threads:
            asked = [
                (key, threads.submit(self._complete, one, until))
                for key, one in zip(keys, records, strict=True)
                if key not in self._kept
            ]
        self._kept |= {key: one.result() for key, one in asked if one.exception() is None}
        if failure := next((error for _, one in asked if (error := one.exception())), None):
            raise failure
        found = objects([self._kept[key] for key in keys])
        if set(keys) == self._asked:
            self._asked, self._kept = frozenset(), {}
        return {PREDICTION: found}

    def _complete(self, record: Any, until: float) -> str:
        given = record if isinstance(record, dict) else {}
        is_chat = "messages" in given
        field = "messages" if is_chat else "prompt"
        if field not in given:
            raise PredictionError("A record has neither a prompt nor messages.")
        body = {"model": self._model, field: given[field], **_options(given)}
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        answer = self._ask(path, encode_json(body), until)
        try:
            choice = answer.parsed()["choices"][0]
            text = choice["message"]["content"] if is_chat else choice["text"]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise unusable_answer(repr(error)) from error
        return str(text or "")


def _options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a record's request; whole numbers are such again, and missing ones left out."""
    found = {name: record[name] for name in _OPTIONS if record.get(name) is not None}
    numbers = {name: value for name, value in found.items() if isinstance(value, float)}
    whole = {name: int(value) for name, value in numbers.items() if value.is_integer()}
    missing = {name for name, value in numbers.items() if math.isnan(value)}
    return {name: value for name, value in {**found, **whole}.items() if name not in missing}
