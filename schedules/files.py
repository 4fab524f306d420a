"""Files of schedules: read, and checked as a whole, with the place of everything that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from infra.errors import BadInputError, ModelyardError
from infra.texts import is_storable
from registry import names
from schedules import editing, instants, plain
from schedules.editing import Check, Written
from schedules.instants import instant_at
from schedules.policy import Policy
from schedules.trigger import Trigger

_TRIGGER = Trigger.written()
_FIELDS = (
    "name", "deployment", *_TRIGGER, "trigger", "policy", "parameters", "description", "enabled",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a file.

    Attributes:
        place: Where, such as ``schedules[2].policy.overlap``.
        error: What.
    """

    place: str
    error: ModelyardError

    def __str__(self) -> str:
        return f"{self.place}: {self.error}"


class FileInvalidError(BadInputError):
    """A file of schedules has faults; nothing of it was applied.

    Attributes:
        faults: All of them.
    """

    code = "FileInvalid"

    def __init__(self, file: str, faults: list[Fault]) -> None:
        told = "\n".join(map(str, faults))
        number = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        super().__init__(f"{file} has {number}:\n{told}", "Nothing was applied.")
        self.faults = faults


@dataclass(frozen=True)
class Entry:
    """A schedule of a file.

    Attributes:
        place: Where it stands.
        written: What it is; its parameters have been checked.
        trigger: Its trigger, as if it were made now.
        enabled: Whether its slots are run; None if the file leaves that to others.
    """

    place: str
    written: Written
    trigger: Trigger
    enabled: bool | None

    @property
    def name(self) -> str:
        """What the schedule is called."""
        return self.written.name


class Reader:
    """Reads a file, and goes on where something is wrong.

    Attributes:
        faults: What was wrong until now.
    """

    def __init__(self, check: Check) -> None:
        """Be ready.

        Args:
            check: Refuses a deployment that is not there, and parameters that it cannot have.
        """
        self.faults: list[Fault] = []
        self._check = check

    def read(self, document: Mapping[str, Any], file: str) -> tuple[str, list[Entry]]:
        """The name of a file's set, and those of its schedules with which nothing is wrong."""
        self._known("", document, ("set", "schedules"))
        source = document.get("set", file)
        if not isinstance(source, str) or not source.strip() or not is_storable(source):
            self.add("set", "It is no name.", "Give a text, or leave it out.", "FieldInvalid")
            source = file
        given = document.get("schedules")
        if not isinstance(given, list):
            self.add(
                "schedules", "It is no list.", "Write schedules: [] for none.", "FieldInvalid"
            )
            return source, []
        read = [self._entry(f"schedules[{number}]", one) for number, one in enumerate(given)]
        entries = [entry for entry in read if entry is not None]
        taken = set()
        for entry in entries:
            if entry.name in taken:
                told = f"{entry.name!r} stands twice."
                self.add(f"{entry.place}.name", told, "Give each its own name.", "NameTaken")
            taken.add(entry.name)
        return source, entries

    def add(self, place: str, message: str, hint: str, code: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(place, BadInputError(message, hint, code=code)))

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """What is refused inside is a fault of this place."""
        try:
            yield
        except ModelyardError as error:
            self.faults.append(Fault(place, error))

    def _entry(self, place: str, given: Any) -> Entry | None:
        if not isinstance(given, Mapping):
            self.add(place, "It is no mapping.", "Write name: value lines.", "FieldInvalid")
            return None
        before = len(self.faults)
        with self.at(place):
            plain.check_depth(given)
        if len(self.faults) > before:
            return None
        self._known(f"{place}.", given, _FIELDS)
        name = self._text(place, given, "name", names.check)
        deployment = self._text(place, given, "deployment", plain.check)
        description = self._text(place, given, "description", names.check_description, "")
        enabled = given.get("enabled")
        if not (enabled is None or isinstance(enabled, bool)):
            self.add(f"{place}.enabled", "It is not true or false.", "Give one.", "FieldInvalid")
        policy = self._policy(f"{place}.policy", given.get("policy"))
        trigger = self._trigger(place, given)
        parameters = self._parameters(place, given, deployment)
        if trigger is None or len(self.faults) > before:
            return None
        with self.at(f"{place}.parameters"):
            editing.check_run_names(trigger, parameters)
        written = Written(
            name=name,
            deployment=deployment,
            description=description,
            parameters=parameters,
            trigger=editing.fields_of(trigger.model_dump(mode="json", exclude_none=True)),
            policy=policy,
            enabled=enabled is not False,
        )
        return Entry(place, written, trigger, enabled)

    def _known(self, prefix: str, given: Mapping[Any, Any], known: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                hint = f"There are: {', '.join(known)}."
                self.add(f"{prefix}{name}", "There is no such field.", hint, "FieldUnknown")

    def _text(
        self,
        place: str,
        given: Mapping[str, Any],
        name: str,
        check: Callable[[str], None],
        otherwise: str | None = None,
    ) -> str:
        value = given.get(name)
        value = otherwise if value is None else value
        if isinstance(value, str) and (value or otherwise is not None):
            with self.at(f"{place}.{name}"):
                check(value)
                return value
            return ""
        message = "It is missing." if value in (None, "") else "It is no text."
        self.add(f"{place}.{name}", message, "Give a text.", "FieldInvalid")
        return ""

    def _mapping(self, place: str, given: Any) -> dict[str, Any]:
        if given is None:
            return {}
        if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
            return dict(given)
        self.add(place, "It is no mapping.", "Write name: value lines.", "FieldInvalid")
        return {}

    def _policy(self, place: str, given: Any) -> dict[str, Any]:
        found = self._mapping(place, given)
        for name, value in found.items():
            with self.at(f"{place}.{name}"):
                Policy(**{name: value})
        return found

    def _trigger(self, place: str, given: Mapping[str, Any]) -> Trigger | None:
        """Each field by itself first, so that all that is wrong is told."""
        inner = self._mapping(f"{place}.trigger", given.get("trigger"))
        self._known(f"{place}.trigger.", inner, _TRIGGER)
        before = len(self.faults)
        now = instant_at(int(instants.present()))
        fields: dict[str, Any] = {}
        for name in ("timezone", *(each for each in _TRIGGER if each != "timezone")):
            where = f"{place}.trigger.{name}" if name in inner else f"{place}.{name}"
            if name in inner and name in given:
                told = "It stands in the schedule and in its trigger."
                self.add(where, told, "Take one away.", "FieldTwice")
            value = _plain(inner.get(name, given.get(name)))
            if value is None:
                continue
            with self.at(where):
                frame = {"timezone": fields.get("timezone", "UTC"), "since": now, name: value}
                Trigger(**({} if name == "cron" else {"interval_seconds": 60}) | frame)
                fields[name] = value
        if len(self.faults) > before:
            return None
        with self.at(place):
            return Trigger(**fields, since=now)
        return None

    def _parameters(self, place: str, given: Mapping[str, Any], deployment: str) -> dict[str, Any]:
        before = len(self.faults)
        found: dict[str, Any] = _plain(
            self._mapping(f"{place}.parameters", given.get("parameters"))
        )
        if not deployment or len(self.faults) > before:
            return {}
        try:
            return editing.check_parameters(deployment, found, self._check)
        except ModelyardError as error:
            part = "deployment" if error.code == editing.DEPLOYMENT_UNKNOWN else "parameters"
            self.faults.append(Fault(f"{place}.{part}", error))
            return {}


def _plain(value: Any) -> Any:
    """The same with the dates and times that YAML reads as the texts that were written."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
