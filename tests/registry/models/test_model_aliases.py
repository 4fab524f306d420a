from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra import identity
from infra.errors import BadInputError, ConflictError, NotFoundError
from registry import catalogue, deletion, history, tracking
from registry.models import model_aliases, model_removal, model_updates, models
from registry.models.models import ServingSpec
from registry.schedules import schedules
from tests.registry.scheduled import scheduled

pytestmark = pytest.mark.usefixtures("mlflow")

HUB = ServingSpec("huggingface", "", {"model_id": "a/b"})


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def model(name: str) -> str:
    """A model with three versions."""
    for _ in range(3):
        models.create(name, HUB)
    return name


def pointed(name: str, alias: str, when: datetime) -> tuple[int | None, bool]:
    answer = model_aliases.at(name, alias, when)
    return answer["version"], answer["certain"]


class TestNames:
    @pytest.mark.parametrize(
        "alias",
        [
            "",
            "latest",
            "Latest",
            "LATEST",
            "v1",
            "V12",
            "a b",
            "a.b",
            "a/b",
            "é",
            "x" * 256,
            "a\n",
        ],
    )
    def test_what_mlflow_does_not_take_is_refused(self, alias: str) -> None:
        with pytest.raises(BadInputError) as raised:
            model_aliases.check(alias)

        assert raised.value.code == "AliasInvalid"

    @pytest.mark.parametrize("alias", ["a", "champion", "v", "v1a", "1", "a-b_c", "x" * 255])
    def test_what_it_takes_is_taken(self, alias: str, model: str) -> None:
        model_aliases.point(model, alias, 1)

        assert models.resolve(f"models:/{model}@{alias}").version == 1


@pytest.mark.parametrize("reference", ["99", "none"], ids=["version", "alias"])
def test_what_is_not_there_has_a_hint_that_leads_on(model: str, reference: str) -> None:
    separator = "/" if reference == "99" else "@"
    for name, hint in (
        (model, f"modelyard model show {model} "),
        ("nope", "modelyard model list "),
    ):
        with pytest.raises(NotFoundError) as raised:
            models.resolve(f"models:/{name}{separator}{reference}")
        assert raised.value.hint.startswith(hint)


def test_an_alias_that_an_enabled_schedule_predicts_with_stays(model: str) -> None:
    model_aliases.point(model, "nightly", 1)
    schedules.add(scheduled(f"n {model}", {"model": f"models:/{model}@nightly"}))

    with pytest.raises(ConflictError) as raised:
        model_aliases.drop(model, "nightly")

    assert raised.value.code == "HasSchedule"
    assert f"modelyard schedule stop 'n {model}'" in raised.value.hint
    assert models.resolve(f"models:/{model}@nightly").version == 1


