"""A year of schedules, with all that can happen: each slot has the fate that the rule says."""

from __future__ import annotations

import itertools
import os
import random
import types
import uuid
from collections import Counter
from typing import Any

import pytest

from infra.errors import BadInputError
from registry.leases import Lease
from registry.schedules import slots
from schedules import instants, scheduler, verbs
from tests.schedules import rule
from tests.schedules.conftest import BEGINNING
from tests.schedules.rule import DAY, Book
from tests.schedules.world import SteppedScheduler, World
from tests.schedules.year import Deed, Year, anything, expected, rows_of, written

_SEEDS = int(os.environ.get("MODELYARD_SEEDS", "1"))
_HOUR = 3600
_END = BEGINNING + 365 * DAY

# Triggers by how often they are due: for the whole year, for days, for hours.
# The clocks are changed on Sundays.
_YEAR: list[dict[str, Any]] = [
    {"cron": "0 30 2 * * 0,3", "timezone": "America/New_York"},
    {"cron": "0 0 */12 * * 0", "timezone": "Europe/Berlin"},
    {"cron": "0 15,45 1 * * 0", "timezone": "Australia/Lord_Howe"},
    {"cron": "0 0 9 * * 1,5", "timezone": "Asia/Kathmandu"},
    {"cron": "0 0 12 13 * 5"},
    {"cron": "0 30 0 * * 0", "timezone": "America/Santiago"},
    {"interval_seconds": 6 * DAY},
    {"interval_seconds": 70 * _HOUR},
    {"interval_seconds": 3 * DAY + 1},
]
_DAYS: list[dict[str, Any]] = [
    {"cron": "0 30 * * * *", "timezone": "Australia/Lord_Howe"},
    {"cron": "0 0 */2 * * *", "timezone": "America/Chicago"},
    {"interval_seconds": _HOUR},
    {"interval_seconds": 7000},
]
_MINUTES: list[dict[str, Any]] = [{"interval_seconds": n} for n in (45, 60, 90, 300)]


@pytest.fixture
def year(world: World, monkeypatch: pytest.MonkeyPatch) -> Year:
    """One in which schedulers are killed and the database is lost, and chance is by seed alone."""
    made = Year(BEGINNING, random.Random(1))

    def fragile(really: Any) -> Any:
        def do(*given: Any) -> Any:
            made.perhaps_cut()
            found = really(*given)
            made.perhaps_cut()  # what was written is rolled back
            return found

        return do

    for where, what in ((Lease, "check"), (slots, "change"), (slots, "add")):
        monkeypatch.setattr(where, what, fragile(getattr(where, what)))
    ids = random.Random(2)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128), version=4))
    monkeypatch.setattr(instants, "present", lambda: made.now)
    clock = types.SimpleNamespace(monotonic=lambda: made.now)
    monkeypatch.setattr(scheduler, "time", clock)
    monkeypatch.setattr(scheduler, "_SWEEP_SECONDS", 0.0)
    return made


def _policy(chance: random.Random) -> dict[str, Any]:
    """Some fields, as somebody may write them."""
    some = {
        "catchup": chance.choice(["all", "latest", "none"]),
        "catchup_window": chance.choice([None, 600, _HOUR, 2 * DAY, 9 * DAY]),
        "max_catchup_runs": chance.choice([None, 1, 3, 10]),
        "max_concurrency": chance.choice([1, 1, 2, 3]),
        "overlap": chance.choice(["queue", "skip", "cancel_running"]),
        "jitter": chance.choice([0, 0, 0, 50, 5000]),
        "grace": chance.choice([0, 60, 60, 1800]),
        "pause_after_failures": chance.choice([None, None, 2, 4]),
    }
    return {name: some[name] for name in chance.sample(sorted(some), chance.randrange(1, 8))}


