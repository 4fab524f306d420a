"""Schedules from a file: what is in it is made and changed, and what is gone from it is archived.

A schedule belongs to the file that it was applied from. Everything is checked before anything is
written, and everything is written at once, so that a file is in force or has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from infra.errors import BadInputError, ConflictError
from registry import catalogue, history
from registry.schedules import schedule_removal
from registry.schedules import schedules as rows
from registry.schedules.schedules import ScheduleModel
from schedules import editing
from schedules.editing import Check
from schedules.files import Entry, Fault, FileInvalidError, Reader
from schedules.policy import Policy
from schedules.verbs import NOUN

CREATED, CHANGED, UNCHANGED, ARCHIVED = "created", "changed", "unchanged", "archived"
_VERBS = {CREATED: "create", CHANGED: "update", ARCHIVED: "delete"}

# What was done, the schedule's id and name, and what of it was changed.
Deed = tuple[str, str, str, list[str]]


def apply(
    document: Mapping[str, Any], file: str, check: Check, *, adopt: bool = False
) -> dict[str, Any]:
    """Make the schedules of a file what it says.

    Those that are there keep their ids, slots and history. Whether one that is there is enabled
    stays as it is, unless the file says it. Those that were applied from the file before, and
    are gone from it, are archived; their runs go on.

    Args:
        document: What the file holds: ``schedules``, and perhaps the name ``set``.
        file: The path of the file; it names the set if the file does not.
        check: Refuses a deployment that is not there, and parameters that it cannot have.
        adopt: Whether schedules that were made by hand, or come from another file, are taken over
            where the file has their names.

    Returns:
        The set, and the names of the schedules that were created, changed, unchanged, archived.

    Raises:
        FileInvalidError: With everything that is wrong.
        ConflictError: With the code ``ScheduleNotOfFile`` if nothing is wrong but that a name is
            that of a schedule which the file has not made.
    """
    if not isinstance(document, Mapping):
        raise BadInputError(
            "The document is no mapping.", "Give {'schedules': [...]}.", code="FileInvalid"
        )
    if not isinstance(file, str):
        raise BadInputError("The file's path is no text.", "Give it as a text.")
    reader = Reader(check)
    source, entries = reader.read(document, file)
    with catalogue.session() as open_session:
        kept = {row.name: (row.source, row.trigger) for row in rows.present(open_session)}
    for entry in entries:
        if entry.name not in kept or not _same(entry, kept[entry.name][1]):
            with reader.at(entry.place):
                entry.trigger.check_fires()
    owners = {name: owner for name, (owner, _) in kept.items()}
    if reader.faults:
        foreign = [] if adopt else list(_foreign(entries, owners, source))
        raise FileInvalidError(file, [*reader.faults, *foreign])
    _check_owners(entries, owners, source, file=file, adopt=adopt)
    deeds = _written(entries, source, file=file, adopt=adopt)
    for deed, key, name, fields in deeds:
        if deed in _VERBS:
            more = {"changed": fields} if deed == CHANGED else {}
            history.record(NOUN, key, _VERBS[deed], name=name, applied=source, **more)
    names: dict[str, list[str]] = {CREATED: [], CHANGED: [], UNCHANGED: [], ARCHIVED: []}
    for deed, _, name, _ in deeds:
        names[deed].append(name)
    return {"set": source, **names}


def _check_owners(
    entries: list[Entry], owners: Mapping[str, str], source: str, *, file: str, adopt: bool
) -> None:
    faults = [] if adopt else list(_foreign(entries, owners, source))
    if faults:
        told = "\n".join(map(str, faults))
        raise ConflictError(
            f"{file} has names of schedules that it has not made:\n{told}",
            "Nothing was applied. Choose other names, or take the schedules over: --adopt.",
            code="ScheduleNotOfFile",
        )


def _foreign(entries: list[Entry], owners: Mapping[str, str], source: str) -> Iterator[Fault]:
    for entry in entries:
        owner = owners.get(entry.name, source)
        if owner != source:
            whose = f"was applied from {owner!r}" if owner else "was made by hand"
            told = ConflictError(f"The schedule {entry.name!r} {whose}.", code="ScheduleNotOfFile")
            yield Fault(f"{entry.place}.name", told)


def _written(entries: list[Entry], source: str, *, file: str, adopt: bool) -> list[Deed]:
    """Write a file's schedules, all at once; what was done."""
    names = [entry.name for entry in entries]
    deeds: list[Deed] = []
    try:
        with catalogue.session() as open_session, open_session.begin():
            found = {row.name: row for row in rows.concerned(open_session, names, source)}
            owners = {name: row.source for name, row in found.items()}
            _check_owners(entries, owners, source, file=file, adopt=adopt)
            deeds += [
                _put(open_session, entry, found.pop(entry.name, None), source) for entry in entries
            ]
            for row in found.values():
                schedule_removal.archive(open_session, row)
                deeds.append((ARCHIVED, row.id, row.name, []))
    except IntegrityError:
        raise ConflictError(
            "Somebody has just made a schedule of the same name.", "Look at it, and try again.",
            code="NameTaken",
        ) from None  # fmt: skip
    return deeds


def _put(open_session: Session, entry: Entry, row: ScheduleModel | None, source: str) -> Deed:
    fields: list[str] = []
    if row is None:
        row = editing.new_row(entry.written, entry.written.parameters, source=source)
        open_session.add(row)
        open_session.flush()
        deed = CREATED
    else:
        fields = _changed(open_session, entry, row, source)
        deed = CHANGED if fields else UNCHANGED
    if deed != UNCHANGED:
        rows.notify_changed(open_session.connection(), row.id)
    return deed, row.id, row.name, fields


def _changed(open_session: Session, entry: Entry, row: ScheduleModel, source: str) -> list[str]:
    """Make a schedule what the file says; the names of what was anything else."""
    written, was = entry.written, editing.told_of(row)
    fields = {
        "description": written.description,
        "parameters": written.parameters,
        "policy": Policy(**written.policy).model_dump(mode="json"),
        "source": source,
    }
    for name, value in fields.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    if row.deployment != written.deployment:
        editing.move(row, written.deployment)
    if not _same(entry, row.trigger):
        new = editing.read_trigger(written.trigger, row.trigger)
        editing.retrigger(open_session.connection(), row, new)
    if entry.enabled is not None and entry.enabled != row.enabled:
        if entry.enabled:
            editing.enable(row)
        else:
            row.enabled = False
    changed = editing.differing(was, editing.told_of(row))
    if changed:
        editing.mend(row)
        editing.touch(row)
    return changed


def _same(entry: Entry, kept: Mapping[str, Any]) -> bool:
    return entry.written.trigger == editing.fields_of(kept)