class TestMoves:
    def test_each_is_kept_with_who_when_and_why(self, model: str) -> None:
        before = now()
        first = model_aliases.point(model, "champion", 1, "the first")
        second = model_aliases.point(model, "champion", 3, "better")
        gone = model_aliases.drop(model, "champion", "withdrawn")

        moves = model_aliases.moves(model, "champion")

        assert (first, second, gone) == (
            {"alias": "champion", "from": None, "to": 1},
            {"alias": "champion", "from": 1, "to": 3},
            {"alias": "champion", "from": 3, "to": None},
        )
        assert [(move["from"], move["to"], move["why"]) for move in moves] == [
            (None, 1, "the first"), (1, 3, "better"), (3, None, "withdrawn"),
        ]  # fmt: skip
        assert {move["user"] for move in moves} == {identity.caller()}
        times = [datetime.fromisoformat(move["at"]) for move in moves]
        assert before <= times[0] < times[1] < times[2] <= now()
        assert models.show(model)["aliases"] == {}

    def test_a_move_to_where_it_points_is_none(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        again = model_aliases.point(model, "champion", 1)

        assert again == {"alias": "champion", "from": 1, "to": 1}
        assert len(model_aliases.moves(model)) == 1

    def test_aliases_are_told_apart(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        model_aliases.point(model, "challenger", 2)

        assert [move["alias"] for move in model_aliases.moves(model)] == ["champion", "challenger"]
        assert [move["to"] for move in model_aliases.moves(model, "challenger")] == [2]
        assert models.show(model)["aliases"] == {"champion": 1, "challenger": 2}
        assert models.show(model)["versions"][1]["aliases"] == ["challenger"]

    def test_what_is_not_there(self, model: str) -> None:
        for name, number in ((f"{model}-x", 1), (model, 4)):
            with pytest.raises(NotFoundError):
                model_aliases.point(name, "champion", number)
        with pytest.raises(NotFoundError):
            model_aliases.drop(model, "champion")
        with pytest.raises(BadInputError) as raised:
            model_aliases.point(model, "champion", 1, "x" * 4001)
        assert raised.value.code == "TextInvalid"
        assert model_aliases.moves(model) == []

    def test_nothing_points_to_what_is_being_deleted(self, model: str) -> None:
        model_removal.claim(model, 2)

        with pytest.raises(ConflictError) as raised:
            model_aliases.point(model, "champion", 2)

        assert raised.value.code == "ModelNotActive"
        assert models.show(model)["aliases"] == {}

    def test_several_at_once_leave_a_chain(self, model: str) -> None:
        threads = [
            threading.Thread(target=model_aliases.point, args=(model, "champion", 1 + n % 3))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        moves = model_aliases.moves(model)

        assert [move["from"] for move in moves] == [None, *(move["to"] for move in moves[:-1])]
        assert {move["user"] for move in moves} == {identity.caller()}
        assert models.show(model)["aliases"] == {"champion": moves[-1]["to"]}


class TestAtATime:
    def test_what_it_pointed_to(self, model: str) -> None:
        times = [now()]
        moves: list[Callable[[], Any]] = [
            lambda: model_aliases.point(model, "champion", 1),
            lambda: model_aliases.point(model, "challenger", 3),
            lambda: model_aliases.point(model, "champion", 2),
            lambda: model_aliases.drop(model, "champion"),
        ]
        for move in moves:
            move()
            times.append(now())

        assert [pointed(model, "champion", when) for when in times] == [
            (None, True), (1, True), (1, True), (2, True), (None, True),
        ]  # fmt: skip
        assert pointed(model, "challenger", times[-1] + timedelta(days=1)) == (3, True)

    def test_at_the_very_moment_it_has_moved(self, model: str) -> None:
        model_aliases.point(model, "champion", 2)
        (move,) = model_aliases.moves(model)

        assert pointed(model, "champion", datetime.fromisoformat(move["at"])) == (2, True)

    def test_across_names(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        first = now()
        model_updates.update(model, new=f"{model}-b")
        model_aliases.point(f"{model}-b", "champion", 2)
        second = now()
        model_updates.update(f"{model}-b", new=f"{model}-c")
        models.create(model, HUB)  # another one, under the first name

        assert pointed(model, "champion", first) == (1, True)
        assert pointed(model, "champion", second) == (None, True)
        assert pointed(f"{model}-b", "champion", second) == (2, True)
        assert pointed(f"{model}-c", "champion", now()) == (2, True)
        assert [move["to"] for move in model_aliases.moves(f"{model}-c")] == [1, 2]
        assert models.show(f"{model}-c")["aliases_changed_outside"] == []
        assert models.show(model)["aliases_changed_outside"] == []
        model_updates.update(f"{model}-c", new=f"{model}-b")  # and back
        assert pointed(f"{model}-b", "champion", now()) == (2, True)

    def test_after_renames_back_and_forth_each_move_is_there_once(self, model: str) -> None:
        other = f"{model}-b"
        model_aliases.point(model, "champion", 1)
        first = now()
        for _ in range(3):
            model_updates.update(model, new=other)
            model_updates.update(other, new=model)
        model_aliases.point(model, "champion", 2)

        assert [move["to"] for move in model_aliases.moves(model)] == [1, 2]
        assert pointed(model, "champion", first) == (1, True)
        assert pointed(model, "champion", now()) == (2, True)
        model_updates.update(model, new=other)
        assert [move["to"] for move in model_aliases.moves(other)] == [1, 2]
        assert models.show(other)["aliases_changed_outside"] == []

    def test_the_history_of_each_name_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        day = datetime(2026, 1, 1, tzinfo=UTC)
        told: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
        turns = [("a", "alias", {"alias": "x", "from": None, "to": 1, "why": ""})]
        for number in range(200):
            old, new = ("a", "b") if number % 2 == 0 else ("b", "a")
            turns += [(new, "rename", {"was": old}), (old, "rename", {"to": new})]
        for number, (subject, verb, detail) in enumerate(turns):
            at = (day + timedelta(seconds=number)).isoformat()
            told[subject].append({"at": at, "user": "me", "verb": verb, "detail": detail})
        read: list[str] = []

        def of(_: str, subject: str) -> list[dict[str, Any]]:
            read.append(subject)
            assert read.count(subject) <= 2  # by the two questions below
            return told[subject]

        monkeypatch.setattr(history, "of", of)

        assert [move["to"] for move in model_aliases.moves("a")] == [1]
        assert model_aliases._replayed("a") == {"x": 1}
        assert sorted(read) == ["a", "a", "b", "b"]

    def test_of_a_model_that_is_gone(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        when = now()
        model_aliases.drop(model, "champion")
        deletion.delete("model", model)

        assert pointed(model, "champion", when) == (1, True)
        assert pointed(model, "champion", now()) == (None, True)


class TestMovesElsewhere:
    """Somebody moves aliases in MLflow's own pages."""

    def test_they_are_noticed(self, model: str) -> None:
        mlflow = tracking.client()
        model_aliases.point(model, "champion", 1)
        model_aliases.point(model, "stable", 1)
        mlflow.set_registered_model_alias(model, "champion", "2")
        mlflow.delete_registered_model_alias(model, "stable")
        mlflow.set_registered_model_alias(model, "new", "3")

        assert models.show(model)["aliases_changed_outside"] == [
            {"alias": "champion", "known": 1, "actual": 2},
            {"alias": "new", "known": None, "actual": 3},
            {"alias": "stable", "known": 1, "actual": None},
        ]
        assert pointed(model, "champion", now()) == (1, False)
        assert pointed(model, "other", now()) == (None, True)

    def test_the_next_move_writes_them_down(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        tracking.client().set_registered_model_alias(model, "champion", "2")
        between = now()
        moved = model_aliases.point(model, "champion", 3)

        assert moved == {"alias": "champion", "from": 2, "to": 3}
        moves = model_aliases.moves(model)
        assert [(move["user"], move["from"], move["to"]) for move in moves] == [
            (identity.caller(), None, 1), (None, 1, 2), (identity.caller(), 2, 3),
        ]  # fmt: skip
        assert pointed(model, "champion", between) == (1, False)
        assert pointed(model, "champion", now()) == (3, True)
        assert models.show(model)["aliases_changed_outside"] == []

    def test_an_alias_that_vanished_cannot_be_dropped_and_is_settled(self, model: str) -> None:
        model_aliases.point(model, "champion", 1)
        tracking.client().delete_registered_model_alias(model, "champion")

        with pytest.raises(NotFoundError):
            model_aliases.drop(model, "champion")

        assert models.show(model)["aliases_changed_outside"] == []

    def test_killed_before_it_is_written_down_a_repeat_does(
        self, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(history, "record", killed)
            with pytest.raises(KeyboardInterrupt):
                model_aliases.point(model, "champion", 1)
        assert models.resolve(f"models:/{model}@champion").version == 1

        model_aliases.point(model, "champion", 1)

        assert [move["to"] for move in model_aliases.moves(model)] == [1]


class TestAlone:
    def test_one_at_a_time_for_one_subject(self, tmp_path: Path) -> None:
        order: list[str] = []
        inside = threading.Event()

        def second() -> None:
            inside.wait(30)
            with catalogue.advisory_lock("a"):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        with catalogue.advisory_lock("a"), catalogue.advisory_lock("b"):
            inside.set()
            thread.join(0.3)
            order.append("first")
        thread.join(30)

        assert order == ["first", "second"]

    def test_it_ends_with_an_error(self) -> None:
        with pytest.raises(ValueError, match="x"), catalogue.advisory_lock("a"):
            raise ValueError("x")
        with catalogue.advisory_lock("a"):
            pass
