"""Aliases of models, and the history of what they pointed to.

MLflow owns where an alias points; the history has every move that went through here. A move that
was made elsewhere, as in MLflow's own pages, is noticed afterwards: when it is looked at, and, at
the latest, it is written down with the next move.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import Any

from infra.errors import BadInputError, ConflictError, NotFoundError
from infra.mlflow import RegisteredModel
from registry import catalogue, history
from registry.models import evaluation_tags, model_references, model_versions
from registry.tracking import client

NOUN = "model"
_LONGEST = 255
_LONGEST_REASON = 4000
_CLOCKS_DIFFER = timedelta(minutes=1)  # those of MLflow's server and of who writes the history
_ALIAS = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)

# Deeds in the history: a move, a move by somebody else that was noticed, a change of name.
_MOVED, _FOUND, _RENAMED, _DELETED = "alias", "alias found", "rename", "delete"
_REFUSED = "alias refused"  # a version that did not pass a gate


def check(alias: str) -> None:
    """Refuse an alias that MLflow does not take.

    Raises:
        BadInputError: With the code ``AliasInvalid``.
    """
    if not _ALIAS.fullmatch(alias) or len(alias) > _LONGEST or _RESERVED.fullmatch(alias):
        raise BadInputError(
            f"The alias {alias[:60]!r} cannot be used.",
            f"Give 1 to {_LONGEST} letters, digits, '_' and '-'; not 'latest', and not 'v' and a "
            "number.",
            code="AliasInvalid",
        )


def point(name: str, alias: str, number: int, why: str = "") -> dict[str, Any]:
    """Point ``alias`` at a version, from wherever it pointed; ``{"alias", "from", "to"}``.

    Raises:
        NotFoundError: If there is no such version.
        ConflictError: With the code ``ModelNotActive``.
    """
    check(alias)
    _check_reason(why)
    with catalogue.advisory_lock(model_versions.lock(name)):
        return _point(name, alias, number, _settled(name, alias), why)


def point_from(
    before: int | None, name: str, alias: str, number: int, why: str, gate: Mapping[str, Any]
) -> dict[str, Any]:
    """Point ``alias`` at a version that has passed a gate; ``{"alias", "from", "to"}``.

    Args:
        before: Where it pointed when the gate was judged.
        name: The model.
        alias: The alias.
        number: The version.
        why: A reason.
        gate: The rules, the numbers and the verdict, which the history keeps.

    Raises:
        NotFoundError: If there is no such version.
        ConflictError: ``ModelNotActive``; ``AliasMoved``, if it points elsewhere meanwhile.
    """
    with catalogue.advisory_lock(model_versions.lock(name)):
        now = _settled(name, alias)
        if now != before:
            raise ConflictError(
                f"The alias {alias!r} of {name!r} was moved to {now} while its gate was judged.",
                "Repeat the command: the gate compares with the version that it points to now.",
                code="AliasMoved",
            )
        return _point(name, alias, number, before, why, gate=dict(gate))


def _point(
    name: str, alias: str, number: int, before: int | None, why: str, **more: Any
) -> dict[str, Any]:
    model_versions.check_active(model_versions.find(name, number))
    if before != number:
        client().set_registered_model_alias(name, alias, str(number))
        _record(_MOVED, name, alias, before, number, why, **more)
    return {"alias": alias, "from": before, "to": number}


def target(name: str, alias: str, why: str = "") -> int | None:
    """Where ``alias`` points; None if nowhere.

    Raises:
        BadInputError: If it cannot be an alias, or ``why`` no reason of a move.
        NotFoundError: If there is no such model.
    """
    check(alias)
    _check_reason(why)
    return actual(model_versions.find_model(name).aliases).get(alias)


def record_refusal(
    before: int | None, name: str, alias: str, number: int, why: str, gate: Mapping[str, Any]
) -> None:
    """Write down that a version did not pass a gate; arguments as of :func:`point_from`."""
    _record(_REFUSED, name, alias, before, before, why, refused=number, gate=dict(gate))


def drop(name: str, alias: str, why: str = "") -> dict[str, Any]:
    """Remove ``alias``; ``{"alias", "from", "to"}``.

    Raises:
        NotFoundError: If the model has no such alias.
        ConflictError: With the code ``HasSchedule``, if the runs of an enabled schedule use it.
    """
    _check_reason(why)
    with catalogue.advisory_lock(model_versions.lock(name)):
        before = _settled(name, alias)
        if before is None:
            raise NotFoundError(
                f"The model {name!r} has no alias {alias!r}.",
                f"modelyard model show {name} lists the existing ones.",
            )
        _check_unused(f"{name}@{alias}")
        client().delete_registered_model_alias(name, alias)
        _record(_MOVED, name, alias, before, None, why)
    return {"alias": alias, "from": before, "to": None}


def _check_unused(reference: str) -> None:
    for schedule, _ in model_references.scheduled(model_references.spellings(reference)):
        raise ConflictError(
            f"The schedule {schedule} predicts with {reference}.",
            f"Stop it first: modelyard schedule stop {quote(schedule)}; or give its runs "
            "another model: modelyard schedule update.",
            code="HasSchedule",
        )


def _check_reason(why: str) -> None:
    if "\0" in why or len(why) > _LONGEST_REASON:
        raise BadInputError(
            f"The reason holds a zero byte or more than {_LONGEST_REASON} characters.",
            "Shorten it.",
            code="TextInvalid",
        )


def actual(aliases: Mapping[str, Any]) -> dict[str, int]:
    """MLflow's aliases of a model, with versions as numbers."""
    return {alias: int(number) for alias, number in aliases.items()}


