from __future__ import annotations

import json

import pytest

from pipelines.drawing import building, model
from pipelines.drawing.model import Box
from registry.pipelines.pipeline_nodes import PipelineNode
from tests.pipelines import corpus
from tests.pipelines.drawing.boxes import flat, nested, node, read


def boxes(root: Box) -> dict[str, Box]:
    return {box.path: box for box in root.walk()}


def pairs(root: Box) -> set[tuple[str, str, str]]:
    return {(e.source, e.target, e.kind) for box in root.walk() for e in box.edges}


def loop_of(many: int, states: dict[int, str] | None = None) -> list[PipelineNode]:
    states = states or {}
    rows = [node("for-loop-1", "RUNNING", "loop", began=1.0)]
    for number in range(many):
        state = states.get(number, "SUCCEEDED")
        rows.append(node(f"for-loop-1/{number}", state, "iteration", began=1.0, ended=2.0))
    return rows


def test_each_kind_of_task_is_told() -> None:
    kinds = {
        (name, path): box.kind
        for name in ("one_of", "nested_loops", "exit_pipeline", "importing", "ignored_failure")
        for path, box in boxes(building.draw(read(name))).items()
    }

    assert kinds["one_of", ""] == "pipeline"
    assert kinds["one_of", "condition-branches-1"] == "dag"
    assert kinds["one_of", "condition-branches-1/condition-2"] == "condition"
    assert kinds["nested_loops", "for-loop-1/for-loop-3"] == "loop"
    assert kinds["nested_loops", "for-loop-1/for-loop-3/add"] == "task"
    assert kinds["importing", "importer"] == "importer"
    assert kinds["exit_pipeline", "clean-up"] == "exit"
    assert kinds["exit_pipeline", "echo-2"] == "exit"
    assert "exit" not in {kind for (name, _), kind in kinds.items() if name == "ignored_failure"}


def test_a_task_tells_what_it_runs_and_what_goes_in_and_out() -> None:
    made = boxes(building.draw(read("importing")))

    assert made["address-of"].runs == "python:3.11-slim"
    assert any(one.startswith("kfp==") for one in made["address-of"].requirements)
    assert made["address-of"].inputs == {"data": "artifact of importer-2"}
    assert made["address-of"].outputs == {"Output": "string"}
    assert made["importer"].runs == 'from "file:///fixed"'
    assert made["importer-2"].inputs == {"uri": "the input address"}
    assert made["importer"].artifacts == ("artifact",)


def test_groups_tell_what_they_depend_on_or_go_through() -> None:
    branches = boxes(building.draw(read("one_of")))
    loops = boxes(building.draw(read("nested_loops")))

    assert branches["condition-branches-1/condition-2"].note == "if coin == 'heads'"
    assert loops["for-loop-1"].note == "for each item of tens"
    assert loops["for-loop-1/for-loop-3"].note == "for each item of [1, 2]"


def test_edges_come_from_data_and_from_order() -> None:
    made = pairs(building.draw(read("artifacts")))
    ordered = pairs(building.draw(read("ordered")))

    assert {kind for _, _, kind in made} == {"artifact"}
    assert ("order") in {kind for _, _, kind in ordered}
    assert pairs(building.draw(read("exit_handling"))) >= {("exit-handler-1", "tell", "parameter")}


def test_each_comes_after_those_that_it_depends_on() -> None:
    for name in corpus.NAMES:
        for box in building.draw(read(name)).walk():
            met: set[str] = set()
            for child in box.children:
                before = {edge.source for edge in box.edges if edge.target == child.path}
                assert before <= met, (name, child.path)
                met.add(child.path)


def test_names_are_in_the_order_that_people_expect() -> None:
    made = flat({name: [] for name in ("t10", "t9", "t1", "a")})

    assert building.sort_tasks(made, made.spec.root.dag) == ["a", "t1", "t9", "t10"]


def test_a_run_tells_how_each_stands() -> None:
    rows = [
        node("echo", "SUCCEEDED", began=100.0, ended=103.5),
        node("fail", "FAILED", reason="no\nluck", attempt=2, began=100.0, ended=101.0),
    ]
    made = boxes(
        building.draw(flat({"echo": [], "fail": [], "other": ["echo"]}), rows, over=False)
    )

    assert made[""].state == "RUNNING"
    assert made["echo"].seconds(0) == 3.5
    assert (made["fail"].state, made["fail"].reason, made["fail"].attempt) == (
        "FAILED", "no luck", 2,
    )  # fmt: skip
    assert made["other"].state == "WAITING"
    assert made["other"].seconds(0) is None


