"""Rows of templates in a real database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from infra import identity
from infra.errors import ConflictError, NotFoundError
from registry import catalogue, deletion, history, training_templates
from registry.schedules import schedules
from tests.registry.scheduled import scheduled


@pytest.fixture(autouse=True)
def _catalogue(catalogue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MODELYARD_DATABASE_URL", catalogue_url)
    catalogue.migrate()
    yield
    catalogue.engine().dispose()


def _same(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters


def test_one_is_created_listed_and_shown(name: str) -> None:
    kept = {"hyperparameters": {"b": 1, "a": "secret:X"}, "datasets": [{"name": "d", "uri": "/d"}]}
    made = training_templates.create(name, "what for", kept)

    assert made["parameters"] == kept
    assert list(made["parameters"]["hyperparameters"]) == ["b", "a"]
    assert made["hyperparameters"] == ["a", "b"]
    assert made["description"] == "what for"
    assert made["created_by"] == made["changed_by"] == identity.caller()
    assert made["created"] == made["changed"]
    [row] = [row for row in training_templates.list_all() if row["name"] == name]
    assert row.to_json() == {key: made[key] for key in row.to_json()}
    assert training_templates.show(name) == made
    assert training_templates.parameters(name) == kept


def test_a_name_is_given_once(name: str) -> None:
    training_templates.create(name, "first", {})
    training_templates.create(f"{name} 2", "", {})

    for fails in (
        lambda: training_templates.create(name, "second", {}),
        lambda: training_templates.change(f"{name} 2", name, None, _same),
    ):
        with pytest.raises(ConflictError) as raised:
            fails()
        assert raised.value.code == "NameTaken"
    assert training_templates.show(name)["description"] == "first"
    assert training_templates.show(f"{name} 2")["history"][-1]["verb"] == "create"


def test_it_is_changed_with_who_and_when(name: str) -> None:
    made = training_templates.create(name, "old", {"max_minutes": 1})

    found = training_templates.change(name, f"{name} 2", "new", lambda old: {**old, "a": 2})

    assert (found["name"], found["description"]) == (f"{name} 2", "new")
    assert found["parameters"] == {"max_minutes": 1, "a": 2}
    assert found["changed"] > made["changed"]
    assert found["created"] == made["created"]
    assert [deed["verb"] for deed in found["history"]] == ["create", "update"]
    assert found["history"][-1]["detail"]["parameters"] == found["parameters"]
    with pytest.raises(NotFoundError):
        training_templates.show(name)


def test_a_change_that_is_refused_changes_nothing(name: str) -> None:
    made = training_templates.create(name, "old", {"a": 1})

    with pytest.raises(ZeroDivisionError):
        training_templates.change(name, "new name", "new", lambda _: {"a": 1 / 0})

    assert training_templates.show(name) == made


def test_two_changes_at_once_lose_nothing(name: str) -> None:
    training_templates.create(name, "", {})
    inside, go_on = threading.Event(), threading.Event()

    def slowly(old: dict[str, Any]) -> dict[str, Any]:
        inside.set()
        assert go_on.wait(30)
        return {**old, "slow": 1}

    first = threading.Thread(target=training_templates.change, args=(name, None, None, slowly))
    first.start()
    assert inside.wait(30)
    second = threading.Thread(
        target=training_templates.change,
        args=(name, None, None, lambda old: {**old, "fast": 1}),
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join(30)
    second.join(30)

    assert training_templates.parameters(name) == {"slow": 1, "fast": 1}


def test_an_unknown_one_is_refused_with_names_like_it(name: str) -> None:
    training_templates.create(name, "", {})

    for ask in (
        training_templates.show,
        training_templates.parameters,
        training_templates.find,
        lambda n: training_templates.change(n, None, None, _same),
    ):
        with pytest.raises(NotFoundError) as raised:
            ask(f"{name}x")
        assert raised.value.code == "TemplateUnknown"
        assert name in raised.value.hint


def test_without_any_the_way_to_make_one_is_told(name: str) -> None:
    for row in training_templates.list_all():
        deletion.delete("template", row["name"])

    with pytest.raises(NotFoundError, match="modelyard template create"):
        training_templates.show(name)


def test_experiments_are_renamed(name: str) -> None:
    for number, experiment in enumerate([name, "another", name]):
        training_templates.create(f"{name} {number}", "", {"experiment": experiment, "a": 1})
    training_templates.create(name, "", {})

    assert training_templates.rename("experiment", name, "new") == [f"{name} 0", f"{name} 2"]

    assert training_templates.parameters(f"{name} 2") == {"experiment": "new", "a": 1}
    assert training_templates.parameters(f"{name} 1") == {"experiment": "another", "a": 1}
    assert training_templates.parameters(name) == {}


def test_one_that_a_schedule_takes_stays_and_the_schedule_follows_its_name(name: str) -> None:
    training_templates.create(name, "", {})
    schedules.add(scheduled(f"s {name}", {"template": name}))
    with pytest.raises(ConflictError) as raised:
        deletion.delete("template", name)
    assert raised.value.code == "HasSchedule"
    assert raised.value.message == f"It has the schedule s {name}."

    renamed = training_templates.change(name, f"{name} 2", None, _same)
    assert renamed["history"][-1]["detail"]["schedules"] == [f"s {name}"]
    assert schedules.names_and_parameters()[f"s {name}"] == {"template": f"{name} 2"}

    deletion.delete("schedule", f"s {name}")
    assert deletion.delete("template", f"{name} 2")["deleted"]


def test_a_deleted_one_is_gone_and_its_name_free(name: str) -> None:
    training_templates.create(name, "", {})
    key = training_templates.find(name)

    assert deletion.delete("template", name) == {"id": key, "name": name, "deleted": True}

    assert history.of("template", key)[-1]["verb"] == "delete"
    with pytest.raises(NotFoundError) as raised:
        deletion.delete("template", name)
    assert raised.value.code == "TemplateUnknown"
    assert training_templates.create(name, "", {})["history"][0]["verb"] == "create"