def _settled(name: str, alias: str) -> int | None:
    """Where ``alias`` points; the history agrees afterwards."""
    model = model_versions.find_model(name)
    settle_rename(model)
    now = actual(model.aliases).get(alias)
    known = _replayed(name).get(alias)
    if known != now:
        _record(_FOUND, name, alias, known, now, "moved outside Modelyard")
    return now


def _record(
    verb: str,
    name: str,
    alias: str,
    before: int | None,
    after: int | None,
    why: str,
    **more: Any,
) -> None:
    detail = {"alias": alias, "from": before, "to": after, "why": why, **more}
    history.record(NOUN, name, verb, **detail)


def announce_rename(name: str) -> None:
    """Put down with the model that it gets another name: :func:`settle_rename` follows."""
    value = f"{uuid.uuid4().hex} {name}"
    client().set_registered_model_tag(name, model_versions.RENAMING_TAG, value)


def settle_rename(model: RegisteredModel) -> None:
    """Write down, once, the other name that a model has got: its history goes on there.

    Its evaluations then name it so.

    MLflow keeps what was announced with the model, whatever its name, so that whoever comes
    next ends what was interrupted.
    """
    token, _, old = model.tags.get(model_versions.RENAMING_TAG, "").partition(" ")
    if not token:
        return
    renamed = ((model.name, {"was": old}), (old, {"to": model.name}))
    for subject, detail in renamed if old != model.name else ():
        known = (deed["detail"].get("token") for deed in history.of(NOUN, subject))
        if token not in known:
            history.record(NOUN, subject, _RENAMED, **detail, token=token)
    if old != model.name:
        evaluation_tags.follow_rename(model, old)
    client().delete_registered_model_tag(model.name, model_versions.RENAMING_TAG)


def settle(name: str) -> None:
    """End a change of a model's name that was interrupted.

    Raises:
        NotFoundError: If there is no such model.
    """
    if model_versions.RENAMING_TAG in model_versions.find_model(name).tags:
        with catalogue.advisory_lock(model_versions.lock(name)):
            settle_rename(model_versions.find_model(name))


def current_name(name: str, since: datetime) -> str:
    """Return the present name of the model that was called ``name`` at the time ``since``."""
    for deed in history.of(NOUN, name):
        if _at(deed) >= since and _ends(deed):
            new = deed["detail"].get("to")
            return current_name(new, _at(deed)) if new else name
    return name