def _populate(year: Year) -> None:
    """Each catch-up with each overlap, with a trigger of any kind, and three for parts of it."""
    chance = year.chance
    kinds = list(itertools.product(["all", "latest", "none"], ["queue", "skip", "cancel_running"]))
    for n, (catchup, overlap) in enumerate(kinds):
        policy = {**_policy(chance), "catchup": catchup, "overlap": overlap}
        if overlap == "cancel_running":
            policy["max_concurrency"] = chance.choice([2, 3])
        trigger = dict(_YEAR[n])
        if n % 4 == 1:
            trigger["start"] = written(BEGINNING - chance.uniform(1, 20) * DAY)
        if n % 4 == 2:
            trigger["end"] = written(BEGINNING + chance.uniform(200, 300) * DAY)
        year.add(f"year {n}", trigger, policy)
    for n, trigger in enumerate(chance.sample(_DAYS, 2)):
        _add_part(year, f"days {n}", trigger, _policy(chance), chance.uniform(0.6, 1.4) * DAY)
    _add_part(year, "an hour", {"interval_seconds": 90}, _policy(chance), _HOUR)
    rarely = {**_policy(chance), "catchup": "none"}  # very many that are missed
    _add_part(year, "a day", {"interval_seconds": 60}, rarely, 1.2 * DAY)
    for name, key in year.keys.items():
        some = [600.0, 0.3 * DAY, 4.0 * DAY, 12.0 * DAY] if "year" in name else [30.0, 600.0]
        stopped = year.books[key].policy["overlap"] == "cancel_running" and "year" in name
        year.outcomes[key] = (
            20.0 * DAY if stopped else chance.choice(some),
            chance.choice([0.05, 0.3, 0.8]),
        )


def _add_part(
    year: Year, name: str, trigger: dict[str, Any], policy: dict[str, Any], seconds: float
) -> None:
    begin = BEGINNING + year.chance.uniform(1, 340) * DAY
    part = {**trigger, "start": written(begin), "end": written(begin + seconds)}
    year.add(name, part, policy)


