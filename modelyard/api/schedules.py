"""Schedules, as ``modelyard schedule``."""

from __future__ import annotations

from flows import scheduling
from modelyard.api.verbs import noun, verb
from schedules import metrics, verbs, views


@noun("schedules")
class ScheduleVerbs:
    """Schedules."""

    create = staticmethod(scheduling.create)
    list = staticmethod(verb(views.list_all))
    show = staticmethod(verb(scheduling.show))
    slots = staticmethod(verb(scheduling.slots_of))
    metrics = staticmethod(verb(metrics.text))
    update = staticmethod(scheduling.update)
    start = staticmethod(verb(verbs.start))
    stop = staticmethod(verb(verbs.stop))
    copy = staticmethod(scheduling.copy)
    trigger = staticmethod(verb(verbs.trigger_now))
    backfill = staticmethod(verb(verbs.backfill))
    delete = staticmethod(verb(verbs.delete))
    preview = staticmethod(views.preview)
