"""Declarative schedules: create, change and archive schedules to match a file.

A schedule belongs to the file that it was applied from. The whole file is validated before
anything is written, and written in one transaction, so a file is applied completely or not at all.
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
from registry.schedules.schedules import NOUN, ScheduleModel
from schedules import editing
from schedules.editing import Check
from schedules.files import FileFault, FileInvalidError, Reader, ScheduleEntry
from schedules.policy import SchedulePolicy

CREATED, CHANGED, UNCHANGED, ARCHIVED = "created", "changed", "unchanged", "archived"
_VERBS = {CREATED: "create", CHANGED: "update", ARCHIVED: "delete"}

# The action, the schedule's id and name, and its changed fields.
Action = tuple[str, str, str, list[str]]


def apply(
    document: Mapping[str, Any], file: str, check: Check, *, adopt: bool = False
) -> dict[str, Any]:
    """Create, change and archive schedules to match a file.

    Existing schedules keep their ids, slots and history, and stay enabled or stopped unless the
    file sets ``enabled``. Schedules that were applied from the file before and are not in it any
    more are archived; their active runs continue.

    Args:
        document: Content of the file: ``schedules``, and optionally the name of the ``set``.
        file: Path of the file, the default name of its set.
        check: Refuses an unknown deployment, and parameters that it does not accept.
        adopt: Whether to take over existing schedules of the same names that were created by hand
            or applied from another file.

    Returns:
        The set, and the names of the schedules that were created, changed, unchanged, archived.

    Raises:
        FileInvalidError: With every fault.
        ConflictError: With the code ``ScheduleNotOfFile`` if the only fault is that existing
            schedules of the same names belong elsewhere.
    """
    if not isinstance(document, Mapping):
        raise BadInputError(
            "The document is not a mapping.", "Give {'schedules': [...]}.", code="FileInvalid"
        )
    if not isinstance(file, str):
        raise BadInputError("The path of the file must be a string.", "Give a string.")
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
    actions = _write(entries, source, file=file, adopt=adopt)
    for action, key, name, fields in actions:
        if action in _VERBS:
            more = {"changed": fields} if action == CHANGED else {}
            history.record(NOUN, key, _VERBS[action], name=name, applied=source, **more)
    names: dict[str, list[str]] = {CREATED: [], CHANGED: [], UNCHANGED: [], ARCHIVED: []}
    for action, _, name, _ in actions:
        names[action].append(name)
    return {"set": source, **names}


def _check_owners(
    entries: list[ScheduleEntry], owners: Mapping[str, str], source: str, *, file: str, adopt: bool
) -> None:
    faults = [] if adopt else list(_foreign(entries, owners, source))
    if faults:
        listed = "\n".join(f"{one.place}: {one.error.message}" for one in faults)
        raise ConflictError(
            f"{file} has the names of schedules that were not applied from it:\n{listed}",
            "Nothing was applied. Choose other names, or take the schedules over: --adopt.",
            code="ScheduleNotOfFile",
        )


def _foreign(
    entries: list[ScheduleEntry], owners: Mapping[str, str], source: str
) -> Iterator[FileFault]:
    for entry in entries:
        owner = owners.get(entry.name, source)
        if owner != source:
            origin = f"was applied from {owner!r}" if owner else "was created by hand"
            error = ConflictError(
                f"The schedule {entry.name!r} {origin}.",
                "Choose another name, or take it over: --adopt.",
                code="ScheduleNotOfFile",
            )
            yield FileFault(f"{entry.place}.name", error)


def _write(entries: list[ScheduleEntry], source: str, *, file: str, adopt: bool) -> list[Action]:
    """Write a file's schedules, all at once; what was done."""
    names = [entry.name for entry in entries]
    actions: list[Action] = []
    try:
        with catalogue.session() as open_session, open_session.begin():
            found = {row.name: row for row in rows.concerned(open_session, names, source)}
            owners = {name: row.source for name, row in found.items()}
            _check_owners(entries, owners, source, file=file, adopt=adopt)
            actions += [
                _put(open_session, entry, found.pop(entry.name, None), source) for entry in entries
            ]
            for row in found.values():
                schedule_removal.archive(open_session, row)
                actions.append((ARCHIVED, row.id, row.name, []))
    except IntegrityError:
        raise ConflictError(
            "A schedule of the same name was created at the same time.",
            "Look at it (modelyard schedule list), and apply the file again.", code="NameTaken",
        ) from None  # fmt: skip
    return actions


def _put(
    open_session: Session, entry: ScheduleEntry, row: ScheduleModel | None, source: str
) -> Action:
    fields: list[str] = []
    if row is None:
        row = editing.new_row(entry.spec, entry.spec.parameters, source=source)
        open_session.add(row)
        open_session.flush()
        action = CREATED
    else:
        fields = _changed(open_session, entry, row, source)
        action = CHANGED if fields else UNCHANGED
    if action != UNCHANGED:
        rows.notify_changed(open_session.connection(), row.id)
    return action, row.id, row.name, fields


def _changed(
    open_session: Session, entry: ScheduleEntry, row: ScheduleModel, source: str
) -> list[str]:
    """Update a schedule to match the file; the names of the fields that differed."""
    spec, was = entry.spec, editing.user_fields(row)
    fields = {
        "description": spec.description,
        "parameters": spec.parameters,
        "policy": SchedulePolicy(**spec.policy).model_dump(mode="json"),
        "source": source,
    }
    for name, value in fields.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    if row.deployment != spec.deployment:
        editing.set_deployment(row, spec.deployment)
    if not _same(entry, row.trigger):
        new = editing.read_trigger(spec.trigger, row.trigger)
        editing.replace_trigger(open_session.connection(), row, new)
    if entry.enabled is not None and entry.enabled != row.enabled:
        if entry.enabled:
            editing.enable(row)
        else:
            row.enabled = False
    changed = editing.changed_fields(was, editing.user_fields(row))
    if changed:
        editing.clear_error(row)
        editing.mark_changed(row)
    return changed


def _same(entry: ScheduleEntry, kept: Mapping[str, Any]) -> bool:
    return entry.spec.trigger == editing.trigger_fields(kept)