class _Life:
    """What happens in the year, and when."""

    def __init__(self, year: Year) -> None:
        self.year = year
        self.chance = year.chance
        self.names = list(year.books)
        self.often = {key for name, key in year.keys.items() if "year" not in name}
        self.scheduler: SteppedScheduler | None = None
        self.deeds = sorted(self.chance.uniform(BEGINNING, _END) for _ in range(130))
        self.outages = self._times(25)
        self.silences = self._times(12)
        begins = year.books[year.keys["a day"]].eras[0].begins
        self.outages.append((begins + 2000.0, begins + 1.18 * DAY))
        self.outages.sort()

    def _times(self, count: int) -> list[tuple[float, float]]:
        """Seconds to weeks, more often short than long."""
        begins = [self.chance.uniform(BEGINNING, _END - 30 * DAY) for _ in range(count)]
        return [(at, at + 10 ** self.chance.uniform(1, 6.2)) for at in begins]

    def live(self) -> None:
        """Let the year pass."""
        year = self.year
        year.look(year.scheduler())  # schedules are known to one before anything goes wrong
        while True:
            at = self._next()
            down = next((one for one in self.outages if one[0] <= at), None)
            if down is not None:
                self.outages.remove(down)
                self._down(max(down[1], year.now))
                continue
            if at >= _END:
                break
            year.now = at
            self._look()
        self._end()

    def _down(self, until: float) -> None:
        """Nobody schedules; people do what they do."""
        year = self.year
        year.counts["outages"] += 1
        while self.deeds and self.deeds[0] <= until:
            year.now = max(year.now, self.deeds.pop(0))
            year.do(self._deed())
        year.now = self._edge(max(year.now, until))
        self.scheduler = None
        self._look()

    def _edge(self, now: float) -> float:
        """From when on the scheduler is back: often when a slot is just in time, or just not."""
        graces, windows = [], []
        for book in self.year.books.values():
            policy = book.policy
            late, window = policy["grace"] + policy["jitter"], policy["catchup_window"]
            for at in book.eras[-1].slots(book.decided, int(now))[-5:]:
                graces += [at + late, at + late + 1]
                if window is not None and window > late and policy["catchup"] != "none":
                    windows += [at + window, at + window + 1]
        graces, windows = (
            [at for at in one if now < at < now + 4 * DAY] for one in (graces, windows)
        )
        some = windows if windows and self.chance.random() < 0.8 else graces
        return float(self.chance.choice(some)) if some else now

    def _look(self) -> None:
        year, chance = self.year, self.chance
        doing = None
        if self.deeds and self.deeds[0] <= year.now:
            self.deeds.pop(0)
            doing = self._deed()
            if chance.random() < 0.3:
                year.do(doing)
                doing = None
        doubt = [key for key, book in year.books.items() if _in_doubt(book)]
        if doubt and chance.random() < 0.1:
            year.do(self._moved(chance.choice(doubt)))
        year.silent = any(begin <= year.now < end for begin, end in self.silences)
        year.silent = year.silent or chance.random() < 0.01
        if self.scheduler is None:
            self.scheduler = year.scheduler()
        where = chance.choice(["ended", "create"])
        year.kills = 0.03 if doing is not None else 0.006
        if not year.look(self.scheduler, None if doing is None else (where, doing)):
            self.scheduler = None

    def _next(self) -> float:
        """When there is something to see."""
        year = self.year
        found = [_END, *self.deeds[:1]]
        for book in year.books.values():
            found += self._moments(book) if book.enabled else []
        lag = self.chance.choice([0, 0, 0, 1, 1, 2, 5, 0.5, 70, 30, 2000])
        return max(min(found) + lag, year.now + self.chance.choice([0.25, 1]))

    def _moments(self, book: Book) -> list[float]:
        year = self.year
        found: list[float] = list(book.eras[-1].slots(int(year.now), int(year.now) + 7 * DAY)[:1])
        if book.eras[-1].slots(book.decided, int(year.now)):
            found.append(year.now)
        lines = [book.lines[key] for key in book.open]
        waits = [line.after for line in lines if line.fate == "waiting"]
        found += [at for at in waits if at > year.now]
        if any(at <= year.now for at in waits):
            ends = [year.runs[line.run].ends for line in lines if line.run]
            silences = [end for begin, end in self.silences if begin <= year.now < end]
            later = [at for at in ends if at > year.now]
            found += silences or later or [year.now + 600]
        return found

    def _end(self) -> None:
        """Everything works, and everything is started, so that every slot is decided."""
        year = self.year
        year.kills, year.silent, year.now = 0.0, False, max(year.now, _END)
        year.refused.clear()
        last = year.scheduler()
        for key in self.names * 2:  # runs that have failed may stop it once more
            year.do(self._switched(key, on=True))
            year.look(last)
            year.now += 1

    def _deed(self) -> Deed:
        """Something that somebody does to some schedule."""
        chance, year = self.chance, self.year
        key = chance.choice(self.names)
        book = year.books[key]
        if self.year.refused and chance.random() < 0.7:
            return self._back()
        missed = [
            k for k, one in year.books.items() if one.eras[-1].slots(one.decided, int(year.now))
        ]
        if missed and chance.random() < 0.25:
            return self._backfill(chance.choice(missed), undecided=True)
        if not book.enabled and chance.random() < 0.5:
            return self._switched(key, on=True)
        often = [self._switched, self._policy, self._trigger]
        seldom = [self._ask, self._backfill, self._gone, self._moved]
        return chance.choice([*often, *seldom])(key)

    def _switched(self, key: str, *, on: bool = False) -> Deed:
        self.year.counts["starts" if on else "stops"] += 1
        now = self.year.now
        if on:
            return Deed(key, lambda: verbs.start(key), lambda book: book.switch(now, on=True))
        return Deed(key, lambda: verbs.stop(key), lambda book: book.switch(now, on=False))

    def _policy(self, key: str) -> Deed:
        self.year.counts["edits of policies"] += 1
        given = _policy(self.chance)
        if key in self.often:
            given.pop("catchup", None)  # or thousands would wait
        laid = {name: rule.DEFAULTS[name] if v is None else v for name, v in given.items()}
        return Deed(
            key,
            lambda: verbs.update(key, anything, policy=laid),
            lambda book: book.policy.update(laid),
        )

    def _trigger(self, key: str) -> Deed:
        self.year.counts["edits of triggers"] += 1
        now, chance = self.year.now, self.chance
        given = dict(chance.choice(_YEAR))
        if key in self.often:
            kind = _MINUTES if self.names.index(key) > len(self.names) - 3 else _DAYS
            given = dict(chance.choice(kind))
        else:
            away = chance.choice([None, None, -9, -0.01, 0.01, 4])
            given["start"] = None if away is None else written(now + away * DAY)
            given["end"] = chance.choice([None, written(now + chance.uniform(30, 200) * DAY)])
            if chance.random() < 0.3:
                given = {"end": given["end"]}
        end = {**self.year.books[key].eras[-1].trigger, **given}.get("end")
        if end and rule.second(end) < now + 10 * DAY:
            return self._ask(key)  # it would have no slot
        return Deed(
            key,
            lambda: verbs.update(key, anything, trigger=given),
            lambda book: book.replace_trigger(now, given),
        )

    def _ask(self, key: str) -> Deed:
        self.year.counts["runs asked for"] += 1
        now = self.year.now
        return Deed(key, lambda: verbs.trigger_now(key), lambda book: book.ask(now))

    def _backfill(self, key: str, *, undecided: bool = False) -> Deed:
        self.year.counts["backfills"] += 1
        now = self.year.now
        after = now - 10 ** self.chance.uniform(*(3, 5) if key in self.often else (5, 6.5))
        until = after + 10 ** self.chance.uniform(3, 3.7 if key in self.often else 6.5)
        if undecided:
            era, decided = self.year.books[key].eras[-1], self.year.books[key].decided
            at = self.chance.choice(era.slots(decided, int(now))[-20:])
            after, until = at - 1.0, at + (0.0 if key in self.often else 9.0 * DAY)
        found: list[int] = []

        def really() -> None:
            try:
                told = verbs.backfill(key, written(after), written(until))
            except BadInputError:
                found.append(0)
            else:
                found.append(told["slots"] + told["run_before"])

        def book(one: Book) -> None:
            assert one.backfill(now, int(after), int(until)) == found[0]

        return Deed(key, really, book)

    def _back(self) -> Deed:
        """Every deployment that was gone is there again."""
        return Deed(self.names[0], self.year.refused.clear, bool)

    def _moved(self, key: str) -> Deed:
        """Its runs are those of another deployment from now on."""
        self.year.counts["other deployments"] += 1
        name = f"of another, at {self.year.now}"
        return Deed(key, lambda: verbs.update(key, anything, deployment=name), bool)

    def _gone(self, key: str) -> Deed:
        """Its deployment is there or not: the run of a slot is refused."""
        self.year.counts["deployments gone or back"] += 1
        name = verbs.views.show(key)["deployment"]
        return Deed(key, lambda: self.year.refused.symmetric_difference_update({name}), bool)


