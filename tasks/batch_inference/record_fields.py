"""The fields that the records of an input have, found while its files are cut into parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from modelyard_runtime.models.base import INPUT

from infra.errors import BadInputError
from infra.suggestions import show_names
from tasks.batch_inference import json_texts
from tasks.batch_inference.json_texts import MalformedText
from tasks.batch_inference.splitting import FilePart
from tasks.batch_inference.value_columns import ValueKinds

_CHUNK = 1000  # records


class FileFields:
    """The fields of the records of a file.

    Attributes:
        kinds: The kinds of values that the fields of JSON have.
        first: Those of the first record that can be read, in its order; None before it.
        readable: How many records can be read.
        malformed: How many cannot.
        fault: Why the first one of these cannot; "" before it.
    """

    def __init__(self) -> None:
        self.kinds = ValueKinds()
        self._names: Collection[str] = ()
        self.first: Sequence[str] | None = None
        self.readable = self.malformed = 0
        self.fault = ""

    @property
    def names(self) -> Collection[str]:
        """The names of all fields."""
        return self._names or self.kinds.names

    def add_table(self, names: Sequence[str], rows: int) -> None:
        """See a table."""
        self._names = names
        self.readable += rows
        if rows:
            self.first = names

    def add_json(self, path: Path, part: FilePart, input_format: str) -> None:
        """See the records of a part of a JSON file.

        Raises:
            OSError: If it cannot be read.
        """
        for texts in json_texts.chunks(json_texts.texts(path, part, input_format), _CHUNK):
            found = json_texts.load(texts)
            records = [one for one in found if type(one) is not MalformedText]
            if len(records) < len(found):
                self.malformed += len(found) - len(records)
                faults = (one.reason for one in found if isinstance(one, MalformedText))
                self.fault = self.fault or next(faults)
            self._add(records)

    def _add(self, records: Sequence[Any]) -> None:
        self.readable += len(records)
        if self.first is None and records:
            self.first = list(records[0]) if isinstance(records[0], dict) else []
        mappings = [record for record in records if isinstance(record, dict)]
        self.kinds.add_records(mappings)
        if len(mappings) < len(records):
            self.kinds.add(INPUT, [one for one in records if not isinstance(one, dict)])


class InputFields:
    """The fields of the records of an input, of one file after another."""

    def __init__(self, key: str = "", drop_fields: Iterable[str] = ()) -> None:
        """Look for fields.

        Args:
            key: The field that is a record's key; "" if none.
            drop_fields: The fields that the model does not get.
        """
        self._missing = dict.fromkeys(drop_fields, "drop_fields")
        if key:
            self._missing[key] = "key"
        self._first: tuple[str, Sequence[str]] | None = None
        self._fault = ""

    def add(self, file: str, fields: FileFields) -> None:
        """See the fields of the file with this name."""
        for name in self._missing.keys() & set(fields.names):
            del self._missing[name]
        if self._first is None and fields.first is not None:
            self._first = file, fields.first
        if fields.fault and not self._fault:
            self._fault = f"{file}: {fields.fault}"

    def check(self) -> None:
        """Refuse an input of which no record can be read, or has a field that was looked for.

        Raises:
            BadInputError: ``InputMalformed`` or ``FieldMissing``.
        """
        if self._first is None and self._fault:
            raise BadInputError(
                f"input_uri: no record can be read, the first one in {self._fault}",
                "Check input_format.",
                code="InputMalformed",
            )
        if self._first is not None and self._missing:
            name, parameter = next(iter(self._missing.items()))
            file, fields = self._first
            raise BadInputError(
                f"{parameter}: no record of the input has a field {name!r}; the first one of "
                f"{file} has {show_names(fields)}.",
                f"Check the names in {parameter}.",
                code="FieldMissing",
            )
