"""A year of schedules: what happens in it, to schedulers and to the books alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from infra.errors import BadInputError
from registry import catalogue
from registry.schedules import schedules as schedule_rows
from registry.schedules.slots import Slot, SlotModel
from schedules import verbs
from schedules.schedule import Schedule
from schedules.verbs import ScheduleSpec
from tests.schedules import rule
from tests.schedules.rule import Book, Line
from tests.schedules.world import Killed, Run, SteppedScheduler, World

REFUSED = "Refused: It is gone. Deploy it."
_FIELDS = ("slot", "kind", "last", "count", "fate", "reason", "not_before", "begun",
           "flow_run_id", "run_state", "decided_at")  # fmt: skip
_COLUMNS = [getattr(SlotModel, name) for name in _FIELDS]


def written(second: float) -> str:
    """An instant, as somebody writes it."""
    return f"{datetime.fromtimestamp(int(second), UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass
class Deed:
    """What somebody does to a schedule.

    Attributes:
        really: Does it.
        book: Tells it to a book.
    """

    key: str
    really: Callable[[], Any]
    book: Callable[[Book], Any]


@dataclass
class Year(World):
    """A world in which the same happens with the same seed.

    Attributes:
        keys: The id of each schedule, by its name.
        books: What each schedule's rows must be.
        kills: How likely a scheduler ends at a point; as likely the database is lost.
        armed: Whether that can happen now.
        silent: Whether Prefect does not answer.
        unknown: How often it did not tell of runs, in this look.
        told: What came of asking for a slot's run, in this look.
        stops: The runs whose end was asked for, in this look.
        doing: What somebody does in the middle of the look, and where.
        made: Each slot's run, of each deployment.
        outcomes: How long the runs of a schedule take at most, and how often they fail.
    """

    keys: dict[str, str] = field(default_factory=dict)
    books: dict[str, Book] = field(default_factory=dict)
    armed: bool = False
    silent: bool = False
    unknown: int = 0
    told: dict[Any, str] = field(default_factory=dict)
    asked: set[Any] = field(default_factory=set)
    stops: list[str] = field(default_factory=list)
    doing: tuple[str, Deed] | None = None
    done: Deed | None = None
    made: dict[Any, str] = field(default_factory=dict)
    outcomes: dict[str, tuple[float, float]] = field(default_factory=dict)

    def perhaps_killed(self) -> None:
        """Sometimes this is where the scheduler, or its connection to the database, ends."""
        if self.armed and self.chance.random() < self.kills:
            self.counts["kills"] += 1
            raise Killed

    def perhaps_cut(self) -> None:
        """The same in a transaction, where the database can be lost as well."""
        self.perhaps_killed()
        if self.armed and self.chance.random() < self.kills:
            self.counts["connections lost"] += 1
            raise OperationalError("commit", {}, ConnectionError("lost"))

    def _meanwhile(self, where: str) -> None:
        if self.doing is not None and self.doing[0] == where:
            (_, self.done), self.doing, armed = self.doing, None, self.armed
            self.armed = False
            self.done.really()
            self.armed = armed
            self.counts["deeds in the middle of a look"] += 1

    def _perhaps_silent(self, often: float = 0.0) -> None:
        if self.silent or self.chance.random() < often:
            self.counts["requests lost"] += 1
            raise ConnectionError("nobody answers")

    def find(self, slot: Slot) -> str | None:
        key = (slot.schedule, slot.slot, str(slot.kind))
        self.asked.add(key)
        self.perhaps_killed()
        self._perhaps_silent(0.01)
        found = next((run for (_, made), run in self.made.items() if made == key), None)
        if found is not None:
            self.counts["runs found again"] += 1
            self.told[key] = found
        return found

    def create(self, schedule: Schedule, slot: Slot) -> str:
        key = (slot.schedule, slot.slot, str(slot.kind))
        self.asked.add(key)
        self._meanwhile("create")
        self.perhaps_killed()
        self._perhaps_silent(0.01)
        if schedule.deployment in self.refused:
            self.told[key] = REFUSED
            raise BadInputError("It is gone.", "Deploy it.")
        made = (schedule.deployment, key)
        if made not in self.made:
            longest, fails = self.outcomes[schedule.id]
            luck = self.chance.random()
            word = "FAIL TRAIN" if luck < fails else "DELETED" if luck > 0.97 else "COMPLETE"
            run = f"run {len(self.runs)}"
            ends = self.now + longest * self.chance.random() ** 2
            self.runs[run] = Run((key[0], key[2], key[1]), self.now, ends, word)
            self.made[made] = run
        self.perhaps_killed()
        self._perhaps_silent(0.01)
        self.told[key] = self.made[made]
        return self.told[key]

    def ended(self, ids: Collection[str]) -> dict[str, str]:
        self._meanwhile("ended")
        self.perhaps_killed()
        self.unknown += self.silent
        self._perhaps_silent()
        return {one: self.runs[one].word for one in ids if self.runs[one].ends <= self.now}

    def stop(self, run_id: str) -> None:
        self.stops.append(run_id)
        self.perhaps_killed()
        self._perhaps_silent(0.05)
        run = self.runs[run_id]
        end = self.now + self.chance.choice([0.125, 0.125, 20.0])
        if run.ends > end:
            run.ends, run.word = end, "STOPPED"

    def scheduler(self, lease_seconds: float = 0.0) -> SteppedScheduler:
        """One that creates runs one after the other, so that chance is the same each time."""
        made = super().scheduler(lease_seconds)
        made._pool.shutdown()
        made._pool = _Inline()  # type: ignore[assignment]
        return made

    def add(self, name: str, trigger: dict[str, Any], policy: dict[str, Any]) -> None:
        """Make a schedule; its slots count from now or from its start."""
        told = ScheduleSpec(name=name, deployment=f"of {name}", trigger=trigger, policy=policy)
        key = verbs.create(told, anything)["id"]
        self.books[key] = Book.new(key, trigger, policy, self.now)
        self.keys[name] = key

    def look(self, scheduler: SteppedScheduler, doing: tuple[str, Deed] | None = None) -> bool:
        """Have a scheduler look, and the books with it; whether it lives."""
        self.told, self.asked, self.stops, self.unknown = {}, set(), [], 0
        lost = self.counts["requests lost"]
        self.doing, self.done, lives, broken = doing, None, True, False
        self.armed = True
        try:
            scheduler.step()
        except Killed:
            lives, broken = False, True
        except OperationalError:
            broken = True
        self.armed, self.doing = False, None
        self.counts["looks"] += 1
        asked, stops = set(), []
        for key, book in list(self.books.items()):
            deed = self.done if self.done is not None and self.done.key == key else None
            if broken or deed is not None:
                self.books[key] = self._seen(key, self._possible(book, deed, broken=broken))
            else:
                for _ in self._looked(book):
                    pass
            asked |= {(key, *k) for k in self.books[key].began}
            stops += self.books[key].cancels
        if broken or self.counts["requests lost"] > lost:  # nobody was asked for any more
            assert self.asked <= asked
            assert set(self.stops) <= set(stops) or broken
        else:
            assert self.asked == asked, (self.asked, asked)
            assert sorted(self.stops) == sorted(stops)
        if doing is not None and self.done is None:
            self.do(doing[1])
        return lives

    def _looked(self, book: Book) -> Iterator[str]:
        """What a scheduler's look writes of a schedule.

        Where Prefect was silent twice, it was so before anything could begin, and after.
        """
        known, dispatches = not self.silent, self.unknown < 2
        return book.look(self.now, self.runs, self.told, asked=known, dispatches=dispatches)

    def do(self, deed: Deed) -> None:
        """Somebody does something while no scheduler looks."""
        deed.really()
        deed.book(self.books[deed.key])

    def _possible(self, book: Book, deed: Deed | None, *, broken: bool) -> Iterator[Book]:
        """What may be written of a schedule after a look that was broken off, or joined."""
        copy = book.copy()
        if deed is None:
            yield copy.copy()
            for _ in self._looked(copy):
                yield copy.copy()
            return
        for where in ("decided", "learnt", "dispatched", "created"):
            copy, past = book.copy(), False
            for stage in self._looked(copy):
                if stage == where and not past:
                    deed.book(copy)
                    past = True
                if past and (broken or stage == "swept"):
                    yield copy.copy()

    def _seen(self, key: str, possible: Iterable[Book]) -> Book:
        """Which of the books it is, by the rows."""
        books = list(possible)
        differ = {key[0] for book in books for key in book.touched}
        if not differ and len({book.enabled for book in books}) == 1:
            return books[-1]
        low, high = (min(differ), max(differ)) if differ else (0, -1)
        found = rows_of(key, self.books[key], low, high)
        enabled = _enabled(key)
        for book in reversed(books):
            if book.enabled == enabled and found == expected(book, low, high):
                return book
        told = [(book.enabled, _unlike(found, expected(book, low, high))) for book in books]
        raise AssertionError(f"{key} at {self.now} {enabled=} {books[0].policy}: {told}")


def _unlike(found: dict[rule.Key, Any], wanted: dict[rule.Key, Any]) -> list[Any]:
    keys = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
    return [(key, found.get(key), wanted.get(key)) for key in keys[:5]]


class _Inline:
    """A pool that does one thing after the other, and tells of all of them in the end."""

    def map(self, do: Callable[[Slot], Any], slots: list[Slot]) -> Iterator[Any]:
        """What comes of each; what ends the scheduler does so when it is told."""
        results: list[Any] = []
        for slot in sorted(slots, key=lambda one: one.schedule):
            try:
                results.append(do(slot))
            except Killed as end:
                results.append(end)
        for one in results:
            if isinstance(one, Killed):
                raise one
            yield one

    def shutdown(self) -> None:
        """There is nothing to end."""


def anything(deployment: str, given: Any) -> dict[str, Any]:
    return dict(given)


def _enabled(key: str) -> bool:
    with catalogue.engine().connect() as connection:
        return bool(schedule_rows.with_ids(connection, [key])[0].enabled)


def rows_of(key: str, book: Book, low: int, high: int) -> dict[rule.Key, Any]:
    """What the rows say of each slot in a stretch of time; those that share one are told apart."""
    wanted = select(*_COLUMNS).where(
        SlotModel.schedule == key, SlotModel.slot <= high, SlotModel.last >= low
    )
    found: dict[rule.Key, Any] = {}
    with catalogue.engine().connect() as connection:
        for row in connection.execute(wanted):
            each = [row.slot]
            if row.count > 1:
                each = [at for era in book.eras for at in era.slots(row.slot - 1, row.last)]
                assert (each[0], each[-1], len(each)) == (row.slot, row.last, row.count)
            for at in each:
                assert (at, row.kind) not in found, row
                if low <= at <= high:
                    found[at, str(row.kind)] = (
                        str(row.fate), row.reason, row.not_before, row.begun, row.flow_run_id,
                        row.run_state, row.decided_at,
                    )  # fmt: skip
    return found


def expected(book: Book, low: int, high: int) -> dict[rule.Key, Any]:
    """What the rows must say."""
    return {key: _told(line) for key, line in book.lines.items() if low <= key[0] <= high}


def _told(line: Line) -> Any:
    begun = line.fate == "waiting" and line.begun is not None
    return (line.fate, line.reason, line.after, begun, line.run, line.word, line.decided)