def _at(deed: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(deed["at"])


def _story(name: str, until: datetime | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Deeds to ``name``, and to its former names while they were its, in order, each once."""
    read: dict[str, list[dict[str, Any]]] = {}
    unread = {name}
    while unread:
        subject = unread.pop()
        read[subject] = history.of(NOUN, subject)
        unread |= {was for deed in read[subject] if (was := _former(deed)) and was not in read}
    deeds = sorted(
        ((subject, deed) for subject, found in read.items() for deed in found),
        key=lambda entry: _at(entry[1]),
        reverse=True,
    )
    story, mine = [], {name}
    for subject, deed in deeds:
        if subject in mine and (until is None or _at(deed) <= until):
            story.append((subject, deed))
            mine.add(_former(deed) or subject)
    return story[::-1]


def history_of(model: RegisteredModel) -> list[dict[str, Any]]:
    """What was done to a model, oldest first, also under its former names.

    Deeds to other models of those names, before or after, are not among them.
    """
    since = datetime.fromtimestamp((model.creation_timestamp or 0) / 1000, UTC) - _CLOCKS_DIFFER
    found, name = [], model.name
    for subject, deed in reversed(_story(model.name)):
        if subject != name:
            continue
        if _ends(deed) or _at(deed) < since:
            break
        shown = {key: value for key, value in deed["detail"].items() if key != "token"}
        found.append({**deed, "detail": shown})
        name = _former(deed) or name
    return found[::-1]


def _ends(deed: Mapping[str, Any]) -> bool:
    """Whether no model had the name after the deed."""
    detail = deed["detail"]
    if deed["verb"] == _RENAMED:
        return "to" in detail
    return deed["verb"] == _DELETED and bool(
        detail.get("version") is None or detail.get("model_deleted")
    )


def _former(deed: Mapping[str, Any]) -> str | None:
    return deed["detail"].get("was") if deed["verb"] == _RENAMED else None


def _replayed(name: str, until: datetime | None = None) -> dict[str, int]:
    """Where each alias of ``name`` pointed at the time ``until``, as far as is known."""
    pointing: dict[str, dict[str, int]] = {}
    for subject, deed in _story(name, until):
        detail, mine = deed["detail"], pointing.setdefault(subject, {})
        if deed["verb"] in {_MOVED, _FOUND}:
            mine.pop(detail["alias"], None)
            if detail["to"] is not None:
                mine[detail["alias"]] = detail["to"]
        elif deed["verb"] == _RENAMED:
            pointing[subject] = pointing.pop(_former(deed) or "", {})
        elif deed["verb"] == _DELETED and detail.get("version") is None:
            mine.clear()
    return pointing.get(name, {})


def moves(name: str, alias: str | None = None) -> list[dict[str, Any]]:
    """Every known move of a model's aliases, or of one, oldest first.

    Each is ``{"at", "user", "alias", "from", "to", "why"}``; the user is None where somebody moved
    it outside Modelyard, and ``at`` is then when that was noticed. One that a gate has decided has
    the ``gate``; where a version did not pass, it is ``refused``, and the alias stayed.
    """
    return [
        {
            "at": deed["at"],
            "user": deed["user"] if deed["verb"] != _FOUND else None,
            **deed["detail"],
        }
        for _, deed in _story(name)
        if deed["verb"] in {_MOVED, _FOUND, _REFUSED} and alias in {None, deed["detail"]["alias"]}
    ]


def at(name: str, alias: str, when: datetime) -> dict[str, Any]:
    """Which version ``alias`` pointed to at the time ``when``.

    Returns:
        ``{"alias", "at", "version", "certain"}``. The version is None where it pointed nowhere. It
        is not certain where the next thing known is a move that was made outside Modelyard.
    """
    later = [move for move in moves(name, alias) if _at(move) > when and "refused" not in move]
    if later:
        certain = later[0]["user"] is not None
    else:
        certain = all(change["alias"] != alias for change in changed_outside(name))
    return {
        "alias": alias,
        "at": when.isoformat(),
        "version": _replayed(name, when).get(alias),
        "certain": certain,
    }


def changed_outside(name: str, aliases: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Where MLflow and the history differ: ``{"alias", "known", "actual"}`` of each alias.

    Args:
        name: The model's name. One that is gone has no aliases.
        aliases: MLflow's aliases of it, if they are known already.
    """
    if aliases is None:
        try:
            aliases = model_versions.find_model(name).aliases
        except NotFoundError:
            aliases = {}
    now, known = actual(aliases), _replayed(name)
    return [
        {"alias": alias, "known": known.get(alias), "actual": now.get(alias)}
        for alias in sorted({*now, *known})
        if now.get(alias) != known.get(alias)
    ]