def test_the_whole_stands_as_its_row_says_once_it_is_over() -> None:
    rows = [node("", "FAILED", "pipeline"), node("echo", began=5.0, ended=9.0)]
    pipeline = flat({"echo": []})
    over, again = (
        building.draw(pipeline, rows, over=True),
        building.draw(pipeline, rows, over=False),
    )

    assert (over.state, over.began, over.ended) == ("FAILED", 5.0, 9.0)
    assert again.state == "RUNNING"  # it is retried
    assert building.draw(pipeline, rows).state == "FAILED"  # nobody knows better


def test_what_ran_when_the_run_was_killed_runs_no_more() -> None:
    rows = [node("echo", "RUNNING", began=5.0)]
    made = boxes(building.draw(flat({"echo": [], "late": ["echo"]}), rows, over=True))

    assert {box.state for box in made.values()} == {"CANCELLED"}
    assert made["echo"].seconds(100) == 0.0


@pytest.mark.parametrize("state", ["SKIPPED", "OMITTED", "CANCELLED"])
def test_what_a_group_holds_that_never_began_stands_as_the_group(state: str) -> None:
    rows = [node("for-loop-1", state, "loop")]
    made = boxes(building.draw(read("nested_loops"), rows, over=False))

    assert made["for-loop-1/for-loop-3/add"].state == state
    assert made["grand-total"].state == "WAITING"


def test_a_loop_over_nothing_holds_nothing() -> None:
    rows = [node("for-loop-1", "SUCCEEDED", "loop")]

    assert boxes(building.draw(read("nested_loops"), rows))["for-loop-1"].children == ()


def test_iterations_are_groups_with_their_own_states() -> None:
    rows = [
        *loop_of(2, {1: "FAILED"}),
        node("for-loop-1/1/for-loop-3", "FAILED", "loop"),
        node("for-loop-1/1/for-loop-3/0", "FAILED", "iteration"),
        node("for-loop-1/1/for-loop-3/0/add", "FAILED"),
    ]
    made = boxes(building.draw(read("nested_loops"), rows, over=False))

    assert made["for-loop-1"].counts == {"SUCCEEDED": 1, "FAILED": 1}
    assert made["for-loop-1/1"].kind == "iteration"
    assert made["for-loop-1/1/for-loop-3/0/add"].state == "FAILED"


def test_of_many_iterations_those_are_shown_that_matter() -> None:
    rows = loop_of(300, {250: "FAILED", 260: "RUNNING", 270: "RUNNING"})
    loop = boxes(building.draw(read("nested_loops"), rows, over=False))["for-loop-1"]

    assert [box.name for box in loop.children] == [
        "[0]", "[1]", "[2]", "[250]", "[260]", "[270]", "294 more",
    ]  # fmt: skip
    more = loop.children[-1]
    assert (more.kind, more.counts, more.hidden) == (model.MORE, {"SUCCEEDED": 294}, 294)
    assert loop.counts == {"SUCCEEDED": 297, "FAILED": 1, "RUNNING": 2}


def test_an_iteration_that_is_asked_for_is_shown() -> None:
    rows = loop_of(300)
    for keep in ("for-loop-1/123", "for-loop-1/123/for-loop-3"):
        made = boxes(building.draw(read("nested_loops"), rows, keep=keep))
        assert keep in made
    assert "for-loop-1/12" not in made


def test_all_iterations_are_shown_to_those_who_want_them() -> None:
    made = building.draw(read("nested_loops"), loop_of(300), whole=True)

    assert len(boxes(made)["for-loop-1"].children) == 300


def test_groups_are_closed_where_all_of_it_would_be_too_much() -> None:
    root = building.draw(nested(12, 4))  # 4 ** 12 tasks
    shown = list(root.walk())

    assert 500 < len(shown) <= building.MOST_BOXES
    closed = [box for box in shown if box.hidden]
    assert closed
    assert {box.hidden for box in closed} == {4}


def test_a_pipeline_that_is_one_within_the_other_for_long_is_drawn_as_deep_as_is_seen() -> None:
    root = building.draw(nested(900, 1))

    assert 30 < len(list(root.walk())) < 60


def test_a_flat_pipeline_is_shown_whole_whatever_its_size() -> None:
    assert len(building.draw(flat({f"t{n}": [] for n in range(4000)})).children) == 4000


def test_it_is_told_as_plain_data() -> None:
    told = building.as_data(
        building.draw(flat({"a": [], "b": ["a"]}), [node("a", "RUNNING", began=1.0)], over=False),
        now=3.0,
    )
    again = json.loads(json.dumps(told))

    assert [one["path"] for one in again["nodes"]] == ["a", "b"]
    assert again["nodes"][0]["seconds"] == 2.0
    assert again["edges"] == [{"source": "a", "target": "b", "kind": "order", "names": []}]