def _in_doubt(book: Book) -> bool:
    """Whether a run may exist of which nobody knows."""
    lines = (book.lines[key] for key in book.open)
    return any(line.fate == "waiting" and line.active for line in lines)


@pytest.mark.parametrize("seed", range(1, 1 + _SEEDS))
def test_each_slot_of_a_year_has_the_fate_that_the_rule_says(year: Year, seed: int) -> None:
    year.chance = random.Random(seed)
    _populate(year)
    _Life(year).live()

    for key, book in year.books.items():
        rows = rows_of(key, book, 0, 2**40)
        assert rows == expected(book, 0, 2**40)
        _check_slots(book, rows)
        _check_runs(year, book)
    _print(year, seed)
    assert year.counts["kills"] > 20, year.counts
    assert year.counts["outages"] > 15, year.counts


def _check_slots(book: Book, rows: dict[rule.Key, Any]) -> None:
    """Every slot of every trigger that there was has a row, and nothing else has one."""
    assert book.decided >= _END
    named = [at for era in book.eras for at in era.slots(0, book.decided)]
    assert sorted(at for at, kind in rows if kind == rule.SCHEDULED) == named


def _check_runs(year: Year, book: Book) -> None:
    """Each created slot has a run of its own, within the limit, and not while it was stopped."""
    made = {line.run: (key, line) for key, line in book.lines.items() if line.run}
    own = {name: run for name, run in year.runs.items() if run.key[0] == book.id}
    assert made.keys() == own.keys()
    assert all(run.key[1:] == (made[name][0][1], made[name][0][0]) for name, run in own.items())
    slots_run = Counter(run.key[2] for run in own.values() if run.key[1] != rule.MANUAL)
    assert set(slots_run.values()) <= {1}
    for name, run in own.items():
        with_it = [n for n, one in own.items() if one.begins <= run.begins < one.ends or n == name]
        begun = [n for n in with_it if own[n].begins < run.begins or int(n[4:]) <= int(name[4:])]
        assert len(begun) <= max(made[n][1].limit for n in begun)
        (_, kind), line = made[name]
        stopped = [at for at, on in book.switched if at <= run.begins and not on]
        started = [at for at, on in book.switched if at <= run.begins and on]
        if kind == rule.SCHEDULED and max(stopped, default=0) > max(started, default=0):
            assert line.begun is not None
            assert line.begun <= max(stopped)
        assert run.begins >= line.after


def _print(year: Year, seed: int) -> None:
    """Tell what happened."""
    lines = Counter(
        f"{kind} {line.fate} {line.reason.partition(':')[0]}".strip()
        for book in year.books.values()
        for (_, kind), line in book.lines.items()
    )
    print(f"\nseed {seed}: {dict(sorted(year.counts.items()))}, {len(year.runs)} runs")
    print(f"{sum(lines.values())} slots: {dict(sorted(lines.items()))}")
