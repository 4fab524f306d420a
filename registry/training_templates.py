"""Training templates: named parameters of ``train``, as rows of the catalogue.

What may be in a template, and how a run takes it, is ``tasks/training/training_templates.py``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from sqlalchemy import JSON, DateTime, Text, Uuid, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from infra import identity
from infra.errors import ConflictError, NotFoundError
from infra.suggestions import suggest_names
from registry import history
from registry.blockers import Blocker
from registry.catalogue import Base, session
from registry.schedules import schedules
from registry.views import Instant, JsonObject, View

_NOUN = "template"


class TrainingTemplateModel(Base):
    """One template."""

    __tablename__ = "training_templates"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    changed_by: Mapped[str] = mapped_column(Text)


class TrainingTemplateView(View):
    """A template, as lists show it."""

    name: str
    description: str
    created: Instant
    created_by: str
    changed: Instant
    changed_by: str


class TrainingTemplateDetailView(TrainingTemplateView):
    """A template with its parameters.

    Attributes:
        hyperparameters: Names of its hyperparameters, sorted.
        parameters: Its parameters.
        history: What users did to it.
    """

    hyperparameters: list[str]
    parameters: JsonObject
    history: list[JsonObject]


def _find(open_session: Session, name: str, *, lock: bool = False) -> TrainingTemplateModel:
    wanted = select(TrainingTemplateModel).where(TrainingTemplateModel.name == name)
    row = open_session.scalar(wanted.with_for_update() if lock else wanted)
    if row is None:
        known = open_session.scalars(select(TrainingTemplateModel.name)).all()
        raise NotFoundError(
            f"There is no template {name!r}.",
            suggest_names(known, name, "There is none yet: modelyard template create."),
            code="TemplateUnknown",
        )
    return row


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"There is a template {name!r} already.",
        f"Choose another name, or change that one: modelyard template update {quote(name)}.",
        code="NameTaken",
    )


def _view(row: TrainingTemplateModel) -> TrainingTemplateView:
    return TrainingTemplateView(
        name=row.name,
        description=row.description,
        created=row.created_at,
        created_by=row.created_by,
        changed=row.changed_at,
        changed_by=row.changed_by,
    )


def create(name: str, description: str, parameters: JsonObject) -> TrainingTemplateDetailView:
    """Store ``parameters``, which are checked already, as the template ``name``.

    Raises:
        ConflictError: With the code ``NameTaken``.
    """
    now, user = datetime.now(UTC), identity.caller()
    row = TrainingTemplateModel(
        id=uuid.uuid4(),
        name=name,
        description=description,
        parameters=parameters,
        created_at=now,
        created_by=user,
        changed_at=now,
        changed_by=user,
    )
    key = str(row.id)
    try:
        with session() as open_session, open_session.begin():
            open_session.add(row)
    except IntegrityError:
        raise _taken(name) from None
    history.record(_NOUN, key, "create", name=name)
    return show(name)


def list_all() -> list[TrainingTemplateView]:
    """List every template, by name."""
    wanted = select(TrainingTemplateModel).order_by(TrainingTemplateModel.name)
    with session() as open_session:
        return [_view(row) for row in open_session.scalars(wanted)]


def show(name: str) -> TrainingTemplateDetailView:
    """Return a template with its parameters.

    Raises:
        NotFoundError: With the code ``TemplateUnknown``.
    """
    with session() as open_session:
        row = _find(open_session, name)
        found = _view(row)
        parameters, key = row.parameters, str(row.id)
    return TrainingTemplateDetailView(
        **dict(found),
        hyperparameters=sorted(parameters.get("hyperparameters", {})),
        parameters=parameters,
        history=history.of(_NOUN, key),
    )


def parameters(name: str) -> JsonObject:
    """Return the parameters of a template.

    Raises:
        NotFoundError: With the code ``TemplateUnknown``.
    """
    with session() as open_session:
        return _find(open_session, name).parameters


def change(
    name: str,
    new_name: str | None,
    description: str | None,
    revise: Callable[[JsonObject], JsonObject],
) -> TrainingTemplateDetailView:
    """Change a template under a lock; schedules that name it are changed as well.

    Args:
        name: The template.
        new_name: Another name, or None.
        description: Another description, or None.
        revise: Returns the new parameters for the present ones. If it raises, nothing is changed.

    Raises:
        NotFoundError: With the code ``TemplateUnknown``.
        ConflictError: If the new name is taken, with the code ``NameTaken``.
    """
    try:
        with session() as open_session, open_session.begin():
            row = _find(open_session, name, lock=True)
            row.parameters = revise(row.parameters)
            row.name = name if new_name is None else new_name
            row.description = row.description if description is None else description
            row.changed_at, row.changed_by = datetime.now(UTC), identity.caller()
            key = str(row.id)
    except IntegrityError:
        raise _taken(str(new_name)) from None
    followed = [] if new_name is None else schedules.rename("template", name, new_name)
    found = show(name if new_name is None else new_name)
    history.record(
        _NOUN, key, "update", name=new_name, description=description,
        parameters=found.parameters, schedules=followed,
    )  # fmt: skip
    return show(found.name)


def rename(parameter: str, old: str, new: str) -> list[str]:
    """Replace a value of a parameter in all templates; return the names of those that had it.

    Args:
        parameter: The parameter, such as ``experiment`` or ``model.name``.
        old: The value to replace.
        new: The new value.
    """
    changed: dict[str, str] = {}
    with session() as open_session, open_session.begin():
        for row in open_session.scalars(select(TrainingTemplateModel).with_for_update()):
            parameters = schedules.replaced(row.parameters, parameter, schedules.equal(old, new))
            if parameters is not None:
                row.parameters = parameters
                changed[row.name] = str(row.id)
    for key in changed.values():
        history.record(_NOUN, key, "follow", parameter=parameter, was=old, to=new)
    return sorted(changed)


def find(name: str) -> str:
    """Return the id of the template ``name``.

    Raises:
        NotFoundError: With the code ``TemplateUnknown``.
    """
    with session() as open_session:
        return str(_find(open_session, name).id)


def schedule_blockers(template_id: str) -> list[Blocker]:
    """Return why the template may not be deleted: schedules whose runs take it."""
    with session() as open_session:
        row = open_session.get(TrainingTemplateModel, uuid.UUID(template_id))
        name = row.name if row else ""
    return schedules.references("template", name)


def remove(template_id: str) -> JsonObject:
    """Remove a template; called by :mod:`registry.deletion`."""
    wanted = TrainingTemplateModel.id == uuid.UUID(template_id)
    with session() as open_session, open_session.begin():
        gone = delete(TrainingTemplateModel).where(wanted).returning(TrainingTemplateModel.name)
        return {"id": template_id, "name": open_session.scalar(gone)}
