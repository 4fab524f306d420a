from __future__ import annotations

import pytest
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipelines import naming


def task(name: str, component: str = "comp-say") -> ir.PipelineTaskSpec:
    made = ir.PipelineTaskSpec()
    made.task_info.name = name
    made.component_ref.name = component
    return made


@pytest.mark.parametrize("name", ["", "say-3", "say_3", "say", "comp-say", "comp-say-3", " "])
def test_what_a_compiler_writes_is_no_name_of_peoples(name: str) -> None:
    told = task(name, "comp-say-3" if name == "comp-say-3" else "comp-say")

    assert naming.display_name("say-3", told) == ""
    assert naming.display_name_or_key("say-3", told) == "say-3"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("greet", "greet"), ("Say", "Say"), ("say-4", "say-4"), ("say 3", "say 3"),
        ("a/b 길 🎉", "a/b 길 🎉"), ("two\nlines\t\x1b[2J", "two lines �[2J"), ("\0", "�"),
    ],
)  # fmt: skip
def test_what_people_call_a_task_is_on_one_line(name: str, shown: str) -> None:
    assert naming.display_name_or_key("say-3", task(name)) == shown


def test_a_long_name_is_cut() -> None:
    assert naming.display_name("say", task("x" * 10**6)) == "x" * 200 + "…"


def test_a_loop_keeps_the_name_of_the_task_that_its_component_was_made_for() -> None:
    assert naming.display_name("for-loop-1", task("for-loop-1", "comp-for-loop-1")) == ""
    assert naming.display_name("for-loop-1", task("each day", "comp-for-loop-1")) == "each day"


def test_those_that_are_called_the_same_are_told_apart() -> None:
    dag = ir.DagSpec()
    for key, name in {"say": "greet", "say-2": "greet", "add": "", "add-2": "add-3"}.items():
        dag.tasks[key].task_info.name = name

    assert naming.labels(dag) == {
        "say": "greet (say)", "say-2": "greet (say-2)", "add": "add", "add-2": "add-3",
    }  # fmt: skip


def test_a_name_that_is_anothers_key_is_told_from_it() -> None:
    assert naming.make_unique({"a": "a", "b": "a"}) == {"a": "a", "b": "a (b)"}
