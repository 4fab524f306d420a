from __future__ import annotations

from pipelines.drawing import building, tree
from tests.pipelines.drawing.boxes import flat, group, node, read, task, whole


def test_it_tells_what_holds_what_and_what_waits_for_what() -> None:
    assert list(tree.lines(building.draw(read("nested_loops")), 0)) == [
        "nested-loops",
        "├─ for-loop-1  for each item of tens",
        "│  └─ for-loop-3  for each item of [1, 2]",
        "│     └─ add  python:3.11-slim",
        "└─ grand-total  python:3.11-slim  ← for-loop-1",
    ]


def test_it_tells_how_each_stands() -> None:
    rows = [
        node("a", began=1.0, ended=2.5),
        node("b", "FAILED", reason="no luck", attempt=3, began=1.0, ended=2.0),
        node("c", "OMITTED", reason="b did not succeed."),
    ]
    root = building.draw(flat({"a": [], "b": ["a"], "c": ["b"]}), rows, over=False)

    assert list(tree.lines(root, now=11.0)) == [
        "flat  ▶ RUNNING  10 s",
        "├─ a  ✓ SUCCEEDED  1.5 s",
        "├─ b  ✗ FAILED  1.0 s  attempt 3  ← a  (no luck)",
        "└─ c  ⊘ OMITTED  ← b  (b did not succeed.)",
    ]


def test_nothing_steers_the_terminal() -> None:
    root = whole(group("g\x1b[2J", "t\r\n"), task("x", reason="\x07" * 500, state="FAILED"))

    told = "\n".join(tree.lines(root, 0))
    assert not {"\x1b", "\r", "\x07"} & set(told)
    assert told.count("\n") == 3


def test_it_has_the_names_that_people_gave_beside_the_keys() -> None:
    assert list(tree.lines(building.draw(read("given_names")), 0)) == [
        "given-names",
        "├─ guard (exit-handler-1)",
        "│  ├─ count / 세다 🎉 all (add)  python:3.11-slim",
        "│  ├─ good? (condition-2)  if int(add-Output) > 0  ← count / 세다 🎉 all",
        "│  │  ├─ say (echo-2)  python:3.11-slim",
        "│  │  └─ say (echo-3)  python:3.11-slim",
        "│  └─ each day (for-loop-3)  for each item of days  ← count / 세다 🎉 all",
        "│     ├─ per day (add-2)  python:3.11-slim",
        "│     └─ add-3  python:3.11-slim",
        "└─ echo  python:3.11-slim  ← guard",
    ]


def test_those_that_are_called_the_same_are_told_apart_where_something_waits_for_them() -> None:
    pipeline = flat({"a": [], "a-2": ["a"], "b": ["a-2"]})
    for key in ("a", "a-2"):
        pipeline.spec.root.dag.tasks[key].task_info.name = "greet"

    assert list(tree.lines(building.draw(pipeline), 0)) == [
        "flat",
        "├─ greet (a)  busybox",
        "├─ greet (a-2)  busybox  ← greet (a)",
        "└─ b  busybox  ← greet (a-2)",
    ]
