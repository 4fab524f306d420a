"""Notifications: add, list, remove, and keep their messages up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, cast
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import AutomationSort
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterName, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.exceptions import ObjectNotFound

from infra.errors import BadInputError, NotFoundError
from infra.prefect_client import prefect_client
from infra.suggestions import suggest_names
from registry import catalogue, flow_kinds, history
from registry.notifications import notification_triggers
from registry.notifications.notification_outcomes import last_outcome
from registry.notifications.notification_targets import BLOCK_TYPES, KINDS, NotificationTarget
from registry.notifications.notification_triggers import NotificationFilter
from registry.notifications.notification_views import NotificationView
from registry.schedules import schedules
from registry.views import JsonObject

_NOUN = "notification"
_TAG = "modelyard-notification"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")  # Prefect's own rule for the names of blocks
_PAGE = 200
_DESCRIPTION = "Made by modelyard notify. Change it with modelyard notify add, which replaces it."


def add(name: str, target: NotificationTarget, wanted: NotificationFilter) -> NotificationView:
    """Add a notification, or replace the one of this name. A second call changes nothing.

    Raises:
        BadInputError: With the code ``NotificationNameInvalid``, or ``NotificationEmpty`` if
            it would report nothing.
        NotFoundError: If a flow or a schedule does not exist.
    """
    if not _NAME.fullmatch(name):
        raise BadInputError(
            f"{name[:60]!r} cannot be the name of a notification.",
            "Give lower-case letters, digits and '-', 60 at most.",
            code="NotificationNameInvalid",
        )
    if not wanted.on:
        raise BadInputError(
            "The notification would report nothing.",
            f"Give --on with one of: {', '.join(notification_triggers.EVENTS)}.",
            code="NotificationEmpty",
        )
    with lock(name), prefect_client() as client:
        _check_filter(client, wanted)
        present = _read(client, name)
        block = cast("UUID", target.block().save(_block_name(name), overwrite=True))
        automation = AutomationCore(
            name=name,
            description=_DESCRIPTION,
            enabled=all(one.enabled for one in present),
            tags=[_TAG, target.kind],
            trigger=notification_triggers.build(name, wanted),
            actions=[target.action(block)],
        )
        if present:
            client.update_automation(present[0].id, automation)
        else:
            client.create_automation(automation)
        _delete_blocks(client, name, keep=block)
        [view] = [_view(client, one) for one in _read(client, name)]
    detail = view.model_dump(include={"on", "kind", "target", "flows", "schedules", "tags"})
    history.record(_NOUN, name, "add", **detail)
    return view


def list_all() -> list[NotificationView]:
    """List every notification, by name."""
    with prefect_client() as client:
        return [_view(client, automation) for automation in _read(client)]


def show(name: str) -> tuple[NotificationView, NotificationTarget | None]:
    """Return a notification, and its target with secrets; None if its block is gone.

    Raises:
        NotFoundError: With the code ``NotificationUnknown``.
    """
    with prefect_client() as client:
        found = _read(client, name)
        if not found:
            raise _unknown(client, name)
        return _view(client, found[0]), _target(client, found[0])


def find(name: str) -> str:
    """Return the name of a notification, also of one that was not added or removed whole.

    Raises:
        NotFoundError: With the code ``NotificationUnknown``.
    """
    with prefect_client() as client:
        if not _read(client, name) and not _blocks(client, name):
            raise _unknown(client, name)
    return name


def remove(name: str) -> JsonObject:
    """Remove a notification with its block; called by :mod:`registry.deletion`."""
    with prefect_client() as client:
        for automation in _read(client, name):
            client.delete_automation(automation.id)
        _delete_blocks(client, name)
    return {"name": name}


def refresh() -> None:
    """Write the messages of this version into the notifications of earlier ones."""
    with prefect_client() as client:
        for automation in _read(client):
            target, block = KINDS.get(_kind(automation)), _block(automation)
            if target is None or block is None:
                continue
            action = target.action(block)
            if _text(action) != _text(automation.actions[0]):
                _update(client, automation, actions=[action])


def rename_schedule(old: str, new: str) -> list[str]:
    """Follow the new name of a schedule; return the names of the notifications changed."""
    return _rename("schedules", old, new)


def rename_tag(old: str, new: str) -> list[str]:
    """Follow the new name of a tag of runs; return the names of the notifications changed."""
    return _rename("tags", old, new)


def _rename(field: Literal["schedules", "tags"], old: str, new: str) -> list[str]:
    changed = []
    with prefect_client() as client:
        for automation in _read(client):
            wanted = _filter(automation)
            present = getattr(wanted, field)
            if old not in present:
                continue
            renamed: JsonObject = {field: tuple(new if one == old else one for one in present)}
            trigger = notification_triggers.build(
                automation.name, dataclasses.replace(wanted, **renamed)
            )
            _update(client, automation, trigger=trigger)
            changed.append(automation.name)
    return changed


def lock(name: str) -> AbstractContextManager[None]:
    """Hold the lock of a notification, so that it is added or removed by one command at once."""
    return catalogue.advisory_lock(f"notification:{name}")


def _check_filter(client: SyncPrefectClient, wanted: NotificationFilter) -> None:
    """Refuse flows and schedules that do not exist: their runs would never be reported."""
    own = {kind.name for kind in flow_kinds.ALL}
    for flow in wanted.flows:
        named = FlowFilter(name=FlowFilterName(any_=[flow]))
        if flow not in own and not client.read_flows(flow_filter=named):
            raise NotFoundError(
                f"There is no flow {flow!r}.",
                suggest_names(own, flow, ""),
                code="FlowUnknown",
            )
    for schedule in wanted.schedules:
        with catalogue.session() as open_session:
            schedules.find(open_session, schedule)


def _read(client: SyncPrefectClient, name: str = "") -> list[Automation]:
    """Read the automations of notifications, or of the one of this name."""
    wanted = AutomationFilter(
        tags=AutomationFilterTags(all_=[_TAG]),
        name=AutomationFilterName(any_=[name]) if name else None,
    )
    found: list[Automation] = []
    while True:
        page = client.read_automations(
            automations=wanted, sort=AutomationSort.NAME_ASC, limit=_PAGE, offset=len(found)
        )
        found += page
        if len(page) < _PAGE:
            return found


def _update(
    client: SyncPrefectClient,
    automation: Automation,
    *,
    trigger: EventTrigger | None = None,
    actions: Sequence[ActionTypes] = (),
) -> None:
    core = AutomationCore(
        name=automation.name,
        description=automation.description,
        enabled=automation.enabled,
        tags=automation.tags,
        trigger=trigger or automation.trigger,
        actions=list(actions) or automation.actions,
    )
    client.update_automation(automation.id, core)


def _view(client: SyncPrefectClient, automation: Automation) -> NotificationView:
    wanted, target = _filter(automation), _target(client, automation)
    return NotificationView(
        name=automation.name,
        on=list(map(str, wanted.on)),
        kind=_kind(automation),
        target=target.describe() if target else "Its block is gone: add it again.",
        flows=list(wanted.flows),
        schedules=list(wanted.schedules),
        tags=list(wanted.tags),
        enabled=automation.enabled,
        automation_id=str(automation.id),
        last=last_outcome(client, str(automation.id), target) if target else "",
    )


def _filter(automation: Automation) -> NotificationFilter:
    """Read what a notification reports; nothing known if its trigger was replaced by another."""
    trigger = automation.trigger
    if not isinstance(trigger, EventTrigger):
        return NotificationFilter(())
    return notification_triggers.read(trigger)


def _kind(automation: Automation) -> str:
    return next((tag for tag in automation.tags if tag in KINDS), "")


def _block(automation: Automation) -> UUID | None:
    for action in automation.actions:
        if isinstance(action, CallWebhook | SendNotification):
            return action.block_document_id
    return None


def _target(client: SyncPrefectClient, automation: Automation) -> NotificationTarget | None:
    kind, block = KINDS.get(_kind(automation)), _block(automation)
    if kind is None or block is None:
        return None
    try:
        found = client.read_block_document(block, include_secrets=True)
    except ObjectNotFound:
        return None
    return kind.from_block(found.data)


def _text(action: ActionTypes) -> JsonObject:
    return action.model_dump(include={"type", "payload", "subject", "body"})


def _block_name(name: str) -> str:
    return f"modelyard-notification-{name}"


def _blocks(client: SyncPrefectClient, name: str) -> list[UUID]:
    """Find the blocks of a notification; several if its target was replaced in part only."""
    found = []
    for block_type in BLOCK_TYPES:
        with contextlib.suppress(ObjectNotFound):
            block = client.read_block_document_by_name(_block_name(name), block_type)
            found.append(block.id)
    return found


def _delete_blocks(client: SyncPrefectClient, name: str, keep: UUID | None = None) -> None:
    """Delete the blocks of a notification but one."""
    for block in _blocks(client, name):
        if block != keep:
            client.delete_block_document(block)


def _unknown(client: SyncPrefectClient, name: str) -> NotFoundError:
    known = [automation.name for automation in _read(client)]
    return NotFoundError(
        f"There is no notification {name!r}.",
        suggest_names(known, name, "There is none yet: modelyard notify add."),
        code="NotificationUnknown",
    )
