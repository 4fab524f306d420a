"""Files of schedules: parsing and validation, which report every fault with its place."""

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
from schedules.editing import Check, ScheduleSpec
from schedules.instants import instant_at
from schedules.policy import SchedulePolicy
from schedules.trigger import Trigger

_TRIGGER = Trigger.editable_fields()
_FIX = "Nothing was applied: fix the file, and apply it again."
_FIELDS = (
    "name", "deployment", *_TRIGGER, "trigger", "policy", "parameters", "description", "enabled",
)  # fmt: skip


@dataclass(frozen=True)
class FileFault:
    """A fault of a file.

    Attributes:
        place: Path of the field, such as ``schedules[2].policy.overlap``.
        error: The error.
    """

    place: str
    error: ModelyardError

    def __str__(self) -> str:
        return f"{self.place}: {self.error}"


class FileInvalidError(BadInputError):
    """A file of schedules has faults; nothing of it was applied.

    Attributes:
        faults: All faults.
    """

    code = "FileInvalid"

    def __init__(self, file: str, faults: list[FileFault]) -> None:
        listed = "\n".join(map(str, faults))
        number = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        super().__init__(f"{file} has {number}:\n{listed}", _FIX)
        self.faults = faults


@dataclass(frozen=True)
class ScheduleEntry:
    """A schedule of a file.

    Attributes:
        place: Path of the entry, such as ``schedules[2]``.
        spec: Its specification, with validated parameters.
        trigger: Its trigger, as if it were created now.
        enabled: Whether its slots get runs; None if the file does not set it.
    """

    place: str
    spec: ScheduleSpec
    trigger: Trigger
    enabled: bool | None

    @property
    def name(self) -> str:
        """Name of the schedule."""
        return self.spec.name


class Reader:
    """Parser of a file, which collects faults and continues.

    Attributes:
        faults: The faults found so far.
    """

    def __init__(self, check: Check) -> None:
        """Prepare the parser.

        Args:
            check: Refuses an unknown deployment, and parameters that it does not accept.
        """
        self.faults: list[FileFault] = []
        self._check = check

    def read(self, document: Mapping[str, Any], file: str) -> tuple[str, list[ScheduleEntry]]:
        """Parse a file; the name of its set, and its entries without faults."""
        self._known("", document, ("set", "schedules"))
        source = document.get("set", file)
        if not isinstance(source, str) or not source.strip() or not is_storable(source):
            self.add("set", "Not a name.", "Give a string, or leave it out.", "FieldInvalid")
            source = file
        given = document.get("schedules")
        if not isinstance(given, list):
            self.add("schedules", "Not a list.", "Write schedules: [] for none.", "FieldInvalid")
            return source, []
        read = [self._entry(f"schedules[{number}]", one) for number, one in enumerate(given)]
        entries = [entry for entry in read if entry is not None]
        taken = set()
        for entry in entries:
            if entry.name in taken:
                message = f"{entry.name!r} appears twice."
                self.add(f"{entry.place}.name", message, "Give each its own name.", "NameTaken")
            taken.add(entry.name)
        return source, entries

    def add(self, place: str, message: str, hint: str, code: str) -> None:
        """Add a fault."""
        self.faults.append(FileFault(place, BadInputError(message, hint, code=code)))

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Add an error that is raised in this context as a fault at ``place``."""
        try:
            yield
        except ModelyardError as error:
            self.faults.append(FileFault(place, error))

    def _entry(self, place: str, given: Any) -> ScheduleEntry | None:
        if not isinstance(given, Mapping):
            self.add(place, "Not a mapping.", "Write name: value lines.", "FieldInvalid")
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
            self.add(f"{place}.enabled", "Not a boolean.", "Give true or false.", "FieldInvalid")
        policy = self._policy(f"{place}.policy", given.get("policy"))
        trigger = self._trigger(place, given)
        parameters = self._parameters(place, given, deployment, trigger)
        if trigger is None or len(self.faults) > before:
            return None
        spec = ScheduleSpec(
            name=name,
            deployment=deployment,
            description=description,
            parameters=parameters,
            trigger=editing.trigger_fields(trigger.model_dump(mode="json", exclude_none=True)),
            policy=policy,
            enabled=enabled is not False,
        )
        return ScheduleEntry(place, spec, trigger, enabled)

    def _known(self, prefix: str, given: Mapping[Any, Any], known: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                hint = f"Known are: {', '.join(known)}."
                self.add(f"{prefix}{name}", "Unknown field.", hint, "FieldUnknown")

    def _text(
        self,
        place: str,
        given: Mapping[str, Any],
        name: str,
        check: Callable[[str], None],
        default: str | None = None,
    ) -> str:
        value = given.get(name)
        value = default if value is None else value
        if isinstance(value, str) and (value or default is not None):
            with self.at(f"{place}.{name}"):
                check(value)
                return value
            return ""
        message = "Missing." if value in (None, "") else "Not a string."
        self.add(f"{place}.{name}", message, "Give a string.", "FieldInvalid")
        return ""

    def _mapping(self, place: str, given: Any) -> dict[str, Any]:
        if given is None:
            return {}
        if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
            return dict(given)
        self.add(place, "Not a mapping.", "Write name: value lines.", "FieldInvalid")
        return {}

    def _policy(self, place: str, given: Any) -> dict[str, Any]:
        found = self._mapping(place, given)
        for name, value in found.items():
            with self.at(f"{place}.{name}"):
                SchedulePolicy(**{name: value})
        return found

    def _trigger(self, place: str, given: Mapping[str, Any]) -> Trigger | None:
        """Parse a trigger; each field by itself first, so that every fault is reported."""
        inner = self._mapping(f"{place}.trigger", given.get("trigger"))
        self._known(f"{place}.trigger.", inner, _TRIGGER)
        before = len(self.faults)
        now = instant_at(int(instants.present()))
        fields: dict[str, Any] = {}
        for name in ("timezone", *(each for each in _TRIGGER if each != "timezone")):
            where = f"{place}.trigger.{name}" if name in inner else f"{place}.{name}"
            if name in inner and name in given:
                message = "Given both in the schedule and in its trigger."
                self.add(where, message, "Remove one.", "FieldTwice")
            value = _plain(inner.get(name, given.get(name)))
            if value is None:
                continue
            with self.at(where):
                alone = {"timezone": fields.get("timezone", "UTC"), "since": now, name: value}
                Trigger(**({} if name == "cron" else {"interval_seconds": 60}) | alone)
                fields[name] = value
        if len(self.faults) > before:
            return None
        with self.at(place):
            return Trigger(**fields, since=now)
        return None

    def _parameters(
        self, place: str, given: Mapping[str, Any], deployment: str, trigger: Trigger | None
    ) -> dict[str, Any]:
        before = len(self.faults)
        found: dict[str, Any] = _plain(
            self._mapping(f"{place}.parameters", given.get("parameters"))
        )
        if not deployment or len(self.faults) > before:
            return {}
        try:
            return editing.check_parameters(deployment, found, self._check, trigger)
        except ModelyardError as error:
            part = "deployment" if error.code == editing.DEPLOYMENT_UNKNOWN else "parameters"
            self.faults.append(FileFault(f"{place}.{part}", error))
            return {}


def _plain(value: Any) -> Any:
    """Turn YAML's dates and times back into strings."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
