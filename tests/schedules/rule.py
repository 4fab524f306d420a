"""What docs/schedules.md says of each slot, one by one, as with a list and a pencil.

A book is told what happened to its schedule, and says what its rows must be. It shares nothing
with the package but the words, and the delay that jitter gives a slot, which only has to be always
the same.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from schedules.instants import instant_at
from schedules.policy import SchedulePolicy
from tests.schedules import naive
from tests.schedules.conftest import BEGINNING

DAY = 86_400
FIRST = int(BEGINNING) - 40 * DAY  # before it nothing is asked for
LAST = int(BEGINNING) + 366 * DAY
TICK = timedelta(minutes=15)  # every cron expression here is at such a minute

DEFAULTS: dict[str, Any] = {
    "catchup": "all", "catchup_window": None, "max_catchup_runs": None, "max_concurrency": 1,
    "overlap": "queue", "jitter": 0, "grace": 60, "pause_after_failures": None,
}  # fmt: skip

SCHEDULED, BACKFILL, MANUAL = "scheduled", "backfill", "manual"

Key = tuple[int, str]  # the slot and its kind


@dataclass(frozen=True)
class Line:
    """What the row of a slot must say.

    Attributes:
        fate: Its fate.
        reason: The reason.
        decided: When it was decided.
        after: When its run is created at the earliest.
        begun: When its run's creation has begun; None if it has not.
        limit: How many runs could go on when it began.
        run: Its run.
        word: What is known of that one's end.
        made: When its run was made.
    """

    fate: str
    reason: str
    decided: float
    after: float = 0.0
    begun: float | None = None
    limit: int = 0
    run: str | None = None
    word: str | None = None
    made: float = 0.0

    @property
    def active(self) -> bool:
        """Whether its run goes on as far as is known, or may exist."""
        begun = self.fate == "waiting" and self.begun is not None
        return begun or (self.fate == "created" and self.word is None)


@functools.cache
def _shown(cron: str, timezone: str) -> tuple[int, ...]:
    begin, end = instant_at(FIRST), instant_at(LAST)
    found = naive.slots([naive.Clockwork(cron)], timezone, begin, end, TICK)[0]
    return tuple(int(at.timestamp()) for at in found)


@functools.cache
def _counted(seconds: int, base: int) -> tuple[int, ...]:
    found, at = [], base + seconds
    while at < LAST:
        found.append(at)
        at += seconds
    return tuple(found)


def second(text: str) -> int:
    """The second of an instant as it is written here."""
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def times(trigger: Mapping[str, Any], since: int, after: int, until: int) -> list[int]:
    """The slots of a trigger after one second and not after another, be it its start or end."""
    base = second(trigger["start"]) if trigger.get("start") else since
    if "cron" in trigger:
        every = _shown(trigger["cron"], trigger.get("timezone", "UTC"))
    else:
        every = _counted(trigger["interval_seconds"], base)
    return list(every[bisect_right(every, after) : bisect_right(every, until)])


@dataclass
class Era:
    """While a schedule had one trigger.

    Attributes:
        trigger: The trigger's fields.
        since: What an interval without a start is counted from.
        begins: Slots are after this.
        ends: And not after this; None while it goes on.
    """

    trigger: dict[str, Any]
    since: int
    begins: int
    ends: int | None = None

    def slots(self, after: int, until: int) -> list[int]:
        """Its slots after one second and not after another."""
        first = max(after, self.begins)
        last = min(until, LAST if self.ends is None else self.ends)
        if self.trigger.get("end"):
            last = min(last, second(self.trigger["end"]))
        return times(self.trigger, self.since, first, last) if last > first else []


@dataclass
class Book:
    """What the rows of a schedule must be.

    Attributes:
        id: The schedule's id.
        policy: Every field of its policy.
        eras: Its triggers.
        decided: Until when its slots were decided.
        enabled: Whether its slots are run.
        fresh: Only failures of runs that were made from then on count.
        lines: Each slot's line.
        open: Those that can still change.
        switched: When it was stopped and started.
        began: Whose runs were asked for by the last look.
        cancels: The runs that it stopped.
        touched: What was written since that look began.
    """

    id: str
    policy: dict[str, Any]
    eras: list[Era]
    decided: int
    enabled: bool = True
    fresh: int = 0
    lines: dict[Key, Line] = field(default_factory=dict)
    open: set[Key] = field(default_factory=set)
    switched: list[tuple[float, bool]] = field(default_factory=list)
    began: list[Key] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    touched: set[Key] = field(default_factory=set)

    @classmethod
    def new(cls, key: str, trigger: dict[str, Any], policy: Mapping[str, Any], now: float) -> Book:
        """Of a schedule that is made now."""
        base = second(trigger["start"]) if trigger.get("start") else int(now)
        return cls(key, {**DEFAULTS, **policy}, [Era(trigger, int(now), base)], base)

    def copy(self) -> Book:
        """Another one that says the same."""
        eras = [replace(era) for era in self.eras]
        return replace(
            self,
            policy=dict(self.policy),
            eras=eras,
            lines=dict(self.lines),
            open=set(self.open),
            switched=list(self.switched),
            touched=set(self.touched),
        )

    def put(self, key: Key, line: Line) -> None:
        """Write a line."""
        self.lines[key] = line
        self.touched.add(key)
        if line.fate == "waiting" or line.active:
            self.open.add(key)
        else:
            self.open.discard(key)

    # What people do.

    def switch(self, now: float, *, on: bool) -> None:
        """Somebody starts or stops it, or it stops itself."""
        if on and not self.enabled:
            self.fresh = int(now)
        if on != self.enabled:
            self.switched.append((now, on))
        self.enabled = on

    def replace_trigger(self, now: float, given: Mapping[str, Any]) -> None:
        """Somebody gives it another trigger, by these fields; the same rhythm keeps its beat."""
        old = self.eras[-1]
        gone = {"cron": "interval_seconds", "interval_seconds": "cron"}
        fields = {k: v for k, v in old.trigger.items() if k not in {gone.get(g) for g in given}}
        fields = {k: v for k, v in {**fields, **given}.items() if v is not None}
        if fields == old.trigger:
            return
        self.decide(now, None if self.enabled else "TriggerChanged")
        stays = all(fields.get(k) == old.trigger.get(k) for k in gone)
        since = old.since if stays else int(now)
        old.ends = int(now)
        start = second(fields["start"]) if fields.get("start") else 0
        self.eras.append(Era(fields, since, max(int(now), start)))
        self.decided = int(now)

    def ask(self, now: float) -> None:
        """Somebody triggers a run: a slot of its own, in the first second that has none."""
        at = int(now)
        while (at, MANUAL) in self.lines:
            at += 1
        self.put((at, MANUAL), Line("waiting", "Queued", now))

    def backfill(self, now: float, after: int, until: int) -> int:
        """Somebody wants the slots of a past range that have no run; how many slots it has."""
        era = self.eras[-1]
        found = times(era.trigger, era.since, after, min(until, int(now)))
        for at in found:
            if not any(self._has(at, kind) for kind in (SCHEDULED, BACKFILL)):
                self.put((at, BACKFILL), Line("waiting", "Queued", now))
        return len(found)

    def _has(self, at: int, kind: str) -> bool:
        line = self.lines.get((at, kind))
        return line is not None and line.fate != "skipped"

    # What the scheduler does.

    def look(
        self,
        now: float,
        runs: Mapping[str, Any],
        told: Mapping[Any, str],
        *,
        asked: bool,
        dispatches: bool = True,
    ) -> Iterator[str]:
        """A scheduler looks at it; each thing that is written at once, by name.

        Args:
            now: The present.
            runs: What is true of each run.
            told: What came of asking for a slot's run.
            asked: Whether Prefect tells of runs.
            dispatches: Whether it was known which runs go on, so that others may begin.
        """
        self.began, self.cancels, self.touched = [], [], set()
        if self.enabled:
            self.decide(now)
        ready = bool(self.due(now))
        yield "decided"
        if ready:
            if asked:
                self.learn(now, runs)
            yield "learnt"
            if dispatches:
                self.began = self.dispatch(now)
            yield "dispatched"
            for key in self.began:
                self._made(key, now, told.get((self.id, *key), ""))
                yield "created"
        if asked:
            self.learn(now, runs)
        yield "swept"

    def due(self, now: float) -> list[Key]:
        """What waits and need not wait longer by itself, the oldest first."""
        open_ = sorted(self.open)
        return [k for k in open_ if self.lines[k].fate == "waiting" and self.lines[k].after <= now]

    def decide(self, now: float, reason: str | None = None) -> None:
        """Every slot until now gets its fate; all are skipped if there is a reason."""
        found = self.eras[-1].slots(self.decided, int(now))
        run = 0  # missed ones
        for at in reversed(found):
            why = self._why(at, int(now), newest=at == found[-1], run=run)
            late = int(now) - at > self.policy["grace"] + self.policy["jitter"]
            run += late and not why
            if reason or why:
                self.put((at, SCHEDULED), Line("skipped", reason or why, now))
            elif self._has(at, BACKFILL):
                self.put((at, SCHEDULED), Line("skipped", "Backfilled", now))
            else:
                after = at + self._delay(at)
                self.put((at, SCHEDULED), Line("waiting", "Queued", now, after))
        self.decided = max(self.decided, int(now))

    def _why(self, at: int, now: int, *, newest: bool, run: int) -> str:
        """Why a slot is not run; "" if it is."""
        policy, age = self.policy, now - at
        if age <= policy["grace"] + policy["jitter"]:
            return ""
        if policy["catchup"] == "none":
            return "CatchupOff"
        if policy["catchup_window"] is not None and age > policy["catchup_window"]:
            return "OutsideWindow"
        if policy["catchup"] == "latest":
            return "" if newest else "NotLatest"
        most = policy["max_catchup_runs"]
        return "TooMany" if most is not None and run >= most else ""

    def _delay(self, at: int) -> float:
        jitter = self.policy["jitter"]
        found = SchedulePolicy(jitter=jitter).delay(self.id, instant_at(at)).total_seconds()
        assert 0 <= found <= jitter
        return found

    def learn(self, now: float, runs: Mapping[str, Any]) -> None:
        """What became of its runs; too many failures in a row stop it."""
        over = []
        for key in self.open:
            line = self.lines[key]
            if line.run is not None and line.word is None and runs[line.run].ends <= now:
                over.append((key, replace(line, word=runs[line.run].word)))
        for key, line in over:
            self.put(key, line)
        most = self.policy["pause_after_failures"]
        if over and most is not None:
            known = sorted(
                (line.made, key[0], str(line.word))
                for key, line in self.lines.items()
                if line.word and line.made >= self.fresh
            )
            words = [word for _, _, word in known[-most:]]
            if len(words) == most and all(word.startswith("FAIL") for word in words):
                self.switch(now, on=False)

    def dispatch(self, now: float) -> list[Key]:
        """What becomes of what waits; whose runs are asked for, in this order."""
        limit, waits = self.policy["max_concurrency"], self.due(now)
        if self.policy["overlap"] == "cancel_running" and self.enabled:
            own = [k for k in waits if k[1] == SCHEDULED and self.lines[k].begun is None]
            for key in own[:-limit]:
                self.put(key, replace(self.lines[key], fate="skipped", reason="Overlap"))
                waits.remove(key)
        if not self.enabled and self.policy["catchup"] != "all" and waits:
            own = sorted(
                k for k, line in self.lines.items()
                if (k[1], line.fate, line.begun) == (SCHEDULED, "waiting", None)
            )  # fmt: skip
            for key in own[:-1]:
                self.put(key, replace(self.lines[key], fate="skipped", reason="NotLatest"))
            waits = [key for key in waits if key not in own[:-1]]
        begin = [key for key in waits if self.lines[key].begun is not None]
        room = limit - sum(self.lines[key].active for key in self.open)
        full: list[Key] = []
        for key in waits:
            line = self.lines[key]
            if line.begun is not None:
                continue
            if key[1] == SCHEDULED and not self.enabled:
                self.put(key, replace(line, reason="Disabled"))
            elif room > 0:
                room -= 1
                self.put(key, replace(line, begun=now, limit=limit))
                begin.append(key)
            else:
                full.append(key)
        self.cancels = self._crowd(full)
        return begin

    def _crowd(self, full: Collection[Key]) -> list[str]:
        """What becomes of slots for which there is no room; the runs that are stopped for them."""
        own = [key for key in full if key[1] == SCHEDULED]
        stops = self.policy["overlap"] == "cancel_running"
        gone: dict[Key, str] = {}
        if self.policy["overlap"] == "skip":
            gone = dict.fromkeys(own, "Overlap")
        elif self.policy["catchup"] != "all":
            gone = dict.fromkeys(own[:-1], "NotLatest")
        left = [key for key in full if key not in gone]
        runs = [str(self.lines[key].run) for key in sorted(self.open) if self.lines[key].run]
        for key, why in gone.items():
            self.put(key, replace(self.lines[key], fate="skipped", reason=why))
        for key in left:
            why = "CancelsRunning" if stops else "MaxConcurrency"
            self.put(key, replace(self.lines[key], reason=why))
        return runs[: len(left)] if stops else []

    def _made(self, key: Key, now: float, told: str) -> None:
        if told.startswith("Refused"):
            self.put(key, replace(self.lines[key], fate="skipped", reason=told, begun=None))
        elif told:
            line = self.lines[key]
            self.put(key, replace(line, fate="created", reason="", run=told, made=now))
